/** The configurations that are explored: rings of a few words more than two chunks, at every place of the circle. */
import type { Configuration } from './systems';

const every = (words: number): number[] => Array.from({ length: words }, (_, at) => at);

function* all(): Generator<Configuration> {
  // Chunks of 3, 2 and 4 words: rings that are full with two of them, and with all but one word.
  const lengths = [4, 0, 5, 3];
  for (const words of [7, 8, 9]) {
    for (const at of every(words)) {
      yield { ring: 'response', words, at, lengths };
      yield { ring: 'event', words, at, lengths, socket: 1 };
      yield { ring: 'event', words, at, lengths, socket: 2, ahead: true };
      yield { ring: 'request', words, at, lengths };
      yield { ring: 'request', words, at, lengths, holds: 1 };
      yield { ring: 'request', words, at, lengths, proof: true, split: true };
    }
  }
  for (const at of [0, 8, 11]) {
    yield { ring: 'event', words: 14, at, lengths, socket: 1, ahead: true, largestFrame: 5 };
    yield { ring: 'request', words: 14, at, lengths, holds: 2, proof: true, split: true };
    yield { ring: 'request', words: 9, at: at % 9, lengths, holds: 1, direct: true, wordByWord: true };
    yield { ring: 'event', words: 9, at: at % 9, lengths, socket: 1, wordByWord: true };
    yield { ring: 'response', words: 9, at: at % 9, lengths, wordByWord: true };
    yield { ring: 'event', words: 9, at: at % 9, lengths, socket: 1, ahead: true, torn: true };
    yield { ring: 'request', words: 9, at: at % 9, lengths, holds: 1, torn: true };
    yield { ring: 'response', words: 9, at: at % 9, lengths, torn: true };
  }
}

/** Minutes. */
export const FULL: readonly Configuration[] = [...all()];

/** Seconds. */
export const SHORT: readonly Configuration[] = [
  { ring: 'response', words: 9, at: 7, lengths: [4, 0, 5] },
  { ring: 'event', words: 9, at: 7, lengths: [4, 0, 5], socket: 1, ahead: true },
  { ring: 'event', words: 9, at: 7, lengths: [4, 0, 5], socket: 1, ahead: true, torn: true },
  { ring: 'event', words: 9, at: 4, lengths: [0, 4, 5], socket: 1, torn: true },
  { ring: 'request', words: 9, at: 7, lengths: [4, 0, 5], holds: 1 },
  { ring: 'request', words: 12, at: 7, lengths: [4, 0, 5], proof: true, split: true },
];
