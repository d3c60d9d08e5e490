/** What can be made to go wrong on a node. */
import { kind, number, oneOf, readOptions, whole, type OptionKinds } from '../arguments';
import type { TotemMessage } from './ordered';
import type { Random } from './random';
import { REFUSALS, type Refusal } from './wire/handshake';

/** What timers can wait for. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Absent fields are faults that do not happen. */
export interface Faults {
  /**
   * The part of messages, from 0 to 1, that this node loses before they are ordered, as an overloaded daemon does:
   * nobody gets them. Joins, leaves and fragments are not lost.
   */
  drop?: number | undefined;
  /**
   * Milliseconds that messages of this node wait for the token before they are ordered, a fixed number or from
   * and to. They keep their order among themselves; messages of other nodes overtake them.
   */
  delayMs?: number | readonly [from: number, to: number] | undefined;
  /** Requests that need ordering are answered CS_ERR_TRY_AGAIN: this many of them, or all. */
  tryAgain?: number | true | undefined;
  /** New clients are turned away: EACCES is CS_ERR_ACCESS for them, EAGAIN CS_ERR_TRY_AGAIN. */
  refuse?: Refusal | undefined;
}

const DELAY = number(0, MAX_DELAY_MS);
const FAULTS: OptionKinds<Faults> = {
  drop: number(0, 1),
  delayMs: kind(`${DELAY.expected}, or [from, to] of such`, (value) =>
    Array.isArray(value)
      ? value.length === 2 && DELAY.accepts(value[0]) && DELAY.accepts(value[1]) && value[0] <= value[1]
      : DELAY.accepts(value),
  ),
  tryAgain: kind(
    'a number of requests, or true for all',
    (value) => value === true || whole(0).accepts(value),
  ),
  refuse: oneOf(...REFUSALS),
};

/** The faults of one node, as they are used up. */
export class FaultState {
  #faults: Faults = {};
  #tryAgainLeft = 0;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Replaces all faults. */
  set(given: Faults | undefined): void {
    this.#faults = readOptions('inject', given, FAULTS);
    const { tryAgain = 0 } = this.#faults;
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

  loses(message: TotemMessage): boolean {
    return message.kind === 'message' && this.#random.next() < (this.#faults.drop ?? 0);
  }

  /** Milliseconds this message has to wait. */
  delayMs(): number {
    const { delayMs = 0 } = this.#faults;
    if (typeof delayMs === 'number') return delayMs;
    return delayMs[0] + this.#random.next() * (delayMs[1] - delayMs[0]);
  }
}
