/**
 * Follows a ring without taking part: read() takes the chunks written since the last read(), and never changes the ring.
 *
 *           last read()                      now
 *               v                             v
 *     | guard |  chunk | chunk | ... | chunk | .. oldest memory .. |
 *               \_______ new ________/
 *              at                         write_pt
 *
 * The writer does not know of us and may lap us before we read again. It then overwrites the words just before `at` before
 * it reaches the following ones. So we keep a copy of the words before `at`, the guard, and compare it after each read. If
 * it is unchanged, everything just read is intact. If it has changed, we were lapped: we read the whole ring, take its
 * longest unbroken run of chunks, and count the missed ones.
 *
 * To count them, we sample write_pt more often than the memory and add up its steps. That is exact unless the writer laps
 * the ring between two samples. Over longer intervals we estimate its laps from its rate in close samples.
 */
import { monotonicMs } from '../../clock';
import { openReadOnly } from '../../ring/files';
import { CHUNK_HEADER_BYTES, CHUNK_HEADER_WORDS, chunkWords, WORD_BYTES } from '../../ring/layout';
import type { Ring } from '../../ring/ring';
import { ChunkRun, chunksOf, collect, findRun, isCommitted, wordsIn, wordsOf, type Found } from './chunks';

/** Words kept to detect a lap. */
const GUARD_WORDS = 256;
const GUARD_BYTES = GUARD_WORDS * WORD_BYTES;
/** Maximum number of rereads of a whole ring if the writer moved too far meanwhile. */
const MAX_SNAPSHOTS = 4;
/** A read that took longer is of no use: the writer may have gone all the way round meanwhile, which nothing shows. */
const MAX_READ_MS = 10;
/** How often a chunk may look like none although write_pt is beyond it. */
const MAX_VAIN_READS = 3;
/** Samples no further apart than this tell the rate: a writer of small messages does not get round in between. */
const CLOSE_MS = 30;
/** A rate older than this is invalid. */
const STALE_MS = 500;
/** Part of a round by which the rate may be too high; beyond that one more is counted, rather than one too few. */
const SURPLUS = 0.25;
/** After this time the earlier rate counts for a third. */
const RATE_MEMORY_MS = 50;
/** Chunks of the usual size that a part of the ring must at least have room for, to be worth reading. */
const LEAST_NEWEST_CHUNKS = 4;
/** What is kept of earlier sums when averages are formed. */
const KEPT = 0.7;

/** What was found in a ring. */
export interface RingSnapshot {
  /** In order; the next snapshot reuses their memory. */
  readonly chunks: ChunkRun;
  /** Frames lost before these, an estimate; 0 when none. */
  readonly missed: number;
}

const NO_BYTES = Buffer.alloc(0);
const NO_CHUNKS = new ChunkRun(NO_BYTES, []);
const NOTHING: RingSnapshot = { chunks: NO_CHUNKS, missed: 0 };

export class RingFollower {
  readonly #ring: Ring;
  /** Just after the last seen chunk. */
  #at = 0;
  #guard: Buffer = NO_BYTES;
  /** Chunk headers inside the guard, as byte offsets: their two words change when the chunk is consumed. */
  #guardHeaders: number[] = [];
  #memory: Buffer = NO_BYTES;
  /** write_pt as it was when it was sampled last, and when that was. */
  #sampled = 0;
  #sampledMs = 0;
  /** Words written from `at` until then, in all the rounds that were seen. */
  #written = 0;
  /** Time between samples too far apart to see all rounds, with the words that were seen in it. */
  #gapMs = 0;
  #gapWords = 0;
  /** Words and time of close samples, the latest with the most weight, and when that was. */
  #rateWords = 0;
  #rateMs = 0;
  #rateAtMs = 0;
  /** The same of the last snapshot, which takes so little time that nobody gets round. */
  #snapshotRate = { words: 0, ms: 0 };
  /** Chunks seen of late and their words, the latest with the most weight. */
  #lateWords = 0;
  #lateChunks = 0;
  #vainReads = 0;
  /** Missed, with no frame since that could report it. */
  #unreported = 0;

  private constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Opens a ring; throws the errors of openReadOnly(). */
  static open(stem: string): RingFollower {
    return new RingFollower(openReadOnly(stem));
  }

