/** The response ring, seen from its writer. */
import { CpgError } from '../../errors';
import {
  CHUNK_HEADER_BYTES,
  CHUNK_MARGIN_BYTES,
  chunkWords,
  Magic,
  WORD_BYTES,
  type Ring,
} from '../../transport/ring';

export class ResponseWriter {
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /**
   * Puts a reply into the ring. The client has one request in flight, so it has taken the last reply before
   * it asks again, and the ring is empty. CS_ERR_NO_SPACE for a client that asks and asks and never looks: a
   * daemon would lose the reply without a word.
   */
  write(frame: Buffer): void {
    this.#ring.readPointers();
    const start = this.#ring.writePointer;
    const free = (this.#ring.wordSize - this.#ring.distance(this.#ring.readPointer, start)) * WORD_BYTES;
    if (frame.length + CHUNK_MARGIN_BYTES > free) {
      throw new CpgError('CS_ERR_NO_SPACE', 'the response ring is full');
    }
    const words = chunkWords(frame.length);
    const chunk = Buffer.alloc(words * WORD_BYTES);
    chunk.writeUInt32LE(frame.length, 0);
    chunk.writeUInt32LE(Magic.COMMITTED, WORD_BYTES);
    frame.copy(chunk, CHUNK_HEADER_BYTES);
    this.#ring.write(start, chunk);
    this.#ring.publishWritePointer(this.#ring.advance(start, words));
    // Last, and not as an increment: the client puts it back to 0 before it asks again.
    this.#ring.setSemaphore(1);
  }
}
