/**
 * Coalesces the wake-ups of a busy receive-only member, as network cards do with interrupts: it stops reading the
 * service socket for a moment, so that one wake-up finds many events. A wake-up costs several times as much as an event.
 * A member that sends is waiting at least for its own messages, so it does not coalesce for some time afterwards.
 */
import { clearTimeout, monotonicMs, setTimeout } from '../clock';

/** With this many events in the time of one pause, the next pause is worthwhile. */
const BUSY_EVENTS = 16;
/** No pause for this long after something was sent. */
const AFTER_SENDING_MS = 50;

export interface CoalescerOptions {
  /** Milliseconds of one pause; 0 for none. */
  readonly coalesceMs: number;
  /**
   * No pause while more event bytes than this arrive in the time of one: the ring would be full before the pause ends,
   * and the daemon would have to wait.
   */
  readonly maxBytes: number;
  readonly onEnd: () => void;
}

export class Coalescer {
  readonly #options: CoalescerOptions;
  #timer: NodeJS.Timeout | undefined;
  #pausing = false;
  #events = 0;
  #bytes = 0;
  /** Bytes of the previous count, if it ended just before this one. */
  #bytesBefore = 0;
  #countingSinceMs = 0;
  #notBeforeMs = 0;

  constructor(options: CoalescerOptions) {
    this.#options = options;
  }

  /** Events arrived that take `bytes` of the ring. True starts a pause: do not read before onEnd(). */
  received(events: number, bytes: number): boolean {
    const { coalesceMs, maxBytes } = this.#options;
    if (coalesceMs === 0 || this.#pausing) return false;
    const now = monotonicMs();
    if (now - this.#countingSinceMs > coalesceMs) this.#count(now);
    this.#events += events;
    this.#bytes += bytes;
    const tooFast = Math.max(this.#bytes, this.#bytesBefore) > maxBytes;
    if (this.#events < BUSY_EVENTS || tooFast || now < this.#notBeforeMs) return false;
    this.#pausing = true;
    if (this.#timer === undefined) this.#timer = setTimeout(this.#end, coalesceMs);
    else this.#timer.refresh();
    return true;
  }

  /** Something was sent. Ends a pause. */
  sent(): void {
    if (this.#options.coalesceMs === 0) return;
    this.#notBeforeMs = monotonicMs() + AFTER_SENDING_MS;
    this.#end();
  }

  /** No more pauses, and no onEnd(). */
  stop(): void {
    this.#pausing = false;
    this.#notBeforeMs = Infinity;
    clearTimeout(this.#timer);
  }

  #count(now: number): void {
    const isNext = now - this.#countingSinceMs <= 2 * this.#options.coalesceMs;
    this.#bytesBefore = isNext ? this.#bytes : 0;
    this.#countingSinceMs = now;
    this.#events = 0;
    this.#bytes = 0;
  }

  readonly #end = (): void => {
    if (!this.#pausing) return;
    this.#pausing = false;
    this.#count(monotonicMs());
    this.#options.onEnd();
  };
}
