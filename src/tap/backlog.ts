/**
 * What was found in the rings and not handed out yet. Looking at the rings is urgent, what happens to the frames
 * is not: whoever is slow for a while, because his code is not compiled yet or his disk is busy, misses nothing as
 * long as this holds it.
 */
import type { RingName, TapConnection } from './connections';
import type { TapFrame } from './frames';
import { CausalOrder, type Round } from './order';
import type { RingLook } from './ring-follower';
import type { TapBatch } from './tap';

/** Frames that are handed out at a time, so that the rings need not wait long for the next look. */
const PIECE_FRAMES = 64;
/** Frames of a connection that are kept when what waits of it is dropped. */
const KEPT_FRAMES = 100;
/** Bytes that may wait; some seconds of what can be followed. */
const MAX_BYTES = 64 * 1024 * 1024;

/** What was new in a ring of a connection; `old` when it was there before the tap. */
export interface Sight {
  readonly ring: RingName;
  readonly look: RingLook;
  readonly old: boolean;
}

/** What one round of looks found. */
export interface Findings extends Omit<TapBatch, 'frames'> {
  readonly sights: Map<TapConnection, Sight[]>;
  /** It is told even if nothing was found. */
  readonly first: boolean;
  /** Nothing follows: what was kept back for its order goes out too. */
  readonly last: boolean;
}

export class Backlog {
  readonly #order = new CausalOrder();
  #rounds: Findings[] = [];
  #pieces: TapBatch[] = [];
  #bytes = 0;
  /** Nothing was found in the round that was added last. */
  #endsQuietly = false;

  get empty(): boolean {
    return this.#rounds.length === 0 && this.#pieces.length === 0;
  }

  get full(): boolean {
    return this.#bytes >= MAX_BYTES;
  }

  add(findings: Findings): void {
    const { sights, first, last } = findings;
    const news = sights.size > 0 || tellsOfConnections(findings);
    // What is kept back for its order waits for one more round, even if nothing was found in that.
    const awaited = this.empty ? this.#order.waiting : !this.#endsQuietly;
    if (!news && !first && !last && !awaited) return;
    this.#rounds.push(findings);
    this.#bytes += bytesOf(findings);
    this.#endsQuietly = !news;
  }

  /**
   * Drops what waits of a connection, but for its first frames, and returns how many frames of each ring that were.
   */
  drop(connection: TapConnection): Record<RingName, number> {
    const dropped: Record<RingName, number> = { request: 0, response: 0, event: 0 };
    let room = KEPT_FRAMES;
    for (const findings of this.#rounds) {
      this.#bytes -= bytesOf(findings);
      const kept: Sight[] = [];
      for (const sight of findings.sights.get(connection) ?? []) {
        const { ring, look, old } = sight;
        const chunks = look.chunks.oldest(room);
        room -= chunks.length;
        if (chunks.length > 0) kept.push({ ...sight, look: { ...look, chunks } });
        if (!old) dropped[ring] += look.chunks.length - chunks.length + (chunks.length > 0 ? 0 : look.missed);
      }
      if (kept.length > 0) findings.sights.set(connection, kept);
      else findings.sights.delete(connection);
      this.#bytes += bytesOf(findings);
    }
    return dropped;
  }

  /** The oldest that waits, if it is anything to hand out. */
  take(): TapBatch | undefined {
    if (this.#pieces.length === 0) {
      const findings = this.#rounds.shift();
      if (findings === undefined) return undefined;
      this.#bytes -= bytesOf(findings);
      this.#pieces = this.#piecesOf(findings);
    }
    return this.#pieces.shift();
  }

  #piecesOf(findings: Findings): TapBatch[] {
    const { timeNs, opened, closed, refused, untold, first, last } = findings;
    const frames = this.#order.order(roundsOf(findings), timeNs);
    for (const connection of closed) frames.push(...this.#order.flush(connection));
    if (last) frames.push(...this.#order.flush());
    if (frames.length === 0 && !first && !tellsOfConnections(findings)) return [];
    const count = Math.max(1, Math.ceil(frames.length / PIECE_FRAMES));
    return Array.from({ length: count }, (_, index) => ({
      timeNs,
      // A connection is there before its frames, and until after them.
      opened: index === 0 ? opened : [],
      refused: index === 0 ? refused : [],
      frames: frames.slice(index * PIECE_FRAMES, (index + 1) * PIECE_FRAMES),
      closed: index === count - 1 ? closed : [],
      untold: index === count - 1 ? untold : 0,
    }));
  }
}

/** Whether there is anything to tell besides frames. */
function tellsOfConnections({ opened, closed, refused, untold }: Findings): boolean {
  return opened.length + closed.length + refused.length + untold > 0;
}

function roundsOf({ sights, timeNs }: Findings): Map<TapConnection, Round> {
  const rounds = new Map<TapConnection, Round>();
  for (const [connection, seen] of sights) {
    const round: Round = { request: [], response: [], event: [] };
    for (const { ring, look, old } of seen)
      round[ring].push(...framesOf(connection, ring, look, old, timeNs));
    rounds.set(connection, round);
  }
  return rounds;
}

function framesOf(
  connection: TapConnection,
  ring: RingName,
  { chunks, missed }: RingLook,
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

function bytesOf({ sights }: Findings): number {
  let bytes = 0;
  for (const seen of sights.values()) for (const { look } of seen) bytes += look.chunks.bytes;
  return bytes;
}
