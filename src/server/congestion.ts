/**
 * Readers that fall behind, and whether senders have to wait for them.
 *
 * While a reader has much to catch up with and does catch up, senders are held, so that no queue grows. A
 * reader that has stopped altogether holds nobody: its queue grows up to the bound at which it is dropped.
 */

/** With so many bytes waiting, a reader is behind ... */
const BEHIND_BYTES = 8 * 1024 * 1024;
/** ... until no more than this are left: enough to keep it busy until senders, who look now and then, go on. */
const CAUGHT_UP_BYTES = 4 * 1024 * 1024;
/** A reader that takes nothing for so long has stopped. */
const STOPPED_AFTER_MS = 200;
const LOOK_EVERY_MS = 50;

export interface Reader {
  /** When it last took something; milliseconds as performance.now(). */
  readonly lastProgress: number;
}

export class Congestion {
  readonly #behind = new Set<Reader>();
  readonly #onChange: (held: boolean) => void;
  #timer: NodeJS.Timeout | undefined;
  #held = false;

  /** `onChange` is told when senders are to wait, and when they may go on. */
  constructor(onChange: (held: boolean) => void) {
    this.#onChange = onChange;
  }

  /** So many bytes wait for this reader now. */
  update(reader: Reader, queuedBytes: number): void {
    if (queuedBytes > BEHIND_BYTES) {
      if (this.#behind.has(reader)) return;
      this.#behind.add(reader);
      this.#timer ??= setInterval(() => this.#look(), LOOK_EVERY_MS).unref();
      this.#look();
    } else if (queuedBytes <= CAUGHT_UP_BYTES && this.#behind.size > 0) {
      this.forget(reader);
    }
  }

  forget(reader: Reader): void {
    if (this.#behind.delete(reader)) this.#look();
  }

  close(): void {
    this.#behind.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    const now = performance.now();
    const held = [...this.#behind].some(({ lastProgress }) => now - lastProgress < STOPPED_AFTER_MS);
    if (this.#behind.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    if (held === this.#held) return;
    this.#held = held;
    this.#onChange(held);
  }
}
