/** The response ring, seen from its writer: an embedded server. Its chunks are made visible as those of events are. */
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
   * Puts a reply into the ring. The client has one request in flight, so it has taken the last reply, and has put the
   * semaphore back to 0, before it asks again. CS_ERR_NO_SPACE for a client that asks and asks and never reads: a daemon
   * would drop the reply silently.
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
