/**
 * The reader of the request ring: an embedded server. It follows the same rules as a client that reads events
 * (docs/protocol.md): many chunks at once, one byte on the service socket for each.
 */
import { EventReader } from './event-reader';
import { CHUNK_HEADER_BYTES, checkedLength, chunkWords, Magic, WORD_BYTES } from './layout';

const chunkHeader = Buffer.alloc(CHUNK_HEADER_BYTES);

export class RequestReader extends EventReader {
  /**
   * Counts the chunks up to write_pt. The semaphore does not count them: a client overwrites it with each batch, which it
   * posts as soon as space was given back, while older chunks may still be unread.
   */
  override peek(): boolean {
    this.ring.readPointers();
    let { pointer } = this.state;
    let left = this.ring.distance(pointer, this.ring.writePointer);
    this.state.seen = 0;
    while (left > 0) {
      this.ring.read(pointer, chunkHeader);
      const magic = chunkHeader.readUInt32LE(WORD_BYTES);
      // libqb moves write_pt a moment before it commits the chunk.
      if (magic !== Magic.COMMITTED) break;
      const words = chunkWords(checkedLength(this.ring.name, chunkHeader.readUInt32LE(0), magic, left));
      pointer = this.ring.advance(pointer, words);
      left -= words;
      this.state.seen++;
    }
    return this.available > 0;
  }

  /** Flow control: asks the client not to send, or to send again. */
  hold(on: boolean): void {
    this.ring.setUserData(on ? 1 : 0);
  }
}
