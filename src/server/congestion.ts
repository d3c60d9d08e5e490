/**
 * Readers that fall behind, and whether senders must wait for them.
 *
 * While a reader is far behind but still reads, senders wait, so that no queue grows. A stopped reader delays nobody: its
 * queue grows until it reaches its own limit or the limit of all queues together; then the reader is dropped.
 */

import { clearInterval, monotonicMs, setInterval } from '../clock';
import { CpgError } from '../errors';

/** With this many bytes waiting, a reader is behind ... */
const BEHIND_BYTES = 8 * 1024 * 1024;
/** ... until this many are left: enough to keep it busy until the polling senders continue. */
const CAUGHT_UP_BYTES = 4 * 1024 * 1024;
/** A reader that takes nothing for this long has stopped. */
const STOPPED_AFTER_MS = 200;
const LOOK_EVERY_MS = 50;
/** Limit for all late readers together; above it, the one that stopped first is dropped. */
export const MAX_WAITING_BYTES = 256 * 1024 * 1024;

export interface Reader {
  /** Last time it took something; milliseconds of the monotonic clock. */
  readonly lastProgress: number;
  drop(reason: unknown): void;
}

export class Congestion {
  /** Readers that are behind, with their waiting bytes. */
  readonly #behind = new Map<Reader, number>();
  #waitingBytes = 0;
  readonly #onChange: (held: boolean) => void;
  #timer: NodeJS.Timeout | undefined;
  #held = false;

  /** Calls `onChange` when senders must wait, and when they may continue. */
  constructor(onChange: (held: boolean) => void) {
    this.#onChange = onChange;
  }

  /** Sets the number of bytes that wait for this reader. */
  update(reader: Reader, queuedBytes: number): void {
    if (queuedBytes > BEHIND_BYTES) {
      const before = this.#behind.get(reader);
      this.#behind.set(reader, queuedBytes);
      this.#waitingBytes += queuedBytes - (before ?? 0);
      if (this.#waitingBytes > MAX_WAITING_BYTES) this.#dropOne();
      if (before !== undefined) return;
      this.#timer ??= setInterval(() => this.#look(), LOOK_EVERY_MS).unref();
      this.#look();
    } else if (queuedBytes <= CAUGHT_UP_BYTES && this.#behind.size > 0) {
      this.forget(reader);
    }
  }

  forget(reader: Reader): void {
    this.#waitingBytes -= this.#behind.get(reader) ?? 0;
    if (this.#behind.delete(reader)) this.#look();
  }

  close(): void {
    this.#behind.clear();
    this.#waitingBytes = 0;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Spares active readers: senders wait for them, so their queues do not grow. */
  #dropOne(): void {
    const stopped = [...this.#behind.keys()]
      .filter(({ lastProgress }) => monotonicMs() - lastProgress >= STOPPED_AFTER_MS)
      .sort((one, other) => one.lastProgress - other.lastProgress);
    stopped[0]?.drop(
      new CpgError(
        'CS_ERR_QUEUE_FULL',
        `it does not read, and ${this.#waitingBytes} bytes of events wait for all such clients`,
      ),
    );
  }

  #look(): void {
    const now = monotonicMs();
    const held = [...this.#behind.keys()].some(({ lastProgress }) => now - lastProgress < STOPPED_AFTER_MS);
    if (this.#behind.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    if (held === this.#held) return;
    this.#held = held;
    this.#onChange(held);
  }
}
