/**
 * The event ring, seen from its reader. The daemon writes a chunk, raises the semaphore, and then sends one
 * byte on the service socket; a byte received is the right to reclaim one chunk.
 */
import { malformed } from '../codec/fields';
import { CHUNK_HEADER_BYTES, chunkWords, Magic, WORD_BYTES, type Ring } from './ring';

/**
 * Looks at one event. The frame is only valid during the call, unless `owned`: then nobody else has its memory.
 * False stops the reading behind this frame.
 */
export type FrameHandler = (frame: Buffer, owned: boolean) => boolean;

/** Read at once: many small chunks, and little enough to stay in the processor's cache until they are used. */
const WINDOW_BYTES = 128 * 1024;
/** A chunk from here on is read on its own, straight into the memory it is handed out in. */
const LARGE_CHUNK_BYTES = 16 * 1024;
/** Read behind a large chunk, to see whether another one follows. */
const PEEK_BYTES = 256;
/** Read per event when only a few are wanted. */
const FEW_EVENT_BYTES = 4096;

// Windows are needed for the time of one call. The process keeps one per nesting of calls (a listener may
// dispatch another client), not one per connection.
const spareWindows: Buffer[] = [];
const MAX_SPARE_WINDOWS = 2;

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
    const usualBytes =
      limit < this.#announced ? Math.min(wanted * FEW_EVENT_BYTES, WINDOW_BYTES) : WINDOW_BYTES;
    // Behind the last consumed chunk, at any moment: a handler may throw.
    let pointer = this.#ring.readPointer;
    let consumed = 0;
    let going = true;
    let windowBytes = usualBytes;
    const memory = spareWindows.pop() ?? Buffer.allocUnsafeSlow(WINDOW_BYTES);
    try {
      while (going && consumed < wanted) {
        const base = pointer;
        const usedBytes = this.#ring.distance(base, end) * WORD_BYTES;
        const window = memory.subarray(0, Math.min(usedBytes, windowBytes));
        this.#ring.read(base, window);
        windowBytes = usualBytes;
        let offset = 0;
        do {
          const length = this.#chunkLength(window, offset, usedBytes);
          const start = offset + CHUNK_HEADER_BYTES;
          const large = length >= LARGE_CHUNK_BYTES;
          offset += chunkWords(length) * WORD_BYTES;
          if (!large && offset > window.length) {
            // The window ends inside this chunk: read on from here.
            windowBytes = Math.max(offset - start + CHUNK_HEADER_BYTES, usualBytes);
            break;
          }
          let frame: Buffer;
          if (large) {
            frame = Buffer.allocUnsafeSlow(length);
            if (offset <= window.length) window.copy(frame, 0, start);
            else this.#ring.read(this.#ring.advance(base, start / WORD_BYTES), frame);
            windowBytes = PEEK_BYTES;
          } else {
            frame = window.subarray(start, start + length);
          }
          consumed++;
          pointer = this.#ring.advance(base, offset / WORD_BYTES);
          going = handler(frame, large) && this.#ring.open;
        } while (going && consumed < wanted && offset + CHUNK_HEADER_BYTES <= window.length);
      }
    } finally {
      if (spareWindows.length < MAX_SPARE_WINDOWS) spareWindows.push(memory);
      this.#announced -= consumed;
      if (consumed > 0 && this.#ring.open) this.#reclaim(pointer);
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

  /** The length of the chunk whose header stands at `offset`. */
  #chunkLength(window: Buffer, offset: number, usedBytes: number): number {
    if (offset + CHUNK_HEADER_BYTES > usedBytes) {
      throw malformed(
        `${this.#ring.name}: an event was announced that is not there`,
        'one chunk for each byte',
      );
    }
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
