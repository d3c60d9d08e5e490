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
import { CHUNK_HEADER_BYTES, chunkWords, Magic, WORD_BYTES, writeChunkHeader } from './layout';
import type { Ring } from './ring';

/** Frames up to `directBytes` are gathered in a buffer of `gatherBytes`; larger ones are written directly. */
const LIMITS = { gatherBytes: 64 * 1024, directBytes: 16 * 1024 };

/** What a look at the ring says of the daemon: whether staged frames may be posted now. */
export type SubmitState = 'ready' | 'busy' | 'flowControlled';

const zeros = Buffer.alloc(WORD_BYTES);

export class RequestWriter {
  readonly #ring: Ring;
  readonly #directBytes: number;
  /** The gathered bytes belong into the ring right before `end`. */
  readonly gather: Buffer;
  readonly #gatherWords: Uint32Array;
  readonly state = {
    /** After the last staged chunk. */
    end: 0,
    stagedChunks: 0,
    gatheredBytes: 0,
  };

  constructor(ring: Ring, { gatherBytes, directBytes } = LIMITS) {
    this.#ring = ring;
    this.#directBytes = directBytes;
    this.gather = Buffer.allocUnsafeSlow(gatherBytes);
    this.#gatherWords = new Uint32Array(this.gather.buffer, this.gather.byteOffset);
    this.state.end = ring.writePointer;
  }

  get stagedChunks(): number {
    return this.state.stagedChunks;
  }

  /**
   * Stages one frame made of `head` and `parts`, together `length` bytes.
   * False when the ring has no room for it now; nothing is changed then.
   */
  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean {
    if (!this.#hasRoom(length)) return false;
    const words = chunkWords(length);
    const bytes = words * WORD_BYTES;
    if (this.#gathers(bytes)) this.#gatherFrame(head, parts, length, bytes);
    else this.#writeFrame(head, parts, length);
    this.#staged(words);
    return true;
  }

  /**
   * Stages a frame of `length` bytes that stands in `memory` behind CHUNK_HEADER_BYTES of headroom, padded
   * to a whole word. A large one goes out in one write from where it is; for a small one, being gathered with
   * others costs less than a write of its own.
   */
  stagePrepared(memory: Buffer, length: number): boolean {
    if (!this.#hasRoom(length)) return false;
    writeChunkHeader(memory, 0, length);
    if (this.#gathers(memory.length)) {
      this.gather.set(memory, this.state.gatheredBytes);
      this.state.gatheredBytes += memory.length;
    } else {
      this.#ring.write(this.state.end, memory);
    }
    this.#staged(chunkWords(length));
    return true;
  }

  /**
   * Whether staged frames may be posted now.
   *
   * Only at semaphore 0: the daemon takes chunks by decrementing it atomically, and we can only overwrite
   * it, so a write at any other moment could undo a decrement (the daemon would then read a chunk that is
   * not there) or lose an increment (a chunk nobody reads). At 0 the daemon leaves it alone.
   */
  submitState(): SubmitState {
    const { semaphore, userData } = this.#ring.status();
    if (userData !== 0) return 'flowControlled';
    return semaphore === 0 ? 'ready' : 'busy';
  }

  /** Whether enough of the ring is free to go on staging although nothing can be posted. */
  hasQuarterFree(): boolean {
    this.#ring.readPointers();
    return this.#ring.freeBytes(this.state.end) >= this.#ring.wordSize;
  }

  /** The daemon's flow control: true while it asks us not to send. */
  flowControl(): boolean {
    return this.#ring.status().userData !== 0;
  }

  /**
   * Makes the staged frames visible and returns their number. The caller, who has seen submitState() say
   * 'ready', sends exactly that many bytes on the service socket right after, in one write: a byte before its
   * chunk is lost as a wake-up, and a chunk without its byte leaves the daemon waiting for it.
   */
  post(): number {
    const { end, stagedChunks } = this.state;
    this.#flush();
    // Chunks first, then the pointer that covers them, then the count that lets the daemon look.
    this.#ring.publishWritePointer(end);
    this.#ring.setSemaphore(stagedChunks);
    this.state.stagedChunks = 0;
    return stagedChunks;
  }

  #staged(words: number): void {
    this.state.end = this.#ring.advance(this.state.end, words);
    this.state.stagedChunks++;
  }

  #hasRoom(length: number): boolean {
    if (this.#ring.hasRoom(length, this.state.end)) return true;
    this.#ring.readPointers();
    return this.#ring.hasRoom(length, this.state.end);
  }

  /** Whether a chunk is to be gathered. If not, or if it does not fit beside the others, those are written. */
  #gathers(bytes: number): boolean {
    const gathers = bytes <= this.#directBytes;
    if (!gathers || this.state.gatheredBytes + bytes > this.gather.length) this.#flush();
    return gathers;
  }

  #gatherFrame(head: Buffer, parts: readonly Uint8Array[], length: number, bytes: number): void {
    const at = this.state.gatheredBytes;
    const word = at / WORD_BYTES;
    // The padding first: what follows may reach into its word.
    this.#gatherWords[(at + bytes) / WORD_BYTES - 1] = 0;
    this.#gatherWords[word] = length;
    this.#gatherWords[word + 1] = Magic.COMMITTED;
    this.gather.set(head, at + CHUNK_HEADER_BYTES);
    let end = at + CHUNK_HEADER_BYTES + head.length;
    for (const part of parts) {
      this.gather.set(part, end);
      end += part.length;
    }
    this.state.gatheredBytes = at + bytes;
  }

  #writeFrame(head: Buffer, parts: readonly Uint8Array[], length: number): void {
    const chunkHeader = Buffer.allocUnsafe(CHUNK_HEADER_BYTES);
    writeChunkHeader(chunkHeader, 0, length);
    const padding = zeros.subarray(0, (WORD_BYTES - (length % WORD_BYTES)) % WORD_BYTES);
    // An empty piece at the end would cost a write of its own.
    const all = [chunkHeader, head, ...parts, padding].filter((piece) => piece.length > 0);
    this.#ring.writeParts(this.state.end, all, CHUNK_HEADER_BYTES + length + padding.length);
  }

  #flush(): void {
    const { end, gatheredBytes } = this.state;
    if (gatheredBytes === 0) return;
    const start = this.#ring.advance(end, this.#ring.wordSize - gatheredBytes / WORD_BYTES);
    this.#ring.write(start, this.gather, gatheredBytes);
    this.state.gatheredBytes = 0;
  }
}
