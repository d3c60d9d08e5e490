/** One `for await` over events. */
import type { CpgEvent, CpgEventLoop } from '../events';
import { abortReason, whenAborted } from '../session/deadline';
import { deferred, type Deferred } from '../session/deferred';
import type { Cursor, EventLog } from './event-log';

type Result = IteratorResult<CpgEvent, undefined>;

export class EventLoop implements CpgEventLoop {
  readonly #log: EventLog;
  readonly #onLeft: (cursor: Cursor) => void;
  /** Undefined after the loop was left. */
  #cursor: Cursor | undefined;
  readonly #waiting: Deferred<Result>[] = [];
  #ended = false;
  /** Thrown once, after the last event. */
  #error: Error | undefined;
  #ignoreSignal: () => void = () => undefined;

  /** `onLeft` gets the cursor back when the loop is left. */
  constructor(log: EventLog, cursor: Cursor, onLeft: (cursor: Cursor) => void) {
    this.#log = log;
    this.#cursor = cursor;
    this.#onLeft = onLeft;
  }

  /** When `signal` aborts, the loop is left and throws the reason. */
  watch(signal: AbortSignal): void {
    this.#ignoreSignal = whenAborted(signal, () => this.#leave(abortReason(signal)));
  }

  /** There is another event, or the loop ended: settles waiting calls. */
  wake(): void {
    while (this.#waiting.length > 0) {
      const event = this.#take();
      if (event === undefined && !this.#ended) return;
      const call = this.#waiting.shift()!;
      if (event !== undefined) call.resolve({ value: event, done: false });
      else this.#settleEnded(call);
    }
  }

  /** No more events follow: the loop ends after those queued, with `error` if there is one. */
  end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.wake();
  }

  next(): Promise<Result> {
    const event = this.#take();
    if (event !== undefined) return Promise.resolve({ value: event, done: false });
    const call = deferred<Result>();
    this.#waiting.push(call);
    this.wake();
    return call.promise;
  }

  return(): Promise<Result> {
    this.#leave();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #take(): CpgEvent | undefined {
    return this.#cursor === undefined ? undefined : this.#log.take(this.#cursor);
  }

  #leave(error?: Error): void {
    const cursor = this.#cursor;
    this.#cursor = undefined;
    this.#ignoreSignal();
    this.#ended = true;
    this.#error = error;
    this.wake();
    if (cursor !== undefined) this.#onLeft(cursor);
  }

  #settleEnded(call: Deferred<Result>): void {
    this.#ignoreSignal();
    const error = this.#error;
    this.#error = undefined;
    if (error === undefined) call.resolve({ value: undefined, done: true });
    else call.reject(error);
  }
}
