/**
 * The reader of the event ring. The daemon writes a chunk, raises the semaphore, and then sends one byte on the service
 * socket; a byte received is the credit to reclaim one chunk.
 *
 *        reclaimed           consumed           announced        not yet announced
 *     ------------> read_pt ----------> pointer ----------> .... ------------------> write_pt
 *
 * A byte means that its chunk is complete, so we read write_pt only before reclaiming, not before each chunk. A caller
 * that does not want to wait for the byte can peek() at the semaphore.
 */
import { markAsUntransferable } from 'node:worker_threads';
import { malformed } from '../codec/fields';
import {
  CHUNK_HEADER_BYTES,
  CHUNK_HEADER_WORDS,
  CHUNK_MARGIN_BYTES,
  checkedLength,
  chunkWords,
  WORD_BYTES,
} from './layout';
import { BorrowedBuffer, detach, giveBackWindow, takeWindow, WINDOW_BYTES } from './memory';
import type { Ring } from './ring';

/**
 * Handles one event. The handler may keep the frame unless frames are borrowed: those are valid only during the call.
 * False stops the reading after this frame.
 */
export type FrameHandler = (frame: Buffer) => boolean;

/** The size of one read that frames share: keeping one frame keeps all of that memory. */
const SLAB_BYTES = 32 * 1024;
/** Read first for a chunk that is probably longer than a window, to see its length. */
const PEEK_BYTES = 256;
/** The assumed size of the first chunk: a short message and its header. */
const FIRST_GUESS_BYTES = 512;
/** Consumed bytes that may wait to be reclaimed in a batch; corosync's rings can spare twice as much. */
const MAX_KEEP_BYTES = 2048;
/** consume() reclaims while reading once the consumed space is this fraction of the ring. */
const RECLAIM_FRACTION = 8;
/** With less than this fraction of the ring free, an event may have found no room. */
const CROWDED_FRACTION = 8;
/** A large chunk is expected again until smaller ones add up to this many times its length. */
const FORGET_FACTOR = 16;

/** See `crowdedAt`. */
const NOT_CROWDED = -1;

export class EventReader {
  protected readonly ring: Ring;
  /** The total size of the ring for chunks. */
  readonly capacityBytes: number;
  readonly #keepBytes: number;
  /** If set, frames are borrowed and detached after the call. */
  readonly #borrowed: BorrowedBuffer | undefined;
  readonly state = {
    /** After the last consumed chunk. Only we write read_pt, so we need not read it again. */
    pointer: 0,
    /** Bytes received minus chunks consumed: negative while chunks are consumed ahead of their bytes. */
    announced: 0,
    /** Unconsumed chunks that peek() saw. */
    seen: 0,
    unreclaimedBytes: 0,
    /** Chunks consumed since the semaphore was set to 0. */
    sinceReset: 0,
    /** The average size of the last chunks, for the size of the next read. */
    chunkBytes: FIRST_GUESS_BYTES,
    /** The largest chunk to expect. */
    expectedBytes: 0,
    /** write_pt at the time we freed space in a crowded ring, until the daemon notices. */
    crowdedAt: NOT_CROWDED,
  };

  /** The ring always keeps room for `largestFrame` bytes. */
  constructor(ring: Ring, { lend = false, largestFrame = Infinity } = {}) {
    this.ring = ring;
    this.capacityBytes = ring.wordSize * WORD_BYTES;
    this.state.pointer = ring.readPointer;
    this.#borrowed = lend ? new BorrowedBuffer() : undefined;
    const spareBytes = this.capacityBytes - largestFrame - CHUNK_MARGIN_BYTES - WORD_BYTES;
    this.#keepBytes = Math.max(0, Math.min(spareBytes, MAX_KEEP_BYTES));
  }

  /** Unconsumed events, as far as we know. */
  get available(): number {
    return Math.max(this.state.announced, this.state.seen);
  }

  /** The average ring space of the last events. */
  get averageBytes(): number {
    return this.state.chunkBytes;
  }

  /**
   * Whether to call reclaim(). A few small chunks are not worth its system calls: the ring has room for the largest
   * frame beside them, so they may even stay permanently.
   */
  get shouldReclaim(): boolean {
    return this.state.unreclaimedBytes > this.#keepBytes && this.#reclaimable;
  }

  /**
   * We freed space in a ring that may have been too full for another event, and nothing has woken the daemon since: it
   * may hold events back until something does.
   */
  get wasCrowded(): boolean {
    return this.state.crowdedAt !== NOT_CROWDED;
  }

  /** Like wasCrowded, but false if the daemon has already used the space. */
  holdsBack(): boolean {
    if (!this.wasCrowded) return false;
    this.ring.readPointers();
    if (this.ring.writePointer !== this.state.crowdedAt) this.state.crowdedAt = NOT_CROWDED;
    return this.wasCrowded;
  }

  /** Something woke the daemon. */
  noteWakeUp(): void {
    this.state.crowdedAt = NOT_CROWDED;
  }

