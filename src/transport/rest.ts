/**
 * Rests between two looks at the service socket.
 *
 * While messages come fast, each wake-up finds a few of them, and costs several times what they do. A member
 * that only receives lets them gather for a moment instead, as network cards do. It wakes up at once to send:
 * who sends waits for something, his own messages at least, so he does not rest until that is long ago.
 */
import { clearTimeout, monotonicMs, setTimeout } from '../clock';

/** So many events within a rest, or the time of one, make the next rest worth while. */
const BRISK_EVENTS = 16;
/** After anything was sent there is no rest for so long. */
const QUIET_MS = 50;

export interface RestOptions {
  /** Milliseconds of one rest; 0 for none. */
  readonly restMs: number;
  /**
   * More bytes of events must not gather in the time of a rest: when they come that fast, the ring would be full before
   * the rest is over, and the daemon would wait.
   */
  readonly maxBytes: number;
  readonly onEnd: () => void;
}

export class Rest {
  readonly #options: RestOptions;
  #timer: NodeJS.Timeout | undefined;
  #resting = false;
  #events = 0;
  #bytes = 0;
  /** The bytes of the time of one rest before. */
  #bytesBefore = 0;
  #countingSinceMs = 0;
  #quietFromMs = 0;

  constructor(options: RestOptions) {
    this.#options = options;
  }

  /** Events came that take `bytes` of the ring. True when a rest begins: do not look before onEnd(). */
  received(events: number, bytes: number): boolean {
    const { restMs, maxBytes } = this.#options;
    if (restMs === 0 || this.#resting) return false;
    const now = monotonicMs();
    if (now - this.#countingSinceMs > restMs) this.#count(now);
    this.#events += events;
    this.#bytes += bytes;
    const tooFast = Math.max(this.#bytes, this.#bytesBefore) > maxBytes;
    if (this.#events < BRISK_EVENTS || tooFast || now < this.#quietFromMs) return false;
    this.#resting = true;
    if (this.#timer === undefined) this.#timer = setTimeout(this.#end, restMs);
    else this.#timer.refresh();
    return true;
  }

  /** Something was sent. Ends a rest. */
  sent(): void {
    if (this.#options.restMs === 0) return;
    this.#quietFromMs = monotonicMs() + QUIET_MS;
    this.#end();
  }

  /** No rest any more, and no onEnd. */
  stop(): void {
    this.#resting = false;
    this.#quietFromMs = Infinity;
    clearTimeout(this.#timer);
  }

  #count(now: number): void {
    const isNext = now - this.#countingSinceMs <= 2 * this.#options.restMs;
    this.#bytesBefore = isNext ? this.#bytes : 0;
    this.#countingSinceMs = now;
    this.#events = 0;
    this.#bytes = 0;
  }

  readonly #end = (): void => {
    if (!this.#resting) return;
    this.#resting = false;
    this.#count(monotonicMs());
    this.#options.onEnd();
  };
}
