/**
 * The event ring, seen from its writer: an embedded server.
 *
 * Chunks come laid out in memory, one after the other. stage() writes as many as there is room for behind write_pt,
 * post() makes them visible, and then as many bytes are due on the service socket.
 *
 * The semaphore is not 0 while chunks are new, for those who look on. The client puts it to 0 whenever it likes, and
 * neither side decides anything by it, so it does not matter that we cannot add to it atomically. Whether the ring has
 * room we know from the pointers alone.
 */
import { chunkWords, WORD_BYTES } from './layout';
import type { Ring } from './ring';

export class EventWriter {
  readonly #ring: Ring;
  readonly state = {
    /** After the last staged chunk. */
    end: 0,
    stagedChunks: 0,
  };

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  get stagedChunks(): number {
    return this.state.stagedChunks;
  }

  /** Reads what the client has given back: before anything is staged. */
  findRoom(): void {
    this.#ring.readPointers();
    this.state.end = this.#ring.writePointer;
  }

  /** Stages the chunks from `start` to `end` of `memory`, as far as they have room. Returns where the others begin. */
  stage(memory: Buffer, start: number, end: number): number {
    const ring = this.#ring;
    const from = this.state.end;
    let pointer = from;
    let at = start;
    let chunks = 0;
    while (at < end) {
      const length = memory.readUInt32LE(at);
      if (!ring.hasRoom(length, pointer)) break;
      const words = chunkWords(length);
      pointer = ring.advance(pointer, words);
      at += words * WORD_BYTES;
      chunks++;
    }
    if (chunks === 0) return start;
    ring.write(from, memory.subarray(start, at));
    this.state.end = pointer;
    this.state.stagedChunks += chunks;
    return at;
  }

  /** Makes what is staged visible. Returns how many chunks that are: so many bytes are due on the service socket. */
  post(): number {
    const { end, stagedChunks } = this.state;
    // Chunks first, then the pointer that covers them, then the count: a client takes a reply by it.
    this.#ring.publishWritePointer(end);
    this.#ring.setSemaphore(stagedChunks);
    this.state.stagedChunks = 0;
    return stagedChunks;
  }
}
