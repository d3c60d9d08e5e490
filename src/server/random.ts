/** The seeded random source of clusters and of reproducible tests. */
import { check, kind, whole } from '../arguments';

const SEED = whole(Number.MIN_SAFE_INTEGER);
const END = whole(1);
const LIST = kind<readonly unknown[]>(
  'an array that is not empty',
  (list) => Array.isArray(list) && list.length > 0,
);

/** Pseudo-random numbers, the same for the same seed. */
export class Random {
  #state: number;

  /** `seed` is a whole number; only its low 32 bits count. */
  constructor(seed: number) {
    this.#state = check('Random', 'seed', seed, SEED) >>> 0;
  }

  /** At least 0 and less than 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, at least 0 and less than `end`. */
  below(end: number): number {
    return Math.floor(this.next() * check('below', 'end', end, END));
  }

  /** An element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    check('pick', 'list', list, LIST);
    return list[this.below(list.length)]!;
  }
}
