/** Events that wait for a `for await` loop, bounded in number and bytes. */
import type { CpgEvent } from './events';

export const MAX_QUEUED_EVENTS = 1024;
export const MAX_QUEUED_EVENT_BYTES = 4 * 1024 * 1024;
const OVERFULL_FACTOR = 16;

interface Waiter {
  resolve: (result: IteratorResult<CpgEvent, undefined>) => void;
  reject: (error: Error) => void;
}

export class EventQueue implements AsyncIterableIterator<CpgEvent, undefined> {
  readonly #onTaken: () => void;
  readonly #onReturn: (queue: EventQueue, left: readonly CpgEvent[]) => void;
  #events: CpgEvent[] = [];
  #bytes = 0;
  #waiters: Waiter[] = [];
  #ended = false;
  #error: Error | undefined;

  /** `onTaken` is called when there is room again, `onReturn` when the loop is left, with what it did not take. */
  constructor(onTaken: () => void, onReturn: (queue: EventQueue, left: readonly CpgEvent[]) => void) {
    this.#onTaken = onTaken;
    this.#onReturn = onReturn;
  }

  get full(): boolean {
    return this.#events.length >= MAX_QUEUED_EVENTS || this.#bytes >= MAX_QUEUED_EVENT_BYTES;
  }

  /** Full even for a loop that awaits a confirmation, which comes with an event behind these. */
  get overfull(): boolean {
    return (
      this.#events.length >= OVERFULL_FACTOR * MAX_QUEUED_EVENTS ||
      this.#bytes >= OVERFULL_FACTOR * MAX_QUEUED_EVENT_BYTES
    );
  }

  push(event: CpgEvent): void {
    if (this.#ended) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve({ value: event, done: false });
      return;
    }
    this.#events.push(event);
    this.#bytes += eventBytes(event);
  }

  /** The oldest event, if there is one. */
  take(): CpgEvent | undefined {
    const wasFull = this.full;
    const event = this.#events.shift();
    if (event !== undefined) this.#bytes -= eventBytes(event);
    if (wasFull) this.#onTaken();
    return event;
  }

  /** No more events: what is queued is still handed out, then the loop ends, with `error` if there is one. */
  end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    for (const waiter of this.#waiters.splice(0)) this.#settleEnded(waiter);
  }

  next(): Promise<IteratorResult<CpgEvent, undefined>> {
    const event = this.take();
    if (event !== undefined) return Promise.resolve({ value: event, done: false });
    return new Promise((resolve, reject) => {
      if (this.#ended) this.#settleEnded({ resolve, reject });
      else this.#waiters.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorResult<CpgEvent, undefined>> {
    const left = this.#events;
    this.#events = [];
    this.#bytes = 0;
    this.#error = undefined;
    this.end();
    this.#onReturn(this, left);
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** An error is told once. */
  #settleEnded(waiter: Waiter): void {
    const error = this.#error;
    this.#error = undefined;
    if (error === undefined) waiter.resolve({ value: undefined, done: true });
    else waiter.reject(error);
  }
}

/** What an event keeps in memory, roughly. */
function eventBytes(event: CpgEvent): number {
  return event.type === 'deliver' ? event.message.length : 0;
}
