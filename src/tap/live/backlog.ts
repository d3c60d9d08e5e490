/**
 * Frames read from the rings and not yet yielded. Reading the rings is urgent, the use of the frames is not: a consumer
 * that is slow for a while, because of cold code or a busy disk, misses nothing while this queue has room.
 */
import type { RingName, TapConnection } from '../connections';
import type { TapFrame } from '../frames';
import { CausalOrder, type Round } from './order';
import type { RingSnapshot } from './ring-follower';

/** Frames per batch, so that the next round of the rings comes soon. */
const PIECE_FRAMES = 64;
/** Frames of a connection that are kept when what waits of it is dropped. */
export const KEPT_FRAMES = 100;
/** Bytes that may wait; some seconds of what can be followed. */
const MAX_BYTES = 64 * 1024 * 1024;

/** One batch of new frames. */
export interface TapBatch {
  /** Time of the round, in nanoseconds since 1970. */
  timeNs: bigint;
  /** Connections that are followed from now on. */
  opened: TapConnection[];
  /** Connections that ended. */
  closed: TapConnection[];
  /** Valid until the next batch is requested: copy frames to keep them. */
  frames: TapFrame[];
  /** Connections that cannot be followed, with the reason; each is reported once. */
  refused: { directory: string; reason: string }[];
  /** Remarks on followed connections: ended processes, pids of another pid namespace. */
  remarks: { directory: string; text: string }[];
  /** Missed frames of connections that ended, when no frame came after them that could report them. */
  unreportedMissed: number;
}

/** What was new in a ring of a connection; `old` when it was there before the tap. */
export interface RingDelta {
  readonly ring: RingName;
  readonly snapshot: RingSnapshot;
  readonly old: boolean;
}

/** The result of one round. */
export interface RoundResult extends Omit<TapBatch, 'frames' | 'remarks'> {
  readonly remarks?: TapBatch['remarks'];
  readonly deltas: Map<TapConnection, RingDelta[]>;
  /** It is yielded even if nothing was found. */
  readonly first: boolean;
  /** Nothing follows: what was kept back for its order goes out too. */
  readonly last: boolean;
}

export class Backlog {
  readonly #order = new CausalOrder();
  #rounds: RoundResult[] = [];
  #pieces: TapBatch[] = [];
  #bytes = 0;
  /** Nothing was found in the round that was added last. */
  #endsQuietly = false;

  get empty(): boolean {
    return this.#rounds.length === 0 && this.#pieces.length === 0;
  }

  /** Number of waiting frames. */
  get frames(): number {
    const pieces = this.#pieces.reduce((sum, { frames }) => sum + frames.length, 0);
    return this.#rounds.reduce((sum, result) => sum + framesIn(result), pieces);
  }

  get full(): boolean {
    return this.#bytes >= MAX_BYTES;
  }

  add(result: RoundResult): void {
    const { deltas, first, last } = result;
    const news = deltas.size > 0 || isAboutConnections(result);
    // What is kept back for its order waits for one more round, even if nothing was found in that.
    const awaited = this.empty ? this.#order.waiting : !this.#endsQuietly;
    if (!news && !first && !last && !awaited) return;
    this.#rounds.push(result);
    this.#bytes += bytesOf(result);
    this.#endsQuietly = !news;
  }

  /**
   * Drops what waits of a connection, but for its first frames, and returns how many frames of each ring that were.
   */
  drop(connection: TapConnection): Record<RingName, number> {
    const dropped: Record<RingName, number> = { request: 0, response: 0, event: 0 };
    let room = KEPT_FRAMES;
    for (const piece of this.#pieces) {
      piece.frames = piece.frames.filter((frame) => {
        const kept = frame.connection !== connection || room-- > 0;
        if (!kept && !frame.old) dropped[frame.ring] += 1 + frame.missed;
        return kept;
      });
    }
    room = Math.max(0, room);
    for (const result of this.#rounds) {
      this.#bytes -= bytesOf(result);
      const kept: RingDelta[] = [];
      for (const delta of result.deltas.get(connection) ?? []) {
        const { ring, snapshot, old } = delta;
        const chunks = snapshot.chunks.oldest(room);
        room -= chunks.length;
        if (chunks.length > 0) kept.push({ ...delta, snapshot: { ...snapshot, chunks } });
        if (!old)
          dropped[ring] += snapshot.chunks.length - chunks.length + (chunks.length > 0 ? 0 : snapshot.missed);
      }
      if (kept.length > 0) result.deltas.set(connection, kept);
      else result.deltas.delete(connection);
      this.#bytes += bytesOf(result);
    }
    return dropped;
  }

  /** The oldest that waits, if that is anything to yield. */
  take(): TapBatch | undefined {
    if (this.#pieces.length === 0) {
      const result = this.#rounds.shift();
      if (result === undefined) return undefined;
      this.#bytes -= bytesOf(result);
      this.#pieces = this.#piecesOf(result);
    }
    return this.#pieces.shift();
  }

  #piecesOf(result: RoundResult): TapBatch[] {
    const { timeNs, opened, closed, refused, remarks = [], unreportedMissed, first, last } = result;
    const frames = this.#order.order(roundsOf(result), timeNs);
    for (const connection of closed) frames.push(...this.#order.flush(connection));
    if (last) frames.push(...this.#order.flush());
    if (frames.length === 0 && !first && !isAboutConnections(result)) return [];
    const count = Math.max(1, Math.ceil(frames.length / PIECE_FRAMES));
    return Array.from({ length: count }, (_, index) => ({
      timeNs,
      // A connection is there before its frames, and until after them.
      opened: index === 0 ? opened : [],
      refused: index === 0 ? refused : [],
      remarks: index === 0 ? remarks : [],
      frames: frames.slice(index * PIECE_FRAMES, (index + 1) * PIECE_FRAMES),
      closed: index === count - 1 ? closed : [],
      unreportedMissed: index === count - 1 ? unreportedMissed : 0,
    }));
  }
}

/** Whether there is anything to report besides frames. */
function isAboutConnections({
  opened,
  closed,
  refused,
  remarks = [],
  unreportedMissed,
}: RoundResult): boolean {
  return opened.length + closed.length + refused.length + remarks.length + unreportedMissed > 0;
}

function roundsOf({ deltas, timeNs }: RoundResult): Map<TapConnection, Round> {
  const rounds = new Map<TapConnection, Round>();
  for (const [connection, seen] of deltas) {
    const round: Round = { request: [], response: [], event: [] };
    for (const { ring, snapshot, old } of seen)
      round[ring].push(...framesOf(connection, ring, snapshot, old, timeNs));
    rounds.set(connection, round);
  }
  return rounds;
}

function framesOf(
  connection: TapConnection,
  ring: RingName,
  { chunks, missed }: RingSnapshot,
  old: boolean,
  timeNs: bigint,
): TapFrame[] {
  return Array.from({ length: chunks.length }, (_, index) => ({
    connection,
    ring,
    timeNs,
    bytes: chunks.frame(index),
    old,
    consumed: chunks.isConsumed(index),
    missed: index === 0 ? missed : 0,
  }));
}

function framesIn({ deltas }: RoundResult): number {
  return [...deltas.values()].flat().reduce((sum, { snapshot }) => sum + snapshot.chunks.length, 0);
}

function bytesOf({ deltas }: RoundResult): number {
  let bytes = 0;
  for (const seen of deltas.values()) for (const { snapshot } of seen) bytes += snapshot.chunks.bytes;
  return bytes;
}
