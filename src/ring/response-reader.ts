/** The response ring, seen from its reader. The daemon puts one reply there for each request that has one. */
import { CHUNK_HEADER_BYTES, CHUNK_HEADER_WORDS, checkedLength, chunkWords, WORD_BYTES } from './layout';
import type { Ring } from './ring';

export class ResponseReader {
  readonly #ring: Ring;
  readonly #chunkHeader = Buffer.alloc(CHUNK_HEADER_BYTES);

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /**
   * The next reply, or undefined when there is none yet. No byte on the socket announces a reply, so the
   * caller asks again; at most one request may be in flight.
   */
  take(): Buffer | undefined {
    // By the semaphore, never by the magic: the daemon posts the semaphore after the magic, and a reader
    // that consumed the chunk in between would leave semaphore 1 on an empty ring. To the daemon that is a
    // full ring, and it drops the next reply without a word.
    if (this.#ring.semaphore() === 0) return undefined;
    this.#ring.readPointers();
    const start = this.#ring.readPointer;
    const usedWords = this.#ring.distance(start, this.#ring.writePointer);
    this.#ring.read(start, this.#chunkHeader);
    const magic = this.#chunkHeader.readUInt32LE(WORD_BYTES);
    // The length counts only when read after its magic was seen: weakly ordered CPUs may show it late.
    this.#ring.read(start, this.#chunkHeader);
    const length = checkedLength(this.#ring.name, this.#chunkHeader.readUInt32LE(0), magic, usedWords);
    const frame = Buffer.allocUnsafe(length);
    this.#ring.read(this.#ring.advance(start, CHUNK_HEADER_WORDS), frame);
    // The semaphore first, so that the ring is never empty with a count left, which the daemon takes for full.
    this.#ring.setSemaphore(0);
    this.#ring.publishReadPointer(this.#ring.advance(start, chunkWords(length)));
    return frame;
  }
}
