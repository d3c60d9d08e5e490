/** Fragments: one in flight at a time; the daemon answers each. */
import { clearTimeout, setTimeout } from '../clock';
import {
  encodePartialMcastHeader,
  FragmentType,
  Guarantee,
  PARTIAL_MCAST_HEADER_BYTES,
  RequestId,
} from '../codec/requests';
import type { CpgResponse } from '../codec/responses';
import { debugMessage } from '../debug';
import { codeOf, CpgError, CS_OK } from '../errors';
import { Backoff } from './deadline';
import { deferred } from './deferred';
import type { InFlightWindow } from './in-flight';
import type { OutgoingMessage } from './message';
import { DEADLINE_BYTES, messageBytes, type Job, type Outbox } from './outbox';
import type { Exchange, RequestChannel } from './request-channel';

/** How often a large message restarts because the membership changed meanwhile. */
const MAX_RESTARTS = 16;

/** Where fragments go; the outbox resumes after a pause. */
export interface FragmentRoute {
  readonly requests: RequestChannel;
  readonly window: InFlightWindow;
  readonly outbox: Outbox;
}

/** Sends one fragment at a time. After CS_ERR_TRY_AGAIN it pauses, longer each time, and then resumes. */
class FragmentExchange implements Exchange {
  readonly requestId = RequestId.partialMcast;
  #state: 'idle' | 'inFlight' | 'paused' = 'idle';
  #backoff = new Backoff();
  #pause: NodeJS.Timeout | undefined;

  constructor(
    private readonly route: FragmentRoute,
    private readonly onAnswer: (error: number) => void,
  ) {}

  get idle(): boolean {
    return this.#state === 'idle';
  }

  /** True if the fragment was staged: its answer follows. */
  send(
    message: { guarantee: number; length: number },
    fragmentType: number,
    fragment: readonly Uint8Array[],
    fragmentLength: number,
  ): boolean {
    if (!this.idle || !this.route.requests.idle) return false;
    const { guarantee, length: messageLength } = message;
    const fields = { type: 'partialMcast', guarantee, messageLength, fragmentLength, fragmentType };
    const head = encodePartialMcastHeader(fields);
    const length = PARTIAL_MCAST_HEADER_BYTES + fragmentLength;
    if (!this.route.requests.stage(this, head, fragment, length)) return false;
    debugMessage('>', fields);
    this.#state = 'inFlight';
    return true;
  }

  onReply({ error }: CpgResponse): void {
    if (codeOf(error) === 'CS_ERR_TRY_AGAIN') {
      this.#state = 'paused';
      this.#pause = setTimeout(() => {
        this.#state = 'idle';
        this.route.outbox.drain();
      }, this.#backoff.pauseMs);
    } else {
      this.#state = 'idle';
      this.#backoff = new Backoff();
    }
    this.onAnswer(error);
  }

  stop(): void {
    clearTimeout(this.#pause);
  }
}

/**
 * A message larger than a frame. CS_ERR_TRY_AGAIN repeats the fragment. CS_ERR_INTERRUPT means that the membership
 * changed and the members dropped the earlier fragments: the message restarts, so that it arrives whole or not at all.
 */
export class FragmentedJob implements Job {
  readonly hasDeadline = true;
  cancelled = false;
  readonly #sent = deferred<void>();
  readonly #exchange: FragmentExchange;
  #offset = 0;
  #restarts = 0;
  #finished = false;

  constructor(
    private readonly route: FragmentRoute,
    private readonly message: OutgoingMessage,
    private readonly fragmentBytes: number,
    /** Called for each fragment the daemon took. */
    private readonly onProgress: () => void,
  ) {
    this.#exchange = new FragmentExchange(route, (error) => this.#answered(error));
  }

  /** Resolves when the daemon took the last fragment. */
  get done(): Promise<void> {
    return this.#sent.promise;
  }

  get bytes(): number {
    return messageBytes(this.message) + DEADLINE_BYTES;
  }

  advance(): boolean {
    if (this.#finished) return true;
    // The parts themselves, so that a queued message is in memory only once.
    const fragment = between(this.message.parts, this.#offset, this.#end);
    if (!this.#exchange.send(this.message, this.#fragmentType, fragment, this.#end - this.#offset))
      return false;
    // The message can be delivered before we see the reply to its last fragment.
    if (this.#fragmentType === FragmentType.LAST) this.route.window.largeSent(this.message.confirm);
    return false;
  }

  fail(error: Error): void {
    this.#finished = true;
    this.#exchange.stop();
    this.#sent.reject(error);
  }

  #answered(error: number): void {
    if (error !== CS_OK && this.#fragmentType === FragmentType.LAST) this.route.window.largeRefused();
    if (this.cancelled || codeOf(error) === 'CS_ERR_TRY_AGAIN') return;
    if (error === CS_OK) {
      this.onProgress();
      this.#offset = this.#end;
      this.#finished = this.#offset === this.message.length;
      if (this.#finished) this.#sent.resolve();
    } else if (codeOf(error) === 'CS_ERR_INTERRUPT' && this.#restarts++ < MAX_RESTARTS) {
      this.#offset = 0;
    } else {
      this.fail(CpgError.fromReply(error, `mcast of ${this.message.length} bytes`));
    }
  }

  /** Where the current fragment ends. */
  get #end(): number {
    return Math.min(this.#offset + this.fragmentBytes, this.message.length);
  }

  get #fragmentType(): number {
    if (this.#offset === 0) return FragmentType.FIRST;
    return this.#end === this.message.length ? FragmentType.LAST : FragmentType.CONTINUED;
  }
}

/** The bytes from `start` to `end` of the concatenated parts. */
function between(parts: readonly Uint8Array[], start: number, end: number): Uint8Array[] {
  const found: Uint8Array[] = [];
  let offset = 0;
  for (const part of parts) {
    const here = part.subarray(Math.max(0, start - offset), Math.max(0, end - offset));
    if (here.length > 0) found.push(here);
    offset += part.length;
  }
  return found;
}

/** Announces a message of one byte that never follows; for an empty one libcpg would allocate nothing. */
const FENCE = { guarantee: Guarantee.AGREED, length: 1 };

/** Keeps confirmed messages apart from unconfirmed ones: see in-flight.ts. */
export class Fence {
  readonly #exchange: FragmentExchange;
  #refusal: CpgError | undefined;

  constructor(private readonly route: FragmentRoute) {
    this.#exchange = new FragmentExchange(route, (error) => this.#answered(error));
  }

  /**
   * Whether a message may be sent now. If a fence is needed first, sends it; false until the daemon has answered.
   * Throws the CpgError with which the daemon refused the fence.
   */
  passes(confirmed: boolean): boolean {
    if (!this.#exchange.idle) return false;
    const refusal = this.#refusal;
    this.#refusal = undefined;
    if (!this.route.window.needsFence(confirmed)) return true;
    if (refusal !== undefined) throw refusal;
    if (this.#exchange.send(FENCE, FragmentType.FIRST, [], 0)) this.route.window.fenceSent();
    return false;
  }

  /** The connection ended. */
  stop(): void {
    this.#exchange.stop();
  }

  #answered(error: number): void {
    if (error === CS_OK) return;
    this.route.window.fenceRefused();
    if (codeOf(error) !== 'CS_ERR_TRY_AGAIN') this.#refusal = CpgError.fromReply(error, 'mcast');
  }
}
