/** One `for await` over events. */
import { abortReason, listenForAbort } from '../session/deadline';
import { deferred, type Deferred } from '../session/deferred';
import type { CpgEvent } from '../events';

type Result = IteratorResult<CpgEvent, undefined>;

/** Where a loop gets its events. */
export interface LoopSource {
  /** The next event, if there is one. */
  take(): CpgEvent | undefined;
  /** The loop takes no more. */
  leave(): void;
}

export class EventLoop implements AsyncIterableIterator<CpgEvent, undefined> {
  /** Undefined when the loop was left. */
  #source: LoopSource | undefined;
  readonly #waiting: Deferred<Result>[] = [];
  #ended = false;
  /** Thrown once, when all events are taken. */
  #error: Error | undefined;
  #ignoreSignal: () => void = () => undefined;

  constructor(source: LoopSource) {
    this.#source = source;
  }

  /** When `signal` aborts, the loop is left and throws the reason. */
  watch(signal: AbortSignal): void {
    const onAbort = (): void => this.#leave(abortReason(signal));
    if (signal.aborted) {
      onAbort();
      return;
    }
    listenForAbort(signal, onAbort);
    this.#ignoreSignal = () => signal.removeEventListener('abort', onAbort);
  }

  /** There is another event. */
  wake(): void {
    if (this.#waiting.length === 0) return;
    const event = this.#source?.take();
    if (event !== undefined) this.#waiting.shift()!.resolve({ value: event, done: false });
  }

  /** No more events follow: after those there are the loop ends, with `error` if there is one. */
  end(error?: Error): void {
    if (!this.#ended) this.#finish(error);
  }

  next(): Promise<Result> {
    const event = this.#source?.take();
    if (event !== undefined) return Promise.resolve({ value: event, done: false });
    const call = deferred<Result>();
    if (this.#ended) this.#settleEnded(call);
    else this.#waiting.push(call);
    return call.promise;
  }

  return(): Promise<Result> {
    this.#leave();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #leave(error?: Error): void {
    const source = this.#source;
    this.#source = undefined;
    this.#ignoreSignal();
    this.#finish(error);
    source?.leave();
  }

  #finish(error?: Error): void {
    this.#ended = true;
    this.#error = error;
    for (const call of this.#waiting.splice(0)) this.#settleEnded(call);
  }

  #settleEnded(call: Deferred<Result>): void {
    this.#ignoreSignal();
    const error = this.#error;
    this.#error = undefined;
    if (error === undefined) call.resolve({ value: undefined, done: true });
    else call.reject(error);
  }
}
