/**
 * The event ring, seen from its reader. The daemon writes a chunk, raises the semaphore, and then sends one
 * byte on the service socket; a byte received is the right to reclaim one chunk.
 */
import { malformed } from '../codec/fields';
import { CHUNK_HEADER_BYTES, chunkWords, Magic, WORD_BYTES, type Ring } from './ring';

/** Looks at one event; the frame is only valid during the call. False stops the reading behind this frame. */
export type FrameHandler = (frame: Buffer) => boolean;

/** Read per event when only a few are wanted; a longer one is read again in full. */
const FEW_EVENT_BYTES = 4096;

// A bulk read needs memory of the ring's size for the time of one call. The process keeps one such buffer
// per nesting of calls (a listener may dispatch another client), not one per connection.
const spareBuffers: Buffer[] = [];
const MAX_SPARE_BUFFERS = 2;

export class EventRing {
  readonly #ring: Ring;
  #announced = 0;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Events that are announced and not yet consumed. */
  get announced(): number {
    return this.#announced;
  }

  /** Counts bytes that came in on the service socket. */
  announce(bytes: number): void {
    this.#announced += bytes;
  }

  /**
   * Hands up to `limit` announced events to `handler`, in order, and gives their space back to the daemon.
   * Returns how many were consumed. Throws CS_ERR_MESSAGE_ERROR when the ring is not what it should be.
   */
  consume(limit: number, handler: FrameHandler): number {
    const wanted = Math.min(limit, this.#announced);
    if (wanted === 0) return 0;
    // The end first: whatever lies before it is complete up to the announced chunks.
    this.#ring.readPointers();
    const end = this.#ring.writePointer;
    let pointer = this.#ring.readPointer;
    // Bytes behind `pointer` that were handed out: counted before the handler is called, since it may throw.
    let offset = 0;
    let consumed = 0;
    let going = true;
    const capacity = this.#ring.wordSize * WORD_BYTES;
    const spare = spareBuffers.pop();
    const memory = spare !== undefined && spare.length >= capacity ? spare : Buffer.allocUnsafeSlow(capacity);
    try {
      let windowBytes = (wanted - consumed) * FEW_EVENT_BYTES;
      while (going && consumed < wanted) {
        const usedBytes = this.#ring.distance(pointer, end) * WORD_BYTES;
        const window = memory.subarray(0, Math.min(usedBytes, windowBytes));
        this.#ring.read(pointer, window);
        while (going && consumed < wanted) {
          const length = this.#chunkLength(window, offset, usedBytes);
          const nextOffset = offset + chunkWords(length) * WORD_BYTES;
          if (length === -1 || nextOffset > window.length) {
            // The window ends inside this chunk: read on from here, with room for all of it.
            windowBytes = Math.max(
              length === -1 ? 0 : nextOffset - offset,
              (wanted - consumed) * FEW_EVENT_BYTES,
            );
            break;
          }
          const start = offset + CHUNK_HEADER_BYTES;
          offset = nextOffset;
          consumed++;
          going = handler(window.subarray(start, start + length)) && this.#ring.open;
        }
        pointer = this.#ring.advance(pointer, offset / WORD_BYTES);
        offset = 0;
      }
    } finally {
      if (spareBuffers.length < MAX_SPARE_BUFFERS) spareBuffers.push(memory);
      this.#announced -= consumed;
      if (consumed > 0 && this.#ring.open) this.#reclaim(this.#ring.advance(pointer, offset / WORD_BYTES));
    }
    return consumed;
  }

  /**
   * Gives everything before `pointer` back. The semaphore goes to 0 first: were the pointer first, the
   * daemon could see an empty ring with a count left, take it for full, and its queue for us would stop for
   * good. A count it adds in between belongs to a chunk behind `pointer`, whose byte is still to come. And
   * the semaphore is reset each time, because it would overflow some day if it only grew.
   */
  #reclaim(pointer: number): void {
    this.#ring.setSemaphore(0);
    this.#ring.publishReadPointer(pointer);
  }

  /** The length of the chunk at `offset`, or -1 when the window ends inside its header. */
  #chunkLength(window: Buffer, offset: number, usedBytes: number): number {
    if (offset + CHUNK_HEADER_BYTES > usedBytes) {
      throw malformed(
        `${this.#ring.name}: a chunk was announced that is not there`,
        'one chunk for each byte',
      );
    }
    if (offset + CHUNK_HEADER_BYTES > window.length) return -1;
    const length = window.readUInt32LE(offset);
    const magic = window.readUInt32LE(offset + WORD_BYTES);
    if (magic !== Magic.COMMITTED || chunkWords(length) * WORD_BYTES > usedBytes - offset) {
      throw malformed(
        `${this.#ring.name}: a chunk of ${length} bytes with magic 0x${magic.toString(16)}`,
        `a committed one within ${usedBytes - offset} bytes`,
      );
    }
    return length;
  }
}
