import { clearTimeout, setTimeout } from '../clock';
import { CpgError } from '../errors';

/** A time limit for a stream: the signal aborts when the time is up or the command shall end. */
export class TimeLimit {
  readonly #time = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly signal: AbortSignal;

  constructor(outer: AbortSignal, timeoutMs: number | undefined) {
    this.signal = AbortSignal.any([outer, this.#time.signal]);
    if (timeoutMs !== undefined) this.#timer = setTimeout(() => this.#time.abort(), timeoutMs);
  }

  /** Whether the time is up. */
  get expired(): boolean {
    return this.#time.signal.aborted;
  }

  /** What to fail with when the time was too short for something. */
  failure(what: string): CpgError {
    const remedy = 'give more time, or see whether what is awaited can come';
    return new CpgError('CS_ERR_TIMEOUT', `${what} within the time`, { remedy });
  }

  dispose(): void {
    clearTimeout(this.#timer);
  }
}
