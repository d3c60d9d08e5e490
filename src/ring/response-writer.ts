/** The response ring, seen from its writer: an embedded server. */
import { CpgError } from '../errors';
import { CHUNK_HEADER_BYTES, chunkWords, WORD_BYTES, writeChunkHeader } from './layout';
import type { Ring } from './ring';

export class ResponseWriter {
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /**
   * Puts a reply into the ring. The client has one request in flight, so it has taken the last reply before it asks
   * again, and the ring is empty. CS_ERR_NO_SPACE for a client that asks and asks and never reads: a daemon would drop
   * the reply silently.
   */
  write(frame: Buffer): void {
    const ring = this.#ring;
    ring.readPointers();
    const start = ring.writePointer;
    if (!ring.hasRoom(frame.length, start)) {
      throw new CpgError('CS_ERR_NO_SPACE', 'the response ring is full');
    }
    const words = chunkWords(frame.length);
    const chunk = Buffer.alloc(words * WORD_BYTES);
    writeChunkHeader(chunk, 0, frame.length);
    frame.copy(chunk, CHUNK_HEADER_BYTES);
    ring.write(start, chunk);
    ring.publishWritePointer(ring.advance(start, words));
    // Last, and not as an increment: the client puts it back to 0 before it asks again.
    ring.setSemaphore(1);
  }
}