  get #reclaimable(): boolean {
    return this.state.unreclaimedBytes > 0 && this.state.announced >= 0;
  }

  /** Counts bytes received on the service socket. */
  credit(count: number): void {
    this.state.announced += count;
  }

  /**
   * Checks for events whose bytes have not come yet; true if any are available. The semaphore counts the events posted
   * since its last reset, but a reset can lose some: it may show too few, never too many.
   */
  peek(): boolean {
    this.state.seen = Math.max(0, this.ring.semaphore() - this.state.sinceReset);
    return this.available > 0;
  }

  /**
   * Passes up to `limit` events to `handler`, in order, and returns how many. Reclaims large amounts of space itself and
   * leaves the rest to reclaim(). Throws CS_ERR_MESSAGE_ERROR if the ring is invalid.
   */
  consume(limit: number, handler: FrameHandler): number {
    const wanted = Math.min(limit, this.available);
    if (wanted === 0) return 0;
    let consumed = 0;
    let going = true;
    const window = this.#borrowed && takeWindow();
    try {
      while (going && consumed < wanted) {
        const readBytes = this.#readBytes(wanted - consumed);
        const memory = window ?? newSlab(readBytes);
        this.ring.read(this.state.pointer, memory, readBytes);
        let offset = 0;
        let chunks = 0;
        do {
          const length = this.#chunkLength(memory, offset);
          const start = offset + CHUNK_HEADER_BYTES;
          const bytes = chunkWords(length) * WORD_BYTES;
          const large = bytes > WINDOW_BYTES;
          if (!large && offset + bytes > readBytes) {
            // This read ends inside the chunk: read again from here, large enough for it.
            if (chunks === 0) this.state.chunkBytes = bytes;
            break;
          }
          const frame = large ? this.#readLarge(length) : memory.subarray(start, start + length);
          offset += bytes;
          chunks++;
          consumed++;
          // Before the handler: if it throws, the event is consumed all the same.
          this.#advance(bytes);
          going = handler(frame) && this.ring.state.open;
          if (large) {
            this.#borrowed?.giveBack();
            break;
          }
        } while (going && consumed < wanted && offset + CHUNK_HEADER_BYTES <= readBytes);
        if (chunks > 0) this.state.chunkBytes = Math.ceil(offset / chunks);
      }
    } finally {
      if (window !== undefined) giveBackWindow(detach(window));
    }
    return consumed;
  }

  /**
   * Gives consumed space back to the daemon, once the bytes for all of it have arrived.
   *
   * The semaphore is reset first. In the other order the daemon could see an empty ring with a count left, take it for
   * full, and hold an event back for up to 50 ms. A count that it adds in between belongs to a chunk after the pointer,
   * whose byte is still to come. Every reclaim resets it: an empty ring with a count left looks full to the daemon,
   * which would then stop its queue for us permanently.
   */
  reclaim(): void {
    if (!this.#reclaimable || !this.ring.state.open) return;
    const freeBytes = this.capacityBytes - this.#checkEnd();
    this.ring.setSemaphore(0);
    this.ring.publishReadPointer(this.state.pointer);
    this.state.unreclaimedBytes = 0;
    this.state.sinceReset = 0;
    const neededBytes = this.state.expectedBytes + CHUNK_MARGIN_BYTES;
    if (freeBytes > Math.max(this.capacityBytes / CROWDED_FRACTION, neededBytes)) return;
    // From now on the daemon writes into the freed space.
    this.ring.readPointers();
    this.state.crowdedAt = this.ring.writePointer;
  }

  #advance(bytes: number): void {
    const { state } = this;
    state.pointer = this.ring.advance(state.pointer, bytes / WORD_BYTES);
    state.announced--;
    state.seen = Math.max(0, state.seen - 1);
    state.sinceReset++;
    state.unreclaimedBytes += bytes;
    state.expectedBytes = Math.max(bytes, state.expectedBytes - bytes / FORGET_FACTOR);
    // The frame is in our own memory by now, so do not wait for the handler.
    if (state.unreclaimedBytes >= this.capacityBytes / RECLAIM_FRACTION) this.reclaim();
  }

  /** The payload of the next chunk. */
  #readLarge(length: number): Buffer {
    const frame = this.#borrowed?.take(length) ?? Buffer.allocUnsafeSlow(length);
    this.ring.read(this.ring.advance(this.state.pointer, CHUNK_HEADER_WORDS), frame);
    return frame;
  }

  /** How much to read for this many chunks, assuming the average size. */
  #readBytes(chunks: number): number {
    const { chunkBytes } = this.state;
    if (chunkBytes > WINDOW_BYTES) return Math.min(PEEK_BYTES, this.capacityBytes);
    const most = this.#borrowed === undefined ? Math.max(SLAB_BYTES, chunkBytes) : WINDOW_BYTES;
    return Math.min(chunks * chunkBytes, most, this.capacityBytes);
  }

  /** The length of the chunk whose header is at `offset`. */
  #chunkLength(window: Buffer, offset: number): number {
    const length = window.readUInt32LE(offset);
    const magic = window.readUInt32LE(offset + WORD_BYTES);
    return checkedLength(this.ring.name, length, magic, this.ring.wordSize - 1);
  }

  /**
   * Bytes without chunks, or wrong lengths, would lead us into the remains of older chunks: all consumed chunks must lie
   * before write_pt. Returns the number of bytes in use.
   */
  #checkEnd(): number {
    const from = this.ring.readPointer;
    this.ring.readPointers();
    const usedBytes = this.ring.distance(from, this.ring.writePointer) * WORD_BYTES;
    if (usedBytes >= this.state.unreclaimedBytes) return usedBytes;
    throw malformed(`${this.ring.name}: an event was announced that is not there`, 'one chunk for each byte');
  }
}

/** Untransferable: a transfer to another thread would detach all its frames. */
function newSlab(bytes: number): Buffer {
  const slab = Buffer.allocUnsafe(bytes);
  markAsUntransferable(slab.buffer);
  return slab;
}
