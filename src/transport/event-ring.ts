/**
 * The event ring, seen from its reader. The daemon writes a chunk, raises the semaphore, and then sends one
 * byte on the service socket; a byte received is the right to reclaim one chunk.
 *
 *        given back          consumed           announced        not yet announced
 *     ------------> read_pt ----------> pointer ----------> .... ------------------> write_pt
 *
 * Who does not want to wait for the byte can look() at the semaphore.
 */
import { malformed } from '../codec/fields';
import { giveBackWindow, LentMemory, takeWindow, WINDOW_BYTES, withdrawn } from './memory';
import { CHUNK_HEADER_BYTES, CHUNK_HEADER_WORDS, chunkWords, Magic, WORD_BYTES, type Ring } from './ring';

/**
 * Looks at one event. The frame is only valid during the call, unless `owned`: then nobody else has its memory.
 * False stops the reading behind this frame.
 */
export type FrameHandler = (frame: Buffer, owned: boolean) => boolean;

/** A chunk from here on is read on its own, straight into the memory it is handed out in. */
const LARGE_CHUNK_BYTES = 16 * 1024;
/** Read to see how long a chunk is that is probably large. */
const PEEK_BYTES = 256;
/** Read per event when only a few are wanted. */
const FEW_EVENT_BYTES = 4096;
/** Consumed space is given back in the middle of reading when it is this part of the ring. */
const RECLAIM_FRACTION = 8;

export class EventRing {
  readonly #ring: Ring;
  readonly #ringBytes: number;
  /** With it, frames are lent: none is owned, and what is kept of one turns empty after the call. */
  readonly #lent: LentMemory | undefined;
  /** Behind the last consumed chunk. read_pt is ours alone, so it need not be read again. */
  #pointer: number;
  /** Bytes received less chunks consumed: negative while chunks are consumed ahead of their bytes. */
  #announced = 0;
  /** Chunks that look() saw and that are not consumed. */
  #seen = 0;
  #unreclaimedBytes = 0;
  /** Chunks consumed since the semaphore was set to 0. */
  #sinceReset = 0;
  /** The last chunk was read on its own, and the next one probably will be. */
  #lastWasLarge = false;

  constructor(ring: Ring, lend = false) {
    this.#ring = ring;
    this.#ringBytes = ring.wordSize * WORD_BYTES;
    this.#pointer = ring.readPointer;
    this.#lent = lend ? new LentMemory() : undefined;
  }

  /** Events that are there and not yet consumed, as far as we know. */
  get available(): number {
    return Math.max(this.#announced, this.#seen);
  }

  /** Consumed chunks are to be given back. */
  get reclaimable(): boolean {
    return this.#unreclaimedBytes > 0 && this.#announced >= 0;
  }

  /** Counts bytes that came in on the service socket. */
  announce(bytes: number): void {
    this.#announced += bytes;
  }

  /**
   * Looks for events whose bytes did not come yet; true when there are any. The semaphore counts all that
   * were posted since it was last reset, but a reset can lose some: it may show too few, never too many.
   */
  look(): boolean {
    this.#seen = Math.max(0, this.#ring.semaphore() - this.#sinceReset);
    return this.available > 0;
  }

  /**
   * Hands up to `limit` events to `handler`, in order, and returns how many. Their space is given back by
   * reclaim(), and in between when it is much. Throws CS_ERR_MESSAGE_ERROR when the ring is not what it
   * should be.
   */
  consume(limit: number, handler: FrameHandler): number {
    const wanted = Math.min(limit, this.available);
    if (wanted === 0) return 0;
    // The end first: whatever lies before it is complete up to the announced chunks.
    this.#ring.readPointers();
    const end = this.#ring.writePointer;
    const usualBytes =
      limit < this.available ? Math.min(wanted * FEW_EVENT_BYTES, WINDOW_BYTES) : WINDOW_BYTES;
    let windowBytes = this.#lastWasLarge ? PEEK_BYTES : usualBytes;
    let consumed = 0;
    let going = true;
    const memory = takeWindow();
    try {
      while (going && consumed < wanted) {
        const usedBytes = this.#ring.distance(this.#pointer, end) * WORD_BYTES;
        const window = memory.subarray(0, Math.min(usedBytes, windowBytes));
        this.#ring.read(this.#pointer, window);
        windowBytes = usualBytes;
        let offset = 0;
        do {
          const length = this.#chunkLength(window, offset, usedBytes);
          const start = offset + CHUNK_HEADER_BYTES;
          const bytes = chunkWords(length) * WORD_BYTES;
          const large = length >= LARGE_CHUNK_BYTES;
          if (!large && offset + bytes > window.length) {
            // The window ends inside this chunk: read on from here.
            windowBytes = Math.max(bytes, usualBytes);
            break;
          }
          const frame = large ? this.#readLarge(length) : window.subarray(start, start + length);
          offset += bytes;
          consumed++;
          // Before the handler is called: should it throw, it has had its event.
          this.#advance(bytes);
          this.#lastWasLarge = large;
          going = handler(frame, large && this.#lent === undefined) && this.#ring.open;
          if (large) {
            // Probably another one follows.
            windowBytes = PEEK_BYTES;
            this.#lent?.giveBack();
            break;
          }
        } while (going && consumed < wanted && offset + CHUNK_HEADER_BYTES <= window.length);
      }
    } finally {
      giveBackWindow(this.#lent === undefined ? memory : withdrawn(memory));
    }
    return consumed;
  }

  /**
   * Gives consumed space back to the daemon, if the bytes of all of it have come.
   *
   * The semaphore goes to 0 first: were the pointer first, the daemon could see an empty ring with a count
   * left, take it for full, and its queue for us would stop for good. A count it adds in between belongs to
   * a chunk behind the pointer, whose byte is still to come. And the semaphore is reset each time, because it
   * would overflow some day if it only grew.
   */
  reclaim(): void {
    if (!this.reclaimable || !this.#ring.open) return;
    this.#ring.setSemaphore(0);
    this.#ring.publishReadPointer(this.#pointer);
    this.#unreclaimedBytes = 0;
    this.#sinceReset = 0;
  }

  #advance(bytes: number): void {
    this.#pointer = this.#ring.advance(this.#pointer, bytes / WORD_BYTES);
    this.#announced--;
    this.#seen = Math.max(0, this.#seen - 1);
    this.#sinceReset++;
    this.#unreclaimedBytes += bytes;
    // The frame is in memory of ours by now, so the handler need not be waited for.
    if (this.#unreclaimedBytes >= this.#ringBytes / RECLAIM_FRACTION) this.reclaim();
  }

  /** The payload of the next chunk. */
  #readLarge(length: number): Buffer {
    const frame = this.#lent?.take(length) ?? Buffer.allocUnsafeSlow(length);
    this.#ring.read(this.#ring.advance(this.#pointer, CHUNK_HEADER_WORDS), frame);
    return frame;
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
