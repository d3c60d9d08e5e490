/**
 * The writer of the request ring.
 *
 * Frames are first staged after write_pt in the free part of the ring, which belongs to the writer until write_pt moves,
 * so the daemon does not see them. post() then makes all of them visible at once. Small frames are gathered in memory
 * and written to the ring together; large ones are written from the caller's memory.
 *
 *        daemon reads         posted             staged               free
 *     read_pt ------------------> write_pt --------------> staged end ------> read_pt
 */
import { CHUNK_HEADER_BYTES, chunkWords, Magic, WORD_BYTES, writeChunkHeader } from './layout';
import type { Ring } from './ring';

/** Frames up to `directBytes` are gathered in a buffer of `gatherBytes`; larger ones are written directly. */
const LIMITS = { gatherBytes: 64 * 1024, directBytes: 16 * 1024 };

/** Whether staged frames may be posted now. */
export type SubmitState = 'ready' | 'busy' | 'flowControlled';

const zeros = Buffer.alloc(WORD_BYTES);

export class RequestWriter {
  readonly #ring: Ring;
  readonly #directBytes: number;
  /** Gathered bytes, which belong right before `end` in the ring. */
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
   * Stages one frame of `head` and `parts`, together `length` bytes. False, without any change, when the ring has no
   * room now.
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
   * Stages a frame of `length` bytes in `memory` after CHUNK_HEADER_BYTES of headroom, padded to a whole word. A large
   * frame is written directly; for a small one, gathering is cheaper than a separate write.
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
   * Only at semaphore 0: the daemon decrements it atomically for each chunk, and we can only overwrite it. At any other
   * time a write could undo a decrement (the daemon would read a chunk that does not exist) or lose an increment (a
   * chunk that is never read). At 0 the daemon does not change it.
   */
  submitState(): SubmitState {
    const { semaphore, userData } = this.#ring.status();
    if (userData !== 0) return 'flowControlled';
    return semaphore === 0 ? 'ready' : 'busy';
  }

  /** Whether enough of the ring is free to continue staging while nothing can be posted. */
  hasQuarterFree(): boolean {
    this.#ring.readPointers();
    return this.#ring.freeBytes(this.state.end) >= this.#ring.wordSize;
  }

  /** The daemon's flow control: true while it asks us not to send. */
  flowControl(): boolean {
    return this.#ring.status().userData !== 0;
  }

  /**
   * Makes the staged frames visible and returns their number. submitState() must have returned 'ready'. The caller then
   * immediately sends exactly that many bytes on the service socket in one write: a byte before its chunk is a lost
   * wake-up, and a chunk without its byte makes the daemon wait for it.
   */
  post(): number {
    const { end, stagedChunks } = this.state;
    this.#flush();
    // Chunks first, then the pointer that covers them, then the count that lets the daemon read them.
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

  /** Whether to gather a chunk. If not, or if the buffer has no room for it, writes the gathered ones. */
  #gathers(bytes: number): boolean {
    const gathers = bytes <= this.#directBytes;
    if (!gathers || this.state.gatheredBytes + bytes > this.gather.length) this.#flush();
    return gathers;
  }

  #gatherFrame(head: Buffer, parts: readonly Uint8Array[], length: number, bytes: number): void {
    const at = this.state.gatheredBytes;
    const word = at / WORD_BYTES;
    // The padding first: the payload may extend into its word.
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
    // An empty piece at the end would cost an extra write.
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
