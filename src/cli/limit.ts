import { CpgError } from '../errors';

/** A time limit for a stream: the signal aborts when the time is up or the command shall end. */
export class TimeLimit {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #outer: AbortSignal;
  readonly #onAbort = (): void => this.#controller.abort(this.#outer.reason);
  #passed = false;

  constructor(outer: AbortSignal, timeoutMs: number | undefined) {
    this.#outer = outer;
    if (outer.aborted) this.#onAbort();
    outer.addEventListener('abort', this.#onAbort);
    if (timeoutMs === undefined) return;
    this.#timer = setTimeout(() => {
      this.#passed = true;
      this.#controller.abort();
    }, timeoutMs);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether it was the time that ended it. */
  get passed(): boolean {
    return this.#passed;
  }

  /** What to fail with when the time was too short for something. */
  failure(what: string): CpgError {
    const remedy = 'give more time, or see whether what is awaited can come';
    return new CpgError('CS_ERR_TIMEOUT', `${what} within the time`, { remedy });
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener('abort', this.#onAbort);
  }
}