  /**
   * The older frames still in the ring; call it once, before sample(). `missed` is the minimum number overwritten since the
   * ring was made.
   */
  begin(nowMs: number): RingSnapshot {
    const found = this.#snapshot(0);
    this.#sampledMs = nowMs;
    this.#resetCount(this.#readWritePointer());
    if (found === undefined) return NOTHING;
    const chunks = chunksOf(found);
    const held = wordsIn(found);
    // A new ring is written from its beginning on, so as long as nothing was overwritten the frames begin there.
    const whole = this.#ring.distance(held, this.#at) === 0;
    const missed = whole ? 0 : Math.ceil((this.#ring.wordSize + this.#at - held) / this.#wordsPerChunk);
    return { chunks, missed };
  }

  /** What is written per millisecond, in frames and in rounds of the ring; 0 while it is not known. */
  get rate(): { frames: number; rounds: number } {
    return { frames: this.#wordsPerMs / this.#wordsPerChunk, rounds: this.#wordsPerMs / this.#ring.wordSize };
  }

  get #wordsPerMs(): number {
    return this.#rateMs === 0 ? 0 : this.#rateWords / this.#rateMs;
  }

  /**
   * Reads only the writer's position. Throws CS_ERR_MESSAGE_ERROR if this is no longer a ring.
   */
  sample(nowMs: number): void {
    const write = this.#readWritePointer();
    const words = this.#ring.wordSize;
    const moved = this.#ring.distance(this.#sampled, write);
    const elapsedMs = nowMs - this.#sampledMs;
    const expected = this.#wordsPerMs * elapsedMs;
    this.#written += moved;
    if (elapsedMs <= CLOSE_MS && expected < words) {
      const kept = Math.exp(-elapsedMs / RATE_MEMORY_MS);
      this.#rateWords = kept * this.#rateWords + moved;
      this.#rateMs = kept * this.#rateMs + elapsedMs;
      this.#rateAtMs = nowMs;
    } else {
      this.#gapMs += elapsedMs;
      this.#gapWords += moved;
    }
    this.#sampled = write;
    this.#sampledMs = nowMs;
  }

  /** The last snapshot is needed for longer: the next one uses other memory. */
  keepMemory(): void {
    this.#memory = NO_BYTES;
  }

  /**
   * The frames written between the last read() and the last sample(), but only within the `newest` part of the ring's
   * memory; all others are missed. Throws CS_ERR_MESSAGE_ERROR if this is no longer a ring.
   */
  read(newest = 1): RingSnapshot {
    const write = this.#sampled;
    const distance = this.#ring.distance(this.#at, write);
    if (this.#written === 0) {
      this.#resetCount(write);
      return NOTHING;
    }
    const words = this.#ring.wordSize;
    const wanted = Math.max(newest * words, LEAST_NEWEST_CHUNKS * this.#wordsPerChunk);
    if (newest < 1 && distance > wanted)
      return this.#recover(write, distance, this.#guardIntactBefore(distance), wanted);
    const bytes = this.#reserve(distance * WORD_BYTES);
    this.#ring.read(this.#at, bytes);
    const intact = this.#guardIntactBefore(distance);
    const found = collect(bytes, 0, distance);
    // On weakly ordered CPUs write_pt may be seen before the chunk it covers: such a chunk gets a few attempts.
    if (!found.whole && found.endWord === 0) this.#vainReads++;
    if (!intact || this.#vainReads > MAX_VAIN_READS) return this.#recover(write, distance, intact, wanted);
    if (found.endWord > 0) this.#vainReads = 0;
    this.#moveTo(this.#ring.advance(this.#at, found.endWord), found, true);
    this.#resetCount(write);
    return this.#report(chunksOf(found), 0);
  }

  /** Missed frames not yet reported by a later frame. */
  get unreportedMissed(): number {
    return this.#unreported;
  }

  /** Counts frames dropped after reading: the next snapshot reports them. */
  addMissed(frames: number): void {
    this.#unreported += frames;
  }

  close(): void {
    this.#ring.close();
  }

  /**
   * After a lap, without chunks, or for the newest only: takes the rest of the last `wanted` words, and counts the missed
   * ones.
   */
  #recover(write: number, distance: number, intact: boolean, wanted: number): RingSnapshot {
    const words = this.#ring.wordSize;
    this.#vainReads = 0;
    // Without a lap, and perhaps without one, what stands before `at` was seen already.
    const lapped = !intact && (this.#written > distance || distance <= words - GUARD_WORDS);
    const found = this.#snapshot(Math.max(0, Math.floor(words - wanted), lapped ? 0 : words - distance));
    // When samples did not tell the rate, the snapshot does.
    const unnoticed = lapped && this.#written === distance && this.#unseenRounds === 0;
    if (unnoticed || this.#sampledMs - this.#rateAtMs > STALE_MS) {
      this.#rateWords = this.#snapshotRate.words;
      this.#rateMs = this.#snapshotRate.ms;
    }
    const seenRounds = (this.#written - distance) / words;
    const rounds = intact ? 0 : Math.max(lapped ? 1 : 0, seenRounds + this.#unseenRounds);
    if (found === undefined) {
      this.#at = write;
      this.#rememberGuard();
    }
    if (found === undefined || found.starts.length === 0) this.#measureOne();
    const movedWords = this.#ring.distance(write, this.#at);
    const recoveredWords = found === undefined ? 0 : wordsIn(found);
    const missedWords = Math.max(0, rounds * words + distance + movedWords - recoveredWords);
    const missed = Math.ceil(missedWords / this.#wordsPerChunk);
    this.#resetCount(this.#at);
    return this.#report(found === undefined ? NO_CHUNKS : chunksOf(found), missed);
  }

  /** Rounds of the writer while it was not sampled. */
  get #unseenRounds(): number {
    const rounds = (this.#wordsPerMs * this.#gapMs - this.#gapWords) / this.#ring.wordSize;
    return Math.max(0, Math.ceil(rounds - SURPLUS));
  }

  /** Counting starts again: from `at`, with write_pt where it was last seen. */
  #resetCount(write: number): void {
    this.#sampled = write;
    this.#written = this.#ring.distance(this.#at, write);
    this.#gapMs = 0;
    this.#gapWords = 0;
  }

  #report(chunks: ChunkRun, missed: number): RingSnapshot {
    const all = missed + this.#unreported;
    this.#unreported = chunks.length === 0 ? all : 0;
    return { chunks, missed: all - this.#unreported };
  }

  /** The longest run of chunks in the ring, oldest first, without its oldest `leftOut` words. */
  #snapshot(leftOut: number): Found | undefined {
    const words = this.#ring.wordSize - leftOut;
    for (let attempt = 0; attempt < MAX_SNAPSHOTS; attempt++) {
      const write = this.#readWritePointer();
      const bytes = this.#reserve(words * WORD_BYTES);
      // From write_pt on the ring is in writing order: oldest first.
      const from = this.#ring.advance(write, leftOut);
      const startedMs = monotonicMs();
      this.#ring.read(from, bytes);
      this.#at = write;
      this.#rememberGuard();
      const moved = this.#ring.distance(write, this.#readWritePointer());
      const ms = monotonicMs() - startedMs;
      if (ms > MAX_READ_MS) continue;
      this.#snapshotRate = { words: moved, ms };
      const overwritten = moved > 0 ? moved + GUARD_WORDS - leftOut : 0;
      const begin = findRun(wordsOf(bytes), Math.max(0, overwritten), words);
      const found = collect(bytes, begin, words);
      if (!this.#lastStillThere(from, found)) continue;
      this.#moveTo(this.#ring.advance(from, found.endWord), found, false);
      return found;
    }
    return undefined;
  }

  /** Goes behind the chunks that were found, and guards the words before; `on` when they continue what was guarded. */
  #moveTo(at: number, found: Found, on: boolean): void {
    const { bytes, starts, endWord } = found;
    this.#at = at;
    if (starts.length === 0) return;
    const end = endWord * WORD_BYTES;
    const from = Math.max(starts[0]! * WORD_BYTES, end - GUARD_BYTES);
    const kept = on
      ? this.#guard.subarray(Math.max(0, this.#guard.length - GUARD_BYTES + end - from))
      : NO_BYTES;
    const dropped = this.#guard.length - kept.length;
    const oldHeaders = on ? this.#guardHeaders.map((offset) => offset - dropped) : [];
    const newHeaders: number[] = [];
    for (let index = starts.length - 1; index >= 0; index--) {
      const offset = starts[index]! * WORD_BYTES - from;
      if (offset <= -CHUNK_HEADER_BYTES) break;
      newHeaders.push(offset + kept.length);
    }
    this.#guard = Buffer.concat([kept, bytes.subarray(from, end)]);
    // A header may begin before the guard and reach into it.
    this.#guardHeaders = [...oldHeaders, ...newHeaders].filter((offset) => offset > -CHUNK_HEADER_BYTES);
    this.#average(wordsIn(found), starts.length);
  }

  #average(words: number, chunks: number): void {
    this.#lateWords = KEPT * this.#lateWords + words;
    this.#lateChunks = KEPT * this.#lateChunks + chunks;
  }

  /** The average; the whole ring while none was seen, for large messages are what is lapped before that. */
  get #wordsPerChunk(): number {
    return this.#lateChunks === 0 ? this.#ring.wordSize : this.#lateWords / this.#lateChunks;
  }

  /** When no chunk could be had whole, the length of the one that is being read still says how long they are. */
  #measureOne(): void {
    const header = new Uint32Array(CHUNK_HEADER_WORDS);
    this.#ring.readPointers();
    this.#ring.read(this.#ring.readPointer, Buffer.from(header.buffer));
    const words = chunkWords(header[0]!);
    if (isCommitted(header, 0) && words <= this.#ring.wordSize) this.#average(words, 1);
  }

  /** A guard without knowledge of chunks: the words before `at` as they are now. */
  #rememberGuard(): void {
    this.#guard = this.#wordsBefore(Math.min(GUARD_WORDS, this.#ring.wordSize - 1));
    this.#guardHeaders = [];
  }

  /** Whether the writer has not lapped us although it wrote `distance` words. */
  #guardIntactBefore(distance: number): boolean {
    return this.#written === distance && this.#guardIntact(this.#ring.wordSize - distance);
  }

  /**
   * Whether the words before `at` are what they were. Of those only the last `gapWords` can be: in a ring that
   * is almost full the new chunks reach round to them.
   */
  #guardIntact(gapWords: number): boolean {
    const bytes = Math.min(this.#guard.length, gapWords * WORD_BYTES);
    const now = this.#wordsBefore(bytes / WORD_BYTES);
    const start = this.#guard.length - bytes;
    for (const offset of this.#guardHeaders) {
      this.#guard.fill(0, Math.max(0, offset), offset + CHUNK_HEADER_BYTES);
      now.fill(0, Math.max(0, offset - start), Math.max(0, offset - start + CHUNK_HEADER_BYTES));
    }
    return now.equals(this.#guard.subarray(start));
  }

  /** Whether the newest frame of a snapshot from word `from` on is still in the ring: nobody came round meanwhile. */
  #lastStillThere(from: number, found: Found): boolean {
    if (found.starts.length === 0) return true;
    const last = chunksOf(found).frame(found.starts.length - 1);
    const again = Buffer.allocUnsafe(last.length);
    this.#ring.read(this.#ring.advance(from, found.starts.at(-1)! + CHUNK_HEADER_WORDS), again);
    return again.equals(last);
  }

  #readWritePointer(): number {
    this.#ring.readPointers();
    return this.#ring.writePointer;
  }

  #wordsBefore(count: number): Buffer {
    const bytes = Buffer.allocUnsafe(count * WORD_BYTES);
    this.#ring.read(this.#ring.advance(this.#at, this.#ring.wordSize - count), bytes);
    return bytes;
  }

  /** Memory for one snapshot; it grows to what is needed, at most the size of the ring. */
  #reserve(bytes: number): Buffer {
    if (this.#memory.length < bytes) {
      const capacity = Math.min(
        this.#ring.wordSize * WORD_BYTES,
        Math.max(bytes, 2 * this.#memory.length, 16_384),
      );
      this.#memory = Buffer.allocUnsafeSlow(capacity);
    }
    return this.#memory.subarray(0, bytes);
  }
}
