/**
 * One libqb ring buffer in shared memory (layout.ts): its words, pointer arithmetic and free space. Its storage
 * (storage.ts) accesses the bytes.
 *
 * Each ring has one writer and one reader, in two processes:
 *
 *     word          request ring            response ring           event ring
 *     write_pt      client                  daemon                  daemon
 *     read_pt       daemon                  client                  client
 *     semaphore     client from 0,          daemon up,              daemon up,
 *                   daemon down             client to 0             client to 0
 *     user data     daemon (flow control)   -                       -
 *     chunks        client                  daemon                  daemon
 *
 * The semaphore is a POSIX semaphore that the daemon updates atomically in its mapping. Without a mapping a client
 * cannot do that, so it writes the semaphore only when the daemon does not: request-writer.ts, response-reader.ts and
 * event-reader.ts state the rules at each step.
 */
import { malformed } from '../codec/fields';
import { CHUNK_MARGIN_BYTES, RingHeader, WORD_BYTES } from './layout';
import type { RingStorage } from './storage';

/** The value and the number of waiters. */
const SEMAPHORE_WORDS = 2;
/** read_pt and word_size. */
const POINTER_WRITE_WORDS = 2;
const USER_DATA_WORD = (RingHeader.userData - RingHeader.semaphore) / WORD_BYTES;
/** From the semaphore to the user data. */
const STATE_WORDS = USER_DATA_WORD + 1;
/** libqb takes any other count for "not connected". */
export const REFERENCES_WHEN_CONNECTED = 2;

// Every access is synchronous, so one scratch buffer serves all rings of the process.
const scratch = new Uint32Array(STATE_WORDS);

export class Ring {
  readonly #storage: RingStorage;
  /** The pointers as of the last readPointers(); always below wordSize. */
  readonly state = { writePointer: 0, readPointer: 0, open: true };

  /** `wordSize` is the number of words in the ring. */
  constructor(
    readonly name: string,
    storage: RingStorage,
    readonly wordSize: number,
  ) {
    this.#storage = storage;
  }

  get writePointer(): number {
    return this.state.writePointer;
  }

  get readPointer(): number {
    return this.state.readPointer;
  }

  /** Reads both pointers; throws CS_ERR_MESSAGE_ERROR when one points outside the ring. */
  readPointers(): void {
    this.#storage.readHeader(RingHeader.writePointer, scratch, 2);
    const writePointer = scratch[0]!;
    const readPointer = scratch[1]!;
    if (writePointer >= this.wordSize || readPointer >= this.wordSize) {
      throw malformed(`${this.name}: pointers ${writePointer} and ${readPointer}`, `below ${this.wordSize}`);
    }
    this.state.writePointer = writePointer;
    this.state.readPointer = readPointer;
  }

  /** The value of the semaphore: chunks posted and not yet consumed. */
  semaphore(): number {
    // Eight bytes: fewer are copied byte by byte, and a change from 255 to 256 could read as 511.
    this.#storage.readHeader(RingHeader.semaphore, scratch, SEMAPHORE_WORDS);
    return scratch[0]!;
  }

  /** The semaphore and the user data (flow control), in one read. */
  status(): { semaphore: number; userData: number } {
    this.#storage.readHeader(RingHeader.semaphore, scratch, STATE_WORDS);
    return { semaphore: scratch[0]!, userData: scratch[USER_DATA_WORD]! | 0 };
  }

  /** Sets value and waiters in one write; no process ever waits on these semaphores. */
  setSemaphore(value: number): void {
    scratch[0] = value;
    scratch[1] = 0;
    this.#storage.writeHeader(RingHeader.semaphore, scratch, SEMAPHORE_WORDS);
  }

  /** Sets the flow control of a request ring, from its reader to its writer. */
  setUserData(value: number): void {
    this.#writeHeaderWord(RingHeader.userData, value);
  }

