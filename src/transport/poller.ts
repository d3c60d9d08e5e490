/**
 * Repeats a check until it succeeds: first once per turn of the event loop, then with growing timers. Rings announce
 * neither replies nor free space, so we have to poll.
 */
import { clearImmediate, clearTimeout, setImmediate, setTimeout } from '../clock';

export interface PollerOptions {
  /** Turns of the event loop before timers take over. */
  turns: number;
  maxPauseMs: number;
  /** The timers do not keep the process alive. */
  unref?: boolean;
}

export class Poller {
  readonly #check: () => boolean;
  readonly #options: PollerOptions;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Set by start(), cleared by success or stop(). */
  #wanted = false;
  #checking = false;
  #turns = 0;
  #pauseMs = 1;

  /** `check` returns true when there is nothing left to wait for; it must not throw, and must return true after stop(). */
  constructor(check: () => boolean, options: PollerOptions) {
    this.#check = check;
    this.#options = options;
  }

  get running(): boolean {
    return this.#wanted || this.#checking;
  }

  /** Starts polling on the next turn, or restarts with short intervals. */
  start(): void {
    this.#wanted = true;
    this.#turns = 0;
    this.#pauseMs = 1;
    if (!this.#checking && this.#immediate === undefined) this.#schedule();
  }

  stop(): void {
    this.#wanted = false;
    this.#unschedule();
  }

  readonly #poll = (): void => {
    this.#unschedule();
    this.#wanted = false;
    this.#checking = true;
    // The check may itself call start() or stop().
    const wanted = !this.#check();
    this.#checking = false;
    if (wanted) this.#wanted = true;
    if (this.#wanted) this.#schedule();
  };

  #schedule(): void {
    this.#unschedule();
    if (this.#turns++ < this.#options.turns) {
      this.#immediate = setImmediate(this.#poll);
    } else {
      this.#timer = setTimeout(this.#poll, this.#pauseMs);
      if (this.#options.unref === true) this.#timer.unref();
      this.#pauseMs = Math.min(this.#pauseMs * 2, this.#options.maxPauseMs);
    }
  }

  #unschedule(): void {
    if (this.#immediate !== undefined) clearImmediate(this.#immediate);
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#immediate = undefined;
    this.#timer = undefined;
  }
}
