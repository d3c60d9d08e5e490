/**
 * Sends messages in the order of the calls: immediately if possible, else through the outbox. A timer detects that the
 * daemon takes nothing while messages wait.
 */
import { clearTimeout, setTimeout } from '../clock';
import { MCAST_HEADER_BYTES, PARTIAL_MCAST_HEADER_BYTES } from '../codec/requests';
import { CpgError } from '../errors';
import type { Transport } from '../transport/transport';
import { Deadline, throwIfAborted, untilAborted } from './deadline';
import { deferred, type Deferred } from './deferred';
import { Fence, FragmentedJob, type FragmentRoute } from './fragments';
import { stageMessage, type OutgoingMessage } from './message';
import { messageBytes, type Job } from './outbox';
import { counted } from '../text';

const DONE = Promise.resolve();

export interface SenderParts extends FragmentRoute {
  readonly transport: Transport;
  readonly timeoutMs: number;
  /** The largest message that goes out in one frame. */
  readonly maxAtomicMessageSize: number;
  /** After trySend() returned false: it is worth calling again. */
  readonly onDrain: () => void;
}

export class Sender {
  readonly #parts: SenderParts;
  readonly #fence: Fence;
  /** The promise of messages staged but not posted. */
  #batch: Deferred<void> | undefined;
  #stall: NodeJS.Timeout | undefined;
  #wantsDrain = false;

  constructor(parts: SenderParts) {
    this.#parts = parts;
    this.#fence = new Fence(parts);
  }

  /** Resolves when the message is in the daemon's ring. */
  send(message: OutgoingMessage, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    const { outbox, maxAtomicMessageSize } = this.#parts;
    if (message.length > maxAtomicMessageSize) return this.#sendFragmented(message, signal);
    let sent: Promise<void>;
    if (outbox.empty && this.#stage(message)) {
      sent = this.#posted();
    } else {
      sent = outbox.run(this.#job(message, signal), signal);
      this.#armStall();
    }
    // Once the message is staged, aborting only ends the wait.
    return signal === undefined ? sent : untilAborted(sent, signal);
  }

  /** False: not sent, for lack of room; onDrain() follows. */
  trySend(message: OutgoingMessage): boolean {
    const { outbox } = this.#parts;
    // If staging ended the connection, 'close' reports it.
    if (outbox.empty && this.#stage(message)) return true;
    outbox.assertOpen();
    this.#wantsDrain = true;
    return false;
  }

  /** Staged frames were posted. */
  onPosted(): void {
    this.#batch?.resolve();
    this.#batch = undefined;
    this.onProgress();
  }

  /** The daemon took something: restarts its time limit for the rest. */
  onProgress(): void {
    if (this.#waiting) this.#stall?.refresh();
    else this.#disarmStall();
  }

  /** The outbox is empty. */
  onOutboxEmpty(): void {
    if (!this.#waiting) this.#disarmStall();
    if (!this.#wantsDrain) return;
    this.#wantsDrain = false;
    this.#parts.onDrain();
  }

  /** The connection ended, and the outbox with it. */
  end(error: Error): void {
    this.#fence.stop();
    this.#disarmStall();
    this.#batch?.reject(error);
    this.#batch = undefined;
    this.#parts.window.end(error);
    // A caller that waits for 'drain' calls trySend() again, which then throws.
    this.onOutboxEmpty();
  }

  async #sendFragmented(message: OutgoingMessage, signal: AbortSignal | undefined): Promise<void> {
    const { outbox, timeoutMs, maxAtomicMessageSize } = this.#parts;
    // Each fragment the daemon takes restarts the deadline.
    const deadline = new Deadline(`mcast of ${counted(message.length, 'byte')}`, timeoutMs, signal);
    const fragmentBytes = maxAtomicMessageSize - (PARTIAL_MCAST_HEADER_BYTES - MCAST_HEADER_BYTES);
    const job = new FragmentedJob(this.#parts, message, fragmentBytes, () => deadline.refresh());
    try {
      await outbox.run(job, deadline.signal);
    } finally {
      deadline.dispose();
    }
  }

  /** A message that found no room, or follows one that did not. */
  #job(message: OutgoingMessage, signal: AbortSignal | undefined): Job {
    const { promise, resolve, reject } = deferred<void>();
    return {
      done: promise,
      bytes: messageBytes(message, signal),
      hasDeadline: false,
      cancelled: false,
      advance: () => {
        try {
          if (!this.#stage(message)) return false;
          resolve(this.#posted());
        } catch (error) {
          reject(error as Error);
        }
        return true;
      },
      fail: reject,
    };
  }

  /** Stages a message if the fence, the window and the transport allow it. Throws if it can never be sent. */
  #stage(message: OutgoingMessage): boolean {
    const { transport, window } = this.#parts;
    const staged =
      this.#fence.passes(message.confirm !== undefined) &&
      window.allows(message.length) &&
      stageMessage(transport, message);
    if (staged) window.sent(message);
    return staged;
  }

  /** Resolves when all staged messages are in the daemon's ring. */
  #posted(): Promise<void> {
    if (this.#parts.transport.staged === 0) return DONE;
    this.#batch ??= deferred<void>();
    this.#armStall();
    return this.#batch.promise;
  }

  get #waiting(): boolean {
    return this.#batch !== undefined || !this.#parts.outbox.empty;
  }

  #armStall(): void {
    if (this.#waiting) this.#stall ??= setTimeout(() => this.#onStall(), this.#parts.timeoutMs);
  }

  #disarmStall(): void {
    clearTimeout(this.#stall);
    this.#stall = undefined;
  }

  /** Requests and fragmented messages have their own deadlines and keep waiting. */
  #onStall(): void {
    this.#stall = undefined;
    const { outbox, timeoutMs } = this.#parts;
    const what = `mcast: the daemon took nothing for ${timeoutMs} ms`;
    const advice = 'see whether the node is overloaded, has lost its cluster, or is stopped';
    this.#batch?.reject(
      new CpgError('CS_ERR_TIMEOUT', what, {
        reason: 'sent-later',
        remedy: `it is sent once the daemon goes on; ${advice}`,
      }),
    );
    this.#batch = undefined;
    outbox.failMessages(
      new CpgError('CS_ERR_TIMEOUT', what, {
        reason: 'not-sent',
        remedy: `nothing of it was sent; ${advice}`,
      }),
    );
    outbox.drain();
    this.#armStall();
  }
}
