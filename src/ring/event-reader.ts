/**
 * The event ring, seen from its reader. The daemon writes a chunk, raises the semaphore, and then sends one
 * byte on the service socket; a byte received is the right to reclaim one chunk.
 *
 *        given back          consumed           announced        not yet announced
 *     ------------> read_pt ----------> pointer ----------> .... ------------------> write_pt
 *
 * A byte says that its chunk is complete, so write_pt is not asked before the chunk is read, only before its
 * place is given back. A caller that does not want to wait for the byte can peek() at the semaphore.
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
 * Looks at one event. The frame is the handler's to keep, unless frames are lent: then it is only valid during the
 * call. False stops the reading behind this frame.
 */
export type FrameHandler = (frame: Buffer) => boolean;

/** Frames that are kept share the memory of one read, and to keep one of them keeps all of it: so much of it is read. */
const SLAB_BYTES = 32 * 1024;
/** Read to see how long a chunk is that is probably longer than a window. */
const PEEK_BYTES = 256;
/** What a chunk is thought to take before any was seen: a short message and its header. */
const FIRST_GUESS_BYTES = 512;
/** Consumed bytes that may wait for more to be given back together; corosync's rings have twice as much to spare. */
const MAX_KEEP_BYTES = 2048;
/** Consumed space is given back in the middle of reading when it is this part of the ring. */
const RECLAIM_FRACTION = 8;
/** With less than this part of the ring free, an event may have found no room. */
const CROWDED_FRACTION = 8;
/** A large chunk is expected again until so many times its length has passed in smaller ones. */
const FORGET_FACTOR = 16;

/** See `crowdedAt`. */
const NOT_CROWDED = -1;

export class EventReader {
  protected readonly ring: Ring;
  /** Bytes of its chunks, all together. */
  readonly capacityBytes: number;
  readonly #keepBytes: number;
  /** With it, frames are borrowed, and what is kept of one is empty after the call. */
  readonly #borrowed: BorrowedBuffer | undefined;
  readonly state = {
    /** After the last consumed chunk. read_pt is ours alone, so it need not be read again. */
    pointer: 0,
    /** Bytes received less chunks consumed: negative while chunks are consumed ahead of their bytes. */
    announced: 0,
    /** Chunks that peek() saw and that are not consumed. */
    seen: 0,
    unreclaimedBytes: 0,
    /** Chunks consumed since the semaphore was set to 0. */
    sinceReset: 0,
    /** What the last chunks took on average, for the size of the next read. */
    chunkBytes: FIRST_GUESS_BYTES,
    /** The largest chunk that may be expected. */
    expectedBytes: 0,
    /** Where write_pt stood when room was made in a crowded ring, until the daemon knows of it. */
    crowdedAt: NOT_CROWDED,
  };

  /** `largestFrame` is what the ring must always have room for, in bytes. */
  constructor(ring: Ring, { lend = false, largestFrame = Infinity } = {}) {
    this.ring = ring;
    this.capacityBytes = ring.wordSize * WORD_BYTES;
    this.state.pointer = ring.readPointer;
    this.#borrowed = lend ? new BorrowedBuffer() : undefined;
    const spareBytes = this.capacityBytes - largestFrame - CHUNK_MARGIN_BYTES - WORD_BYTES;
    this.#keepBytes = Math.max(0, Math.min(spareBytes, MAX_KEEP_BYTES));
  }

  /** Events that are there and not yet consumed, as far as we know. */
  get available(): number {
    return Math.max(this.state.announced, this.state.seen);
  }

  /** What one of the last events took of the ring. */
  get averageBytes(): number {
    return this.state.chunkBytes;
  }

  /**
   * Whether reclaim() should be called. A few small chunks are not worth its system calls: the ring has room
   * for the largest frame beside them, so they may even stay permanently.
   */
  get shouldReclaim(): boolean {
    return this.state.unreclaimedBytes > this.#keepBytes && this.#reclaimable;
  }

  /**
   * Room was made in a ring that may have been too full for one more event, and the daemon was not woken since: it may
   * hold events back, and looks again only when something wakes it.
   */
  get wasCrowded(): boolean {
    return this.state.crowdedAt !== NOT_CROWDED;
  }

  /** The same, and the daemon has not used the room either. */
  holdsBack(): boolean {
    if (!this.wasCrowded) return false;
    this.ring.readPointers();
    if (this.ring.writePointer !== this.state.crowdedAt) this.state.crowdedAt = NOT_CROWDED;
    return this.wasCrowded;
  }

  /** The daemon was woken. */
  noteWakeUp(): void {
    this.state.crowdedAt = NOT_CROWDED;
  }

  get #reclaimable(): boolean {
    return this.state.unreclaimedBytes > 0 && this.state.announced >= 0;
  }

  /** Counts bytes that came in on the service socket. */
  credit(count: number): void {
    this.state.announced += count;
  }

  /**
   * Looks for events whose bytes did not come yet; true when there are any. The semaphore counts all that
   * were posted since it was last reset, but a reset can lose some: it may show too few, never too many.
   */
  peek(): boolean {
    this.state.seen = Math.max(0, this.ring.semaphore() - this.state.sinceReset);
    return this.available > 0;
  }

  /**
   * Passes up to `limit` events to `handler`, in order, and returns how many. Their space is given back by
   * reclaim(), and in between when it is much. Throws CS_ERR_MESSAGE_ERROR when the ring is not what it
   * should be.
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
            // What was read ends inside this chunk: read on from here, and this time enough.
            if (chunks === 0) this.state.chunkBytes = bytes;
            break;
          }
          const frame = large ? this.#readLarge(length) : memory.subarray(start, start + length);
          offset += bytes;
          chunks++;
          consumed++;
          // Before the handler is called: should it throw, it has had its event.
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
   * Gives consumed space back to the daemon, if the bytes of all of it have come.
   *
   * The semaphore goes to 0 first: were the pointer first, the daemon could see an empty ring with a count
   * left, take it for full, and keep an event back until it looks again, up to 50 ms later. A count it adds in
   * between belongs to a chunk behind the pointer, whose byte is still to come. And the semaphore is reset each
   * time: with a count left an empty ring would stay full, and the daemon's queue for us would stop permanently.
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
    // What the daemon adds from now on goes into the room that was made.
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
    // The frame is in memory of ours by now, so the handler need not be waited for.
    if (state.unreclaimedBytes >= this.capacityBytes / RECLAIM_FRACTION) this.reclaim();
  }

  /** The payload of the next chunk. */
  #readLarge(length: number): Buffer {
    const frame = this.#borrowed?.take(length) ?? Buffer.allocUnsafeSlow(length);
    this.ring.read(this.ring.advance(this.state.pointer, CHUNK_HEADER_WORDS), frame);
    return frame;
  }

  /** How much to read for this many chunks, if they are like those before. */
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
   * Bytes without chunks, or lengths that are too long, would lead us into what is left of older chunks: all
   * that was consumed must lie before write_pt. Returns how many bytes are in use.
   */
  #checkEnd(): number {
    const from = this.ring.readPointer;
    this.ring.readPointers();
    const usedBytes = this.ring.distance(from, this.ring.writePointer) * WORD_BYTES;
    if (usedBytes >= this.state.unreclaimedBytes) return usedBytes;
    throw malformed(`${this.ring.name}: an event was announced that is not there`, 'one chunk for each byte');
  }
}

/** Nobody may transfer it to another thread: that would take it from the other frames. */
function newSlab(bytes: number): Buffer {
  const slab = Buffer.allocUnsafe(bytes);
  markAsUntransferable(slab.buffer);
  return slab;
}
