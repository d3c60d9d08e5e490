/**
 * A client without a session: it sends any frame in any state, and takes what comes back as it comes. The
 * daemon's traps can only be reached this way, because CpgClient keeps its users from them.
 */
import { decodeEvent, type CpgWireEvent } from '../../src/codec/events';
import { connectTransport } from '../../src/transport/connect';
import type { Transport } from '../../src/transport/transport';

const CONNECT_TIMEOUT_MS = 10_000;
const REPLY_TIMEOUT_MS = 10_000;
const NO_PARTS: readonly Uint8Array[] = [];

export class RawClient {
  readonly #transport: Transport;
  readonly #onChange: () => void;
  /** Everything that came and was not taken yet; fragments and messages have memory of their own. */
  #events: CpgWireEvent[] = [];
  #awaiting: { resolve: (frame: Buffer) => void; reject: (error: Error) => void } | undefined;
  #onRoom: (() => void) | undefined;
  #lost = false;

  private constructor(transport: Transport, onChange: () => void) {
    this.#transport = transport;
    this.#onChange = onChange;
    transport.listen({
      onEvents: () => {
        // A copy each: the frame is only valid during the call.
        const keep = (frame: Buffer): boolean => this.#events.push(decodeEvent(Buffer.from(frame))) > 0;
        while (transport.consumeEvents(Infinity, keep) > 0);
        this.#onChange();
      },
      onResponse: (frame) => {
        const awaiting = this.#awaiting;
        this.#awaiting = undefined;
        awaiting?.resolve(frame);
      },
      onRoom: () => this.#onRoom?.(),
      onPosted: () => undefined,
      onRingEmptied: () => undefined,
      onClose: (reason) => {
        this.#lost = reason !== undefined;
        this.#awaiting?.reject(reason ?? new Error('closed'));
        this.#onChange();
      },
    });
  }

  /** `onChange` is called when events arrived or the connection ended. */
  static async connect(address: string, onChange: () => void = () => undefined): Promise<RawClient> {
    return new RawClient(await connectTransport(address, AbortSignal.timeout(CONNECT_TIMEOUT_MS)), onChange);
  }

  /** The daemon hung up. */
  get lost(): boolean {
    return this.#lost;
  }

  /** What arrived since the last call. */
  takeEvents(): CpgWireEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  /** Sends a frame that has no reply. */
  async send(frame: Buffer): Promise<void> {
    while (!this.#transport.stage(frame, NO_PARTS, frame.length)) {
      if (this.#lost) throw new Error('the connection is lost');
      await new Promise<void>((resolve) => (this.#onRoom = resolve));
    }
  }

  /** Sends a frame and returns the reply to it. */
  async request(frame: Buffer): Promise<Buffer> {
    const reply = new Promise<Buffer>((resolve, reject) => {
      this.#awaiting = { resolve, reject };
    });
    const timer = setTimeout(() => this.#awaiting?.reject(new Error('no reply')), REPLY_TIMEOUT_MS);
    reply.finally(() => clearTimeout(timer)).catch(() => undefined);
    await this.send(frame);
    this.#transport.expectResponse();
    return reply;
  }

  /** Hangs up without a word, as a killed process does. */
  async kill(): Promise<void> {
    await this.#transport.close();
  }
}
