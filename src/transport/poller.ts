/**
 * Asks again and again until the answer is yes: first once per turn of the event loop, then by timers that
 * grow longer. Rings announce neither replies nor free space, so somebody has to look.
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
  /** Somebody waits: set by start(), cleared by a yes or stop(). */
  #wanted = false;
  #checking = false;
  #asked = 0;
  #pauseMs = 1;

  /** `check` returns true when there is nothing left to wait for; it must not throw, and must be true after stop(). */
  constructor(check: () => boolean, options: PollerOptions) {
    this.#check = check;
    this.#options = options;
  }

  get running(): boolean {
    return this.#wanted || this.#checking;
  }

  /** Begins asking on the next turn; while it runs already, it becomes quick again. */
  start(): void {
    this.#wanted = true;
    this.#asked = 0;
    this.#pauseMs = 1;
    if (!this.#checking && this.#immediate === undefined) this.#schedule();
  }

  stop(): void {
    this.#wanted = false;
    this.#unschedule();
  }

  readonly #ask = (): void => {
    this.#unschedule();
    this.#wanted = false;
    this.#checking = true;
    // The check itself may call start() for something new, or stop().
    const wanted = !this.#check();
    this.#checking = false;
    if (wanted) this.#wanted = true;
    if (this.#wanted) this.#schedule();
  };

  #schedule(): void {
    this.#unschedule();
    if (this.#asked++ < this.#options.turns) {
      this.#immediate = setImmediate(this.#ask);
    } else {
      this.#timer = setTimeout(this.#ask, this.#pauseMs);
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
