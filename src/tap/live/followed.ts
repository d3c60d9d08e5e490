/**
 * A followed connection: its three rings, and whether the tap reads them in full or only samples them.
 *
 * Reading a flood in full would slow it down: on two CPUs the flood needs all of both. So the tap only samples a connection
 * that stays too fast: it reads the newest messages, a few times per second. The limit is a message rate, not the tap's own
 * cost: cold code is so slow that every connection would seem too expensive.
 */
import { join } from 'node:path';
import { CpgError, isCpgError } from '../../errors';
import { forEachRing, RING_NAMES, ringStem, type RingName } from '../../ring/paths';
import type { TapConnection } from '../connections';
import type { RingDelta } from './backlog';
import { RingFollower, type RingSnapshot } from './ring-follower';

/** Requests last, so that the request of every visible reply is visible, too. */
export const READING_ORDER = ['event', 'response', 'request'] as const satisfies readonly RingName[];
/** The part of a ring that a sample of it reads. */
const SAMPLED_PART = 1 / 256;

/** Faster is too fast: messages per millisecond in all rings, where each message of a member is in two, */
const MAX_FRAMES_PER_MS = 60;
/** or rounds of a ring per millisecond: 20 MB per second. */
const MAX_ROUNDS_PER_MS = 1 / 50;
/** Samples are enough until it is slower than this part of that. */
const STILL_FAST = 0.75;
/** The rate must have been above or below the limit for this long. */
const FAST_MS = 100;
const SLOW_MS = 500;

export class Followed {
  readonly connection: TapConnection;
  /** The tap started before it. */
  readonly #fresh: boolean;
  readonly #followers: Record<RingName, RingFollower>;
  /** Older frames found at the opening, until the first read(). */
  #first: Record<RingName, RingSnapshot> | undefined;
  /** Only samples of it are read. */
  sampled = false;
  /** The next one is not read before this. */
  nextSampleMs = 0;
  readonly #openedMs: number;
  /** When it was last as fast as `sampled` says. */
  #agreedMs: number;
  #judgedMs = 0;

  /** Opens the rings and reads the older frames in them. Throws the errors of openReadOnly(). */
  constructor(root: string, directory: string, connection: TapConnection, fresh: boolean, nowMs: number) {
    this.connection = connection;
    this.#fresh = fresh;
    this.#openedMs = nowMs;
    this.#agreedMs = nowMs;
    this.#followers = forEachRing((ring) =>
      openFollower(ring, ringStem(join(root, directory), ring, connection.service)),
    );
    try {
      this.#first = {
        event: this.#followers.event.begin(nowMs),
        response: this.#followers.response.begin(nowMs),
        request: this.#followers.request.begin(nowMs),
      };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Reads the writer position of one ring. Throws CS_ERR_MESSAGE_ERROR if it is no longer a ring. */
  sample(ring: RingName, nowMs: number): void {
    this.#followers[ring].sample(nowMs);
  }

  /** The connection is new or seems too fast; the tap has not decided yet. */
  get undecided(): boolean {
    const isNew = this.#fresh && this.#judgedMs - this.#openedMs < FAST_MS;
    return !this.sampled && (isNew || this.#agreedMs < this.#judgedMs);
  }

  /** Decides whether to sample; true if that has changed. */
  judge(nowMs: number): boolean {
    this.#judgedMs = nowMs;
    const { frames, rounds } = this.rate;
    const scale = this.sampled ? STILL_FAST : 1;
    const fast = frames > MAX_FRAMES_PER_MS * scale || rounds > MAX_ROUNDS_PER_MS * scale;
    if (fast === this.sampled) this.#agreedMs = nowMs;
    if (nowMs - this.#agreedMs < (fast ? FAST_MS : SLOW_MS)) return false;
    this.sampled = fast;
    this.#agreedMs = nowMs;
    return true;
  }

  /** The new frames in the rings; only the newest when sampling. */
  read(keepMemory: boolean): RingDelta[] {
    const deltas = this.#takeFirst();
    const keep = keepMemory || deltas.length > 0;
    for (const ring of READING_ORDER) {
      const follower = this.#followers[ring];
      if (keep) follower.keepMemory();
      const snapshot = follower.read(this.sampled ? SAMPLED_PART : 1);
      if (snapshot.chunks.length > 0) deltas.push({ ring, snapshot, old: false });
    }
    return deltas;
  }

  /** Messages per millisecond in all rings, and rounds per millisecond in the fastest, of late. */
  get rate(): { frames: number; rounds: number } {
    const rates = RING_NAMES.map((ring) => this.#followers[ring].rate);
    return {
      frames: rates.reduce((sum, { frames }) => sum + frames, 0),
      rounds: Math.max(...rates.map(({ rounds }) => rounds)),
    };
  }

  get unreportedMissed(): number {
    return RING_NAMES.reduce((sum, ring) => sum + this.#followers[ring].unreportedMissed, 0);
  }

  /** Counts dropped frames as missed. */
  addMissed(dropped: Record<RingName, number>): void {
    for (const ring of RING_NAMES) this.#followers[ring].addMissed(dropped[ring]);
  }

  close(): void {
    for (const ring of RING_NAMES) this.#followers[ring].close();
  }

  #takeFirst(): RingDelta[] {
    const first = this.#first;
    this.#first = undefined;
    if (first === undefined) return [];
    return READING_ORDER.flatMap((ring) => {
      const { chunks, missed } = first[ring];
      // Losses before the tap started do not count.
      const snapshot = { chunks, missed: this.#fresh ? missed : 0 };
      return chunks.length === 0 ? [] : [{ ring, snapshot, old: !this.#fresh }];
    });
  }
}

function openFollower(ring: RingName, stem: string): RingFollower {
  try {
    return RingFollower.open(stem);
  } catch (error) {
    if (!isCpgError(error)) throw error;
    const { code, what, reason, remedy } = error;
    throw new CpgError(code, `its ${ring} ring: ${what}`, { cause: error, reason, remedy });
  }
}
