/** The writer of the response ring: an embedded server. It posts chunks like events. */
import { CpgError } from '../errors';
import { EventWriter } from './event-writer';
import { CHUNK_HEADER_BYTES, chunkWords, WORD_BYTES, writeChunkHeader } from './layout';
import type { Ring } from './ring';

export class ResponseWriter {
  readonly #writer: EventWriter;

  constructor(ring: Ring) {
    this.#writer = new EventWriter(ring);
  }

  /**
   * Writes a reply. A client has one request in flight, so before the next one it has taken the last reply and reset the
   * semaphore. Throws CS_ERR_NO_SPACE if the client keeps sending requests without reading replies: a daemon would drop
   * the reply silently.
   */
  write(frame: Buffer): void {
    const chunk = Buffer.alloc(chunkWords(frame.length) * WORD_BYTES);
    writeChunkHeader(chunk, 0, frame.length);
    frame.copy(chunk, CHUNK_HEADER_BYTES);
    this.#writer.findRoom();
    if (this.#writer.stage(chunk, 0, chunk.length) === 0) {
      throw new CpgError('CS_ERR_NO_SPACE', 'the response ring is full');
    }
    this.#writer.post();
  }
}
