/**
 * The request ring, seen from its writer.
 *
 * Frames are staged first: they are laid out behind write_pt in the free part of the ring, which belongs to
 * the writer until write_pt moves, so the daemon does not see them. post() then makes all of them visible at
 * once. Small frames are gathered in memory and reach the ring in one write; large ones go straight from the
 * caller's memory.
 *
 *        daemon reads         posted             staged               free
 *     read_pt ------------------> write_pt --------------> staged end ------> read_pt
 */
import { CHUNK_HEADER_BYTES, CHUNK_MARGIN_BYTES, chunkWords, Magic, WORD_BYTES, type Ring } from './ring';

/** Frames up to this size are copied into the gathering buffer; larger ones are written directly. */
const GATHER_BYTES = 64 * 1024;
const DIRECT_BYTES = 16 * 1024;

/** See stagedMuch(). */
const MANY_CHUNKS = 64;
const MANY_BYTES = 512 * 1024;
/** See roomy(): a quarter of the ring. */
const ROOMY_FRACTION = 4;

const zeros = Buffer.alloc(WORD_BYTES);

export class RequestRing {
  readonly #ring: Ring;
  readonly #gather = Buffer.allocUnsafeSlow(GATHER_BYTES);
  readonly #gatherWords = new Uint32Array(this.#gather.buffer, this.#gather.byteOffset);
  #gatheredBytes = 0;
  /** Where the first gathered byte belongs. */
  #gatherPointer: number;
  /** Behind the last staged chunk. */
  #end: number;
  #stagedChunks = 0;
  #chunksSinceLook = 0;
  #bytesSinceLook = 0;

  constructor(ring: Ring) {
    this.#ring = ring;
    this.#gatherPointer = ring.writePointer;
    this.#end = ring.writePointer;
  }

  get stagedChunks(): number {
    return this.#stagedChunks;
  }

  /** So much was staged since postable() was asked that it is worth asking again. */
  get stagedMuch(): boolean {
    return this.#chunksSinceLook >= MANY_CHUNKS || this.#bytesSinceLook >= MANY_BYTES;
  }

