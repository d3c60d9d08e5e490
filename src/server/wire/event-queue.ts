/**
 * The queue in front of the event ring, for a client that reads more slowly than others send.
 *
 * Events are laid out as chunks in slabs of memory. A flush moves as many whole chunks as fit into the ring, and then sends
 * one byte for each on the service socket. The client does not signal that it freed space, so a poller checks while chunks
 * wait. The file of the ring is sparse: a full file system also means no room for a while.
 *
 *     append() -> | slab | slab | slab | -> ring -> byte on the socket
 */
import { monotonicMs, nextTick } from '../../clock';
import { debugServer as debug } from '../../debug';
import { EventWriter } from '../../ring/event-writer';
import { CHUNK_HEADER_BYTES, chunkWords, WORD_BYTES, writeChunkHeader } from '../../ring/layout';
import type { Ring } from '../../ring/ring';
import { systemError } from '../../system-error';
import { Poller } from '../../transport/poller';

/** Flush at this size within a burst: readers work while we still write. */
const SLAB_BYTES = 64 * 1024;
/** Slabs kept for reuse, shared by all connections of the process. */
const MAX_SPARE_SLABS = 64;
const MAX_LOOPED_BYTES = 128;
/** Poll fast first: a busy client makes room within a fraction of a millisecond. Poll a stopped client rarely. */
const ROOM_POLLING = { turns: 400, maxPauseMs: 20, unref: true };
/** Limit of unread bytes in the client's socket: with more it reads nothing, so send nothing more. */
const MAX_UNREAD_ANNOUNCEMENTS = 64 * 1024;

interface Slab {
  memory: Buffer;
  /** Chunks before this offset are in the ring. */
  start: number;
  end: number;
}

const spareSlabs: Buffer[] = [];

/** The connection's side of the queue. */
export interface EventQueueHost {
  /** Sends `count` bytes of any value on the service socket. */
  announce(count: number): void;
  /** Sent bytes that the socket still holds. */
  unreadAnnouncements(): number;
  /** The number of queued bytes changed. */
  onQueued(bytes: number): void;
  /** The ring is unusable. */
  onFailure(error: unknown): void;
}

export class EventQueue {
  readonly #writer: EventWriter;
  readonly #host: EventQueueHost;
  readonly #slabs: Slab[] = [];
  readonly #polling = new Poller(() => this.#pollRoom(), ROOM_POLLING);
  #queuedBytes = 0;
  #flushScheduled = false;
  #closed = false;
  /** While events wait: last time the client made room, in milliseconds of the monotonic clock. */
  lastProgress = monotonicMs();

  constructor(ring: Ring, host: EventQueueHost) {
    this.#writer = new EventWriter(ring);
    this.#host = host;
  }

  /** Bytes that wait for room in the ring. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Queues one event of `head` and of `body` from `start` on; the caller may reuse their memory afterwards. */
  append(head: Buffer, body: Buffer, start: number): void {
    if (this.#closed) return;
    const length = head.length + body.length - start;
    const bytes = chunkWords(length) * WORD_BYTES;
    const { memory, end } = this.#slabFor(bytes);
    writeChunkHeader(memory, end, length);
    memory.set(head, end + CHUNK_HEADER_BYTES);
    copy(body, start, memory, end + CHUNK_HEADER_BYTES + head.length);
    for (let at = end + CHUNK_HEADER_BYTES + length; at < end + bytes; at++) memory[at] = 0;
    this.#slabs.at(-1)!.end = end + bytes;
    this.#queuedBytes += bytes;
    if (this.#polling.running) {
      this.#host.onQueued(this.#queuedBytes);
    } else if (this.#queuedBytes >= SLAB_BYTES) {
      this.flush();
    } else if (!this.#flushScheduled) {
      // Flush at the end of the burst that caused these events.
      this.#flushScheduled = true;
      nextTick(() => {
        this.#flushScheduled = false;
        if (!this.#polling.running) this.flush();
      });
    }
  }

  /** Moves as much as fits into the ring. */
  flush(): void {
    if (this.#closed || this.#queuedBytes === 0) return;
    try {
      this.#move();
    } catch (error) {
      this.#host.onFailure(error);
      return;
    }
    this.#host.onQueued(this.#queuedBytes);
    // The host may have closed us because of the queue's length; then it is empty.
    if (this.#queuedBytes > 0 && !this.#polling.running) {
      this.lastProgress = monotonicMs();
      this.#polling.start();
    }
  }

  close(): void {
    this.#closed = true;
    this.#polling.stop();
    this.#slabs.length = 0;
    this.#queuedBytes = 0;
  }

  #pollRoom(): boolean {
    const before = this.#queuedBytes;
    this.flush();
    if (this.#closed || this.#queuedBytes === 0) return true;
    // The client reads: poll soon again, however long it has taken so far.
    if (this.#queuedBytes < before) this.#polling.start();
    return false;
  }

  #move(): void {
    const writer = this.#writer;
    writer.findRoom();
    while (
      this.#slabs.length > 0 &&
      this.#host.unreadAnnouncements() + writer.stagedChunks < MAX_UNREAD_ANNOUNCEMENTS
    ) {
      const slab = this.#slabs[0]!;
      if (!this.#stage(slab)) break;
      this.#slabs.shift();
      if (slab.memory.length === SLAB_BYTES && spareSlabs.length < MAX_SPARE_SLABS)
        spareSlabs.push(slab.memory);
    }
    if (writer.stagedChunks === 0) return;
    this.lastProgress = monotonicMs();
    this.#host.announce(writer.post());
  }

  /** Moves as much as fits; true if that was all. */
  #stage(slab: Slab): boolean {
    try {
      const start = this.#writer.stage(slab.memory, slab.start, slab.end);
      this.#queuedBytes -= start - slab.start;
      slab.start = start;
    } catch (error) {
      if (systemError(error, 'an event').code !== 'CS_ERR_NO_SPACE') throw error;
      debug('an event waits: %s', String(error));
    }
    return slab.start === slab.end;
  }

  #slabFor(bytes: number): Slab {
    const last = this.#slabs.at(-1);
    if (last !== undefined && last.memory.length - last.end >= bytes) return last;
    const memory =
      bytes > SLAB_BYTES
        ? Buffer.allocUnsafeSlow(bytes)
        : (spareSlabs.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES));
    const slab = { memory, start: 0, end: 0 };
    this.#slabs.push(slab);
    return slab;
  }
}

/** Copies `source` from `from` on to `target`: byte by byte where that is faster than making a view. */
function copy(source: Buffer, from: number, target: Buffer, to: number): void {
  if (source.length - from > MAX_LOOPED_BYTES) {
    source.copy(target, to, from);
    return;
  }
  for (let at = from, end = source.length; at < end; at++) target[to++] = source[at]!;
}
