/** A time limit and the caller's AbortSignal as one signal, for one call. */
import { setMaxListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { CpgError, type CpgErrorReason } from '../errors';

/** Longest time a Node timer can hold. */
export const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #userSignal: AbortSignal | undefined;
  /** What the daemon said so far, for the time-out to tell. */
  lastAnswer: Error | undefined;
  /** What to do when it is missed, where the general advice does not fit. */
  remedy: string | undefined;
  /** Which cause it is that it was missed, where it is not the daemon's silence. */
  reason: CpgErrorReason | undefined;
  readonly #onUserAbort = (): void => this.#controller.abort(this.#userSignal?.reason);

  /** `what` is the call the time is for, as it shall stand in the error. */
  constructor(what: string, timeoutMs: number, userSignal?: AbortSignal) {
    this.#userSignal = userSignal;
    this.#timer = setTimeout(() => {
      const { lastAnswer, remedy } = this;
      const happened =
        lastAnswer === undefined
          ? `${what}: no answer within ${timeoutMs} ms`
          : `${what}: no success within ${timeoutMs} ms (last answer: ${lastAnswer.message})`;
      const reason = this.reason ?? (lastAnswer === undefined ? 'no-answer' : 'refused-until-deadline');
      const options = { cause: lastAnswer, reason, ...(remedy !== undefined && { remedy }) };
      this.#controller.abort(new CpgError('CS_ERR_TIMEOUT', happened, options));
    }, timeoutMs);
    if (userSignal?.aborted === true) this.#onUserAbort();
    else if (userSignal !== undefined) listenForAbort(userSignal, this.#onUserAbort);
  }

  /** Aborted with CS_ERR_TIMEOUT, or with the reason of the caller's signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Begins the time anew. */
  refresh(): void {
    this.#timer.refresh();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#userSignal?.removeEventListener('abort', this.#onUserAbort);
  }
}

/** Calls `listener` when `signal` aborts; else it has to be removed again. */
export function listenForAbort(signal: AbortSignal, listener: () => void): void {
  // One signal for many calls at once is no leak, and Node shall not warn of one.
  try {
    setMaxListeners(0, signal);
  } catch {
    // It was made elsewhere, and Node warns only of its own.
  }
  signal.addEventListener('abort', listener, { once: true });
}

/** Why `signal` was aborted; some that were made elsewhere do not say it. */
export function abortReason(signal: AbortSignal): Error {
  const reason = signal.reason as Error | undefined;
  return reason ?? new DOMException('This operation was aborted', 'AbortError');
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortReason(signal);
}

/** Settles as `work` does, or rejects as soon as `signal` aborts; `work` then goes on unobserved. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    // Work that can stop does so first: whoever sees the rejection then sees the state it left, too.
    const onAbort = (): void => void setImmediate(() => reject(abortReason(signal)));
    const done = (): void => signal.removeEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    else listenForAbort(signal, onAbort);
    work.finally(done).then(resolve, reject);
  });
}

/** Growing pauses between tries: 5, 10, 20 ... 320 ms. */
export class Backoff {
  #nextMs = 5;

  get pauseMs(): number {
    const now = this.#nextMs;
    this.#nextMs = Math.min(now * 2, 320);
    return now;
  }

  /** Rejects with the signal's reason when it aborts. */
  async pause(signal: AbortSignal): Promise<void> {
    try {
      await pause(this.pauseMs, undefined, { signal });
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    }
  }
}
