/** Fault injection for a node. */
import { kind, number, oneOf, readOptions, whole, type OptionKinds } from '../arguments';
import type { TotemMessage } from './ordered';
import type { Random } from './random';
import { REFUSALS, type Refusal } from './wire/handshake';

/** The longest delay of a timer. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** An absent field means no such fault. */
export interface Faults {
  /**
   * Share of messages, from 0 to 1, that this node loses before they are ordered, like an overloaded daemon: nobody
   * receives them. Joins, leaves and fragments are not lost.
   */
  drop?: number | undefined;
  /**
   * Milliseconds that messages of this node wait for the token before they are ordered: a fixed number or a range. They
   * keep their order among themselves; messages of other nodes overtake them.
   */
  delayMs?: number | readonly [from: number, to: number] | undefined;
  /** Answers CS_ERR_TRY_AGAIN to this many requests that need ordering, or to all. */
  tryAgain?: number | true | undefined;
  /** Refuses new clients: they get CS_ERR_ACCESS for EACCES, CS_ERR_TRY_AGAIN for EAGAIN. */
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

/** The faults of one node, and their remaining uses. */
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

  /** True if no fault affects messages. */
  get none(): boolean {
    return this.#faults.drop === undefined && this.#faults.delayMs === undefined;
  }

  /** Whether to refuse a request now; counts as one use. */
  takeTryAgain(): boolean {
    if (this.#tryAgainLeft === 0) return false;
    this.#tryAgainLeft--;
    return true;
  }

  loses(message: TotemMessage): boolean {
    return message.kind === 'message' && this.#random.next() < (this.#faults.drop ?? 0);
  }

  /** The delay of the next message in milliseconds. */
  delayMs(): number {
    const { delayMs = 0 } = this.#faults;
    if (typeof delayMs === 'number') return delayMs;
    return delayMs[0] + this.#random.next() * (delayMs[1] - delayMs[0]);
  }
}
