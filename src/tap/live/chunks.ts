/**
 * Chunks in a stretch of ring memory that was read at once.
 *
 * A chunk whose reader is done with it has lost its length, and its magic says so. But its payload is still
 * there until the writer comes round again, and it begins with an IPC header, which carries the size:
 *
 *     committed   | length | A1A1A1A1 | id | - | size | - | ...
 *     consumed    |    0   | D0D0D0D0 | id | - | size | - | ...
 */
import { CHUNK_HEADER_WORDS, chunkWords, Magic, WORD_BYTES } from '../../ring/layout';

/** The smallest thing with an IPC header: a request without fields. */
const MIN_FRAME_BYTES = 16;
/** Words from the beginning of a chunk to the size in its IPC header. */
const SIZE_WORD = CHUNK_HEADER_WORDS + 2;

/** The content at a word: the size of a frame, or the reason why there is none. */
const NOT_READY = -1;
const NO_CHUNK = -2;

/** Words of memory, read in the machine's byte order. */
export interface Words {
  readonly length: number;
  readonly [index: number]: number;
}

/**
 * Bytes of the frame whose chunk begins at word `at` and ends by word `end`: NOT_READY while it is being
 * written, NO_CHUNK when no chunk can begin there.
 */
function frameBytesAt(words: Words, at: number, end: number): number {
  if (at + CHUNK_HEADER_WORDS > end) return NO_CHUNK;
  const length = words[at]!;
  const magic = words[at + 1]!;
  if (magic === Magic.ALLOCATED) return NOT_READY;
  if (magic !== Magic.COMMITTED && magic !== Magic.CONSUMED) return NO_CHUNK;
  // A reader takes the length away before it changes the magic, so length 0 is consumed whatever the magic.
  const bytes = magic === Magic.COMMITTED && length > 0 ? length : sizeOfConsumed(words, at, end);
  return bytes > 0 && chunkWords(bytes) <= end - at ? bytes : NO_CHUNK;
}

export function isCommitted(words: Words, at: number): boolean {
  return words[at + 1] === Magic.COMMITTED && words[at]! > 0;
}

function sizeOfConsumed(words: Words, at: number, end: number): number {
  if (at + SIZE_WORD >= end) return 0;
  const size = words[at + SIZE_WORD]!;
  return size >= MIN_FRAME_BYTES && size <= (end - at) * WORD_BYTES ? size : 0;
}

/**
 * Where the longest unbroken run of chunks begins that ends exactly at `end`; `end` itself when there is
 * none. The memory from `from` to `end` is in writing order, and its first chunks may be overwritten in part.
 *
 * From the end backwards: a word begins a chunk of the run when the word behind that chunk does. Only words
 * in front of a magic are looked at, so this is quick.
 */
export function findRun(words: Words, from: number, end: number): number {
  const begins = new Uint8Array(end + 1);
  begins[end] = 1;
  let first = end;
  for (let at = end - CHUNK_HEADER_WORDS; at >= from; at--) {
    const magic = words[at + 1]!;
    if (magic !== Magic.COMMITTED && magic !== Magic.CONSUMED && magic !== Magic.ALLOCATED) continue;
    const bytes = frameBytesAt(words, at, end);
    // One that is still being written is the last one, and write_pt is already past it.
    const next =
      bytes === NOT_READY ? at + chunkWords(words[at]!) : bytes === NO_CHUNK ? -1 : at + chunkWords(bytes);
    if (next === -1 || next > end || (bytes === NOT_READY && next !== end)) continue;
    if (begins[next] === 1) {
      begins[at] = 1;
      first = at;
    }
  }
  return first;
}

/** Consecutive chunks in memory that was read at once. Frames are made only on request. */
export class ChunkRun {
  /** The memory; frames are views into it. */
  readonly #bytes: Buffer;
  readonly #words: Words;
  /** Words from the beginning of the memory to each chunk. */
  readonly #starts: readonly number[];
  readonly #first: number;

  /** `first` leaves out the chunks before. */
  constructor(bytes: Buffer, starts: readonly number[], first = 0) {
    this.#bytes = bytes;
    this.#words = wordsOf(bytes);
    this.#starts = starts;
    this.#first = first;
  }

  get length(): number {
    return this.#starts.length - this.#first;
  }

  /** Of the memory it keeps. */
  get bytes(): number {
    return this.#bytes.length;
  }

  frame(index: number): Buffer {
    const at = this.#starts[this.#first + index]!;
    const start = (at + CHUNK_HEADER_WORDS) * WORD_BYTES;
    return this.#bytes.subarray(start, start + frameBytesAt(this.#words, at, this.#words.length));
  }

  /** Whether its reader had consumed it. */
  isConsumed(index: number): boolean {
    return !isCommitted(this.#words, this.#starts[this.#first + index]!);
  }

  /** The first ones. */
  oldest(count: number): ChunkRun {
    return new ChunkRun(this.#bytes, this.#starts.slice(this.#first, this.#first + count));
  }

  /** The last ones. */
  newest(count: number): ChunkRun {
    return new ChunkRun(this.#bytes, this.#starts, Math.max(this.#first, this.#starts.length - count));
  }
}

export function wordsOf(bytes: Buffer): Words {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / WORD_BYTES);
}

/** Chunks in memory that was read at once. */
export interface Found {
  readonly bytes: Buffer;
  /** The words they begin with. */
  readonly starts: readonly number[];
  /** Just after the last chunk. */
  readonly endWord: number;
  /** False when something that is no chunk follows. */
  readonly whole: boolean;
}

/** The chunks from word `begin` on to `end`, as far as they are ready and fit together. */
export function collect(bytes: Buffer, begin: number, end: number): Found {
  const words = wordsOf(bytes);
  const starts: number[] = [];
  let at = begin;
  while (at < end) {
    const size = frameBytesAt(words, at, end);
    if (size === NO_CHUNK || size === NOT_READY)
      return { bytes, starts, endWord: at, whole: size === NOT_READY };
    starts.push(at);
    at += chunkWords(size);
  }
  return { bytes, starts, endWord: at, whole: true };
}

export function chunksOf({ bytes, starts }: Found): ChunkRun {
  return new ChunkRun(bytes, starts);
}

export function wordsIn({ starts, endWord }: Found): number {
  return starts.length === 0 ? 0 : endWord - starts[0]!;
}