  /**
   * Stages one frame made of `head` and `parts`, together `length` bytes.
   * False when the ring has no room for it now; nothing is changed then.
   */
  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean {
    if (!this.#hasRoom(length)) return false;
    const words = chunkWords(length);
    const bytes = words * WORD_BYTES;
    const direct = bytes > DIRECT_BYTES;
    if (direct || this.#gatheredBytes + bytes > GATHER_BYTES) this.#flush();
    if (direct) this.#stageDirect(head, parts, length);
    else this.#stageGathered(head, parts, length, bytes);
    this.#staged(words);
    if (direct) this.#gatherPointer = this.#end;
    return true;
  }

  /**
   * Stages a frame of `length` bytes that stands in `memory` behind CHUNK_HEADER_BYTES of headroom, padded
   * to a whole word. A large one goes out in one write from where it is; for a small one, being gathered with
   * others costs less than a write of its own.
   */
  stagePrepared(memory: Buffer, length: number): boolean {
    if (!this.#hasRoom(length)) return false;
    memory.writeUInt32LE(length, 0);
    memory.writeUInt32LE(Magic.COMMITTED, WORD_BYTES);
    const direct = memory.length > DIRECT_BYTES;
    if (direct || this.#gatheredBytes + memory.length > GATHER_BYTES) this.#flush();
    if (direct) {
      this.#ring.write(this.#end, memory);
    } else {
      this.#gather.set(memory, this.#gatheredBytes);
      this.#gatheredBytes += memory.length;
    }
    this.#staged(chunkWords(length));
    if (direct) this.#gatherPointer = this.#end;
    return true;
  }

  /**
   * Whether staged frames may be posted now.
   *
   * Only at semaphore 0: the daemon takes chunks by decrementing it atomically, and we can only overwrite
   * it, so a write at any other moment could undo a decrement (the daemon would then read a chunk that is
   * not there) or lose an increment (a chunk nobody reads). At 0 the daemon leaves it alone.
   */
  postable(): 'now' | 'busy' | 'held' {
    this.#chunksSinceLook = 0;
    this.#bytesSinceLook = 0;
    const { semaphore, userData } = this.#ring.state();
    if (userData !== 0) return 'held';
    return semaphore === 0 ? 'now' : 'busy';
  }

  /** Whether so much of the ring is free again that staging is worth while although nothing can be posted. */
  roomy(): boolean {
    this.#ring.readPointers();
    return this.#freeBytes() >= (this.#ring.wordSize * WORD_BYTES) / ROOMY_FRACTION;
  }

  /** The daemon's flow control: true while it asks us not to send. */
  flowControl(): boolean {
    return this.#ring.state().userData !== 0;
  }

  /**
   * Makes the staged frames visible and returns their number. The caller, who has seen postable() say
   * 'now', sends exactly that many bytes on the service socket right after, in one write: a byte before its
   * chunk is lost as a wake-up, and a chunk without its byte leaves the daemon waiting for it.
   */
  post(): number {
    const chunks = this.#stagedChunks;
    this.#flush();
    // Chunks first, then the pointer that covers them, then the count that lets the daemon look.
    this.#ring.publishWritePointer(this.#end);
    this.#ring.setSemaphore(chunks);
    this.#stagedChunks = 0;
    return chunks;
  }

  #staged(words: number): void {
    this.#end = this.#ring.advance(this.#end, words);
    this.#stagedChunks++;
    this.#chunksSinceLook++;
    this.#bytesSinceLook += words * WORD_BYTES;
  }

  #hasRoom(length: number): boolean {
    if (length + CHUNK_MARGIN_BYTES <= this.#freeBytes()) return true;
    // The daemon only ever frees, so the pointer of an earlier look is safe, just pessimistic.
    this.#ring.readPointers();
    return length + CHUNK_MARGIN_BYTES <= this.#freeBytes();
  }

  #freeBytes(): number {
    // The margin keeps writers from filling the ring to the last word: equal pointers mean empty.
    if (this.#end === this.#ring.readPointer) return this.#ring.wordSize * WORD_BYTES;
    return (this.#ring.distance(this.#end, this.#ring.readPointer) - 1) * WORD_BYTES;
  }

  #stageGathered(head: Buffer, parts: readonly Uint8Array[], length: number, bytes: number): void {
    const at = this.#gatheredBytes;
    const word = at / WORD_BYTES;
    // The padding first: what follows may reach into its word.
    this.#gatherWords[(at + bytes) / WORD_BYTES - 1] = 0;
    this.#gatherWords[word] = length;
    this.#gatherWords[word + 1] = Magic.COMMITTED;
    this.#gather.set(head, at + CHUNK_HEADER_BYTES);
    let end = at + CHUNK_HEADER_BYTES + head.length;
    for (const part of parts) {
      this.#gather.set(part, end);
      end += part.length;
    }
    this.#gatheredBytes = at + bytes;
  }

  #stageDirect(head: Buffer, parts: readonly Uint8Array[], length: number): void {
    const chunkHeader = Buffer.allocUnsafe(CHUNK_HEADER_BYTES);
    chunkHeader.writeUInt32LE(length, 0);
    chunkHeader.writeUInt32LE(Magic.COMMITTED, WORD_BYTES);
    const padding = zeros.subarray(0, (WORD_BYTES - (length % WORD_BYTES)) % WORD_BYTES);
    // An empty piece at the end would cost a write of its own.
    const all = [chunkHeader, head, ...parts, padding].filter((piece) => piece.length > 0);
    this.#ring.writeParts(this.#end, all, CHUNK_HEADER_BYTES + length + padding.length);
  }

  #flush(): void {
    if (this.#gatheredBytes > 0) {
      this.#ring.write(this.#gatherPointer, this.#gather, this.#gatheredBytes);
      this.#gatheredBytes = 0;
    }
    this.#gatherPointer = this.#end;
  }
}
