/** What can be made to go wrong on a node. */
import type { Ordered } from './ordered';
import type { Random } from './random';
import { REFUSALS, type Refusal } from './wire/handshake';

/** What timers can wait for. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Absent fields are faults that do not happen. */
export interface Faults {
  /**
   * The part of messages, 0 to 1, that this node loses before they are ordered, as an overloaded daemon does:
   * nobody gets them. Joins, leaves and fragments are not lost.
   */
  drop?: number;
  /**
   * Milliseconds that messages of this node wait for the token before they are ordered, a fixed number or from
   * and to. They keep their order among themselves; messages of other nodes overtake them.
   */
  delayMs?: number | readonly [from: number, to: number];
  /** Requests that need ordering are answered CS_ERR_TRY_AGAIN: this many of them, or all. */
  tryAgain?: number | true;
  /** New clients are turned away: EACCES is CS_ERR_ACCESS for them, EAGAIN CS_ERR_TRY_AGAIN. */
  refuse?: Refusal;
}

/** The faults of one node, as they are used up. */
export class FaultState {
  #faults: Faults = {};
  #tryAgainLeft = 0;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Replaces all faults. Throws RangeError for numbers that make no sense. */
  set(faults: Faults): void {
    const { drop = 0, delayMs = 0, tryAgain = 0 } = faults;
    const [from, to] = typeof delayMs === 'number' ? [delayMs, delayMs] : delayMs;
    if (!(drop >= 0 && drop <= 1)) throw new RangeError(`faults: drop ${drop} is not from 0 to 1`);
    if (!(from >= 0 && to >= from && to <= MAX_DELAY_MS))
      throw new RangeError(`faults: delayMs ${from} to ${to} is not from 0 to ${MAX_DELAY_MS}`);
    if (tryAgain !== true && !(Number.isInteger(tryAgain) && tryAgain >= 0))
      throw new RangeError(`faults: tryAgain ${tryAgain} is not a number of requests`);
    if (faults.refuse !== undefined && !REFUSALS.includes(faults.refuse))
      throw new RangeError(`faults: refuse ${faults.refuse} is none of ${REFUSALS.join(', ')}`);
    this.#faults = faults;
    this.#tryAgainLeft = tryAgain === true ? Infinity : tryAgain;
  }

  get refuse(): Refusal | undefined {
    return this.#faults.refuse;
  }

  /** Messages need no look at all. */
  get none(): boolean {
    return this.#faults.drop === undefined && this.#faults.delayMs === undefined;
  }

  /** True when a request is to be refused now; uses it up. */
  takeTryAgain(): boolean {
    if (this.#tryAgainLeft === 0) return false;
    this.#tryAgainLeft--;
    return true;
  }

  loses(message: Ordered): boolean {
    return message.kind === 'message' && this.#random.next() < (this.#faults.drop ?? 0);
  }

  /** Milliseconds this message has to wait. */
  delayMs(): number {
    const { delayMs = 0 } = this.#faults;
    if (typeof delayMs === 'number') return delayMs;
    return delayMs[0] + this.#random.next() * (delayMs[1] - delayMs[0]);
  }
}
