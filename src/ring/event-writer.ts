/**
 * The writer of the event ring: an embedded server.
 *
 * The caller lays out chunks contiguously in memory. stage() writes as many as fit after write_pt, and post() makes them
 * visible; then one byte per chunk is due on the service socket.
 *
 * The semaphore is nonzero while chunks are new, for observers. The client resets it at any time, and neither side
 * depends on it, so it does not matter that we cannot update it atomically. The pointers alone show whether the ring has
 * room.
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

  /** Reads how much the client has reclaimed; call it before staging. */
  findRoom(): void {
    this.#ring.readPointers();
    this.state.end = this.#ring.writePointer;
  }

  /** Stages chunks from `start` to `end` of `memory` while there is room. Returns where the rest begins. */
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

  /** Makes staged chunks visible. Returns their number: one byte for each is due on the service socket. */
  post(): number {
    const { end, stagedChunks } = this.state;
    // Chunks first, then the pointer that covers them, then the count, which lets a client take a reply.
    this.#ring.publishWritePointer(end);
    this.#ring.setSemaphore(stagedChunks);
    this.state.stagedChunks = 0;
    return stagedChunks;
  }
}
