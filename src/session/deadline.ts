/** A time limit and the caller's AbortSignal as one signal, for one call. */
import { clearTimeout, pause, setImmediate, setTimeout } from '../clock';
import { CpgError, type CpgErrorReason } from '../errors';

/** Longest time a Node timer can hold. */
export const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #ignoreUserSignal: (() => void) | undefined;
  /** The daemon's last refusal, for the time-out error. */
  lastAnswer: Error | undefined;
  /** The remedy of the time-out error, if not the default. */
  remedy: string | undefined;
  /** The reason of the time-out error, if not the daemon's silence. */
  reason: CpgErrorReason | undefined;

  /** `what` names the call in the error. */
  constructor(what: string, timeoutMs: number, userSignal?: AbortSignal) {
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
    if (userSignal !== undefined)
      this.#ignoreUserSignal = whenAborted(userSignal, () => this.#controller.abort(userSignal.reason));
  }

  /** Aborted with CS_ERR_TIMEOUT, or with the reason of the caller's signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Restarts the timer. */
  refresh(): void {
    this.#timer.refresh();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#ignoreUserSignal?.();
  }
}

/** What our calls do when a signal aborts, and how to stop listening. */
interface SharedListener {
  readonly actions: Set<() => void>;
  readonly stop: () => void;
}

const listeners = new WeakMap<AbortSignal, SharedListener>();

/**
 * Calls `action` when `signal` aborts, immediately if it already has; the returned function cancels that.
 *
 * All calls that wait for a signal share one listener, which exists only while a call waits. With one listener per
 * call, Node would warn of a leak at the eleventh, and adding one searches all others. AbortSignal.any() accepts only
 * Node's own signals, and leaks on a long-lived one (Node 20).
 */
export function whenAborted(signal: AbortSignal, action: () => void): () => void {
  if (signal.aborted) {
    action();
    return () => undefined;
  }
  const { actions, stop } = listeners.get(signal) ?? listenTo(signal);
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size === 0) stop();
  };
}

function listenTo(signal: AbortSignal): SharedListener {
  const actions = new Set<() => void>();
  const onAbort = (): void => {
    stop();
    for (const action of actions) action();
  };
  const stop = (): void => {
    listeners.delete(signal);
    signal.removeEventListener('abort', onAbort);
  };
  const shared = { actions, stop };
  listeners.set(signal, shared);
  signal.addEventListener('abort', onAbort);
  return shared;
}

/** Why `signal` was aborted; signals of other libraries may have no reason. */
export function abortReason(signal: AbortSignal): Error {
  const reason = signal.reason as Error | undefined;
  return reason ?? new DOMException('This operation was aborted', 'AbortError');
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortReason(signal);
}

/** Settles as `work` does, or rejects as soon as `signal` aborts; `work` then continues unobserved. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    // Deferred, so that work that can stop has updated its state before this rejects.
    const ignore = whenAborted(signal, () => void setImmediate(() => reject(abortReason(signal))));
    work.finally(ignore).then(resolve, reject);
  });
}

/** Growing pauses between attempts: 5, 10, 20 ... 320 ms. */
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