  publishWritePointer(pointer: number): void {
    this.state.writePointer = pointer;
    this.#writeHeaderWord(RingHeader.writePointer, pointer);
  }

  publishReadPointer(pointer: number): void {
    this.state.readPointer = pointer;
    // Together with word_size, which never changes: the daemon must not see a partly written pointer.
    scratch[0] = pointer;
    scratch[1] = this.wordSize;
    this.#storage.writeHeader(RingHeader.readPointer, scratch, POINTER_WRITE_WORDS);
  }

  /** The pointer `words` further on. */
  advance(pointer: number, words: number): number {
    return (pointer + words) % this.wordSize;
  }

  /** Words from `from` up to `to`, with wrap-around. */
  distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + this.wordSize;
  }

  /**
   * Free bytes for a writer whose chunks end at `end`. Safe with pointers read earlier, because a reader only frees
   * space. The margin keeps writers from filling the ring completely: equal pointers mean empty.
   */
  freeBytes(end: number): number {
    const { readPointer } = this.state;
    return (end === readPointer ? this.wordSize : this.distance(end, readPointer) - 1) * WORD_BYTES;
  }

  /** Whether a chunk of `length` bytes has room at `end`. */
  hasRoom(length: number, end: number): boolean {
    return length + CHUNK_MARGIN_BYTES <= this.freeBytes(end);
  }

  /** Fills the first `length` bytes of `target` from the circle, beginning at word `pointer`. */
  read(pointer: number, target: Buffer, length = target.length): void {
    const first = Math.min(length, (this.wordSize - pointer) * WORD_BYTES);
    this.#storage.read(target, 0, first, pointer * WORD_BYTES);
    if (first < length) this.#storage.read(target, first, length - first, 0);
  }

  /** Writes the first `length` bytes of `bytes` into the circle, beginning at word `pointer`. */
  write(pointer: number, bytes: Buffer, length = bytes.length): void {
    const first = Math.min(length, (this.wordSize - pointer) * WORD_BYTES);
    this.#storage.write(bytes, 0, first, pointer * WORD_BYTES);
    if (first < length) this.#storage.write(bytes, first, length - first, 0);
  }

  /** Writes several pieces contiguously without joining them first. */
  writeParts(pointer: number, parts: readonly Uint8Array[], length: number): void {
    const position = pointer * WORD_BYTES;
    const beforeEnd = this.wordSize * WORD_BYTES - position;
    if (length <= beforeEnd) {
      this.#storage.writeParts(parts, length, position);
      return;
    }
    const [first, rest] = splitAt(parts, beforeEnd);
    this.#storage.writeParts(first, beforeEnd, position);
    this.#storage.writeParts(rest, length - beforeEnd, 0);
  }

  close(): void {
    if (!this.state.open) return;
    this.state.open = false;
    this.#storage.close();
  }

  /** Marks the ring as used by this client. */
  attach(): void {
    this.#writeHeaderWord(RingHeader.referenceCount, REFERENCES_WHEN_CONNECTED);
  }

  /** Whether the client has attached: that needs write access to the files. */
  attached(): boolean {
    this.#storage.readHeader(RingHeader.referenceCount, scratch, 1);
    return scratch[0]! >= REFERENCES_WHEN_CONNECTED;
  }

  #writeHeaderWord(offset: number, value: number): void {
    scratch[0] = value;
    this.#storage.writeHeader(offset, scratch, 1);
  }
}

/** The pieces before and after `bytes`; one of them may be split. */
function splitAt(parts: readonly Uint8Array[], bytes: number): [Uint8Array[], Uint8Array[]] {
  const first: Uint8Array[] = [];
  const rest: Uint8Array[] = [];
  let left = bytes;
  for (const part of parts) {
    const here = Math.min(left, part.length);
    if (here > 0) first.push(part.subarray(0, here));
    if (here < part.length) rest.push(part.subarray(here));
    left -= here;
  }
  return [first, rest];
}
