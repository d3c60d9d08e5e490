/** The reader of the response ring. The daemon writes one reply for each request that has one. */
import { CHUNK_HEADER_BYTES, CHUNK_HEADER_WORDS, checkedLength, chunkWords, WORD_BYTES } from './layout';
import type { Ring } from './ring';

export class ResponseReader {
  readonly #ring: Ring;
  readonly #chunkHeader = Buffer.alloc(CHUNK_HEADER_BYTES);

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /**
   * Takes the next reply; undefined if there is none yet. No byte on the socket announces a reply, so the caller polls.
   * At most one request may be in flight.
   */
  take(): Buffer | undefined {
    // Check the semaphore, never the magic: the daemon posts the semaphore after the magic, and a reader that consumed
    // the chunk in between would leave semaphore 1 on an empty ring. The daemon takes that for a full ring and silently
    // drops the next reply.
    if (this.#ring.semaphore() === 0) return undefined;
    this.#ring.readPointers();
    const start = this.#ring.readPointer;
    const usedWords = this.#ring.distance(start, this.#ring.writePointer);
    this.#ring.read(start, this.#chunkHeader);
    const magic = this.#chunkHeader.readUInt32LE(WORD_BYTES);
    // The length is only valid if read after its magic: weakly ordered CPUs may show it late.
    this.#ring.read(start, this.#chunkHeader);
    const length = checkedLength(this.#ring.name, this.#chunkHeader.readUInt32LE(0), magic, usedWords);
    const frame = Buffer.allocUnsafe(length);
    this.#ring.read(this.#ring.advance(start, CHUNK_HEADER_WORDS), frame);
    // The semaphore first: the daemon takes an empty ring with a count left for full.
    this.#ring.setSemaphore(0);
    this.#ring.publishReadPointer(this.#ring.advance(start, chunkWords(length)));
    return frame;
  }
}
