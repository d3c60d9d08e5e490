/**
 * Whether a connection is flooded. Following a flood would cost those it belongs to too much, so meanwhile only
 * samples of it are read, for a small share of a processor; how much is missed is counted all the same.
 *
 *                 looks like one, or lapped us               it is one
 *     read in full --------------------------> suspected -----------------> flooded: a sample now and then
 *          ^                                       |                           |
 *          +---------------------------------------+ <-------------------------+
 *                         it is none                   slower for some time
 *
 * Being followed slows a flood down, until it looks like none. So while one is suspected only its pointers are watched.
 * A ring that is half full is read all the same, and nothing is handed out meanwhile: nothing is lost by asking.
 */
import { debugTap as debug } from '../debug';
import { RING_NAMES, type RingName, type TapConnection } from './connections';
import type { Progress, RingFollower } from './ring-follower';

/**
 * Faster than this is a flood: one of the rings, in rounds or in frames a millisecond, on average over a window of
 * time. It is over when it was a good deal slower for some time.
 */
const FLOOD = { rounds: 1 / 130, frames: 30 };
const CLEARLY_FLOOD = { rounds: 1 / 40, frames: 110 };
const STILL_FLOOD = { rounds: 1 / 170, frames: 22 };
const WINDOW_MS = 80;
/** This long no window was fast enough. */
const OVER_MS = 500;
/**
 * A suspect is none as soon as it was slow on average for so long, the first time longer: a flood begins slowly, the
 * more so when somebody begins to look,
 */
const SLOW_MS = 40;
const SLOW_AT_FIRST_MS = 150;
/**
 * and a flood when it wrote as much in this time, some of it before it was suspected, as a flood does: who makes up
 * for a pause does not.
 */
const FAST_MS = 400;
/**
 * Who was quiet for a while has no pause to make up for, so less will do: so fast on average since it is suspected,
 * which is at least so long, and at least half of that was seen.
 */
const SUDDEN_FLOOD = { rounds: 1 / 100, frames: 40 };
const SUDDEN_MS = 100;
/** No faster than this for so long is quiet. */
const QUIET_MS = 1000;
const QUIET = { rounds: 1 / 10_000, frames: 1 };
/** So far back, and up to twice as far, is known what had been written. */
const BEFORE_MS = 100;
/** Of a ring; when more waits in it, it is read all the same. */
const PRESSING_PART = 0.5;
/** A window that did not show anything, because we did not get the processor, is given up after this. */
const MAX_WINDOW_MS = 300;
/** Time in a window that must have been seen, to say that a flood goes on. */
const SEEN_MS = 0.1;
/** Faster than this may be a flood that we slow down, when so much is there to be read; asked again after a time. */
const SUSPICIOUS = { rounds: 1 / 300, frames: 12 };
const SUSPICIOUS_FRAMES = 100;
const SUSPICIOUS_PART = 1 / 8;
const SUSPECT_AGAIN_MS = 1000;
/** Who cannot keep up with it may be the one who slows it down. */
const SUSPECT_AGAIN_LAGGING_MS = 250;
/** Of the rings, what is read at a time: several short looks let others run more evenly than a long one. */
const NEWEST = 1 / 256;

type Limit = typeof FLOOD;
export type FloodState = 'none' | 'suspected' | 'flooded';
/** A stretch of time, and what had been written to each ring when it began. */
interface Window {
  readonly sinceMs: number;
  readonly written: readonly Progress[];
}

/** What is asked of a ring. */
export type WatchedRing = Pick<RingFollower, 'written' | 'rate' | 'unread'>;

export class FloodWatch {
  readonly #rings: readonly WatchedRing[];
  #state: FloodState = 'none';
  #window: Window;
  /** The one before, which tells what a suspect had written before it was one. */
  #earlier: Window;
  #suspectedMs = -Infinity;
  /** When it was last not quiet, as far as we know. */
  #busyMs: number;
  /** It was suspected before, and was none. */
  #acquitted = false;
  /** When a window was last fast. */
  #fastMs = 0;

  /** Of a connection whose rings were just opened; `fresh` when the connection is new as well. */
  constructor(
    readonly connection: TapConnection,
    followers: Record<RingName, WatchedRing>,
    nowMs: number,
    fresh: boolean,
  ) {
    this.#busyMs = fresh ? -Infinity : nowMs;
    this.#rings = RING_NAMES.map((ring) => followers[ring]);
    this.#window = this.#windowFrom(nowMs);
    this.#earlier = this.#window;
    if (isFast(this.#rates, FLOOD)) this.#suspect(nowMs);
  }

  get state(): FloodState {
    return this.#state;
  }

  /**
   * Whether it should have the processors: a flood, or a suspect for the first time. Who is asked about again and
   * again is none, most of the time, and nothing of it is to be missed.
   */
  get goesFirst(): boolean {
    return this.#state === 'flooded' || (this.#state === 'suspected' && !this.#acquitted);
  }

  /** Which part of the rings is worth reading. */
  get newest(): number {
    return this.#state === 'flooded' ? NEWEST : 1;
  }

  /** A suspect is to be read before its rings come round. */
  get pressing(): boolean {
    return this.#state === 'suspected' && this.#rings.some(({ unread }) => unread.rounds > PRESSING_PART);
  }

  /** To be called after the rings were sampled; `lagging` when what was read before still waits. */
  judge(nowMs: number, lagging: boolean): FloodState {
    switch (this.#state) {
      case 'none':
        this.#judgeInnocent(nowMs, lagging);
        break;
      case 'suspected':
        this.#judgeSuspect(nowMs);
        break;
      case 'flooded':
        this.#judgeFlood(nowMs);
        break;
    }
    return this.#state;
  }

  /** It lapped us. That may have been an accident, and no more is lost by finding out. */
  lapped(nowMs: number): void {
    if (this.#state === 'none') this.#suspect(nowMs);
  }

  /** Nothing follows that could be disturbed: all is to be read. */
  end(): void {
    this.#state = 'none';
    this.#suspectedMs = Infinity;
  }

  get #rates(): readonly Progress[] {
    return this.#rings.map(({ rate }) => rate);
  }

  #judgeInnocent(nowMs: number, lagging: boolean): void {
    if (this.#isSuspicious(nowMs, lagging)) {
      this.#suspect(nowMs);
    } else if (nowMs - this.#window.sinceMs >= BEFORE_MS) {
      if (isFast(this.#ratesOf(this.#window), QUIET)) this.#busyMs = nowMs;
      this.#earlier = this.#window;
      this.#window = this.#windowFrom(nowMs);
    }
  }

  #isSuspicious(nowMs: number, lagging: boolean): boolean {
    const againMs = lagging ? SUSPECT_AGAIN_LAGGING_MS : SUSPECT_AGAIN_MS;
    if (nowMs - this.#suspectedMs < againMs) return false;
    return this.#rings.some(
      ({ unread, rate }) =>
        (unread.frames >= SUSPICIOUS_FRAMES || unread.rounds >= SUSPICIOUS_PART) &&
        isFast([rate], SUSPICIOUS),
    );
  }

  #suspect(nowMs: number): void {
    this.#suspectedMs = nowMs;
    this.#become('suspected', this.#rates);
    this.#window = this.#windowFrom(nowMs);
  }

  #judgeSuspect(nowMs: number): void {
    const windowMs = nowMs - this.#window.sinceMs;
    if (windowMs < SLOW_MS) return;
    const rates = this.#ratesOf(this.#window);
    const seen = rates.filter(({ ms }) => ms >= windowMs / 2);
    const known = seen.length === rates.length;
    const late = windowMs >= FAST_MS;
    const slowMs = this.#acquitted ? SLOW_MS : SLOW_AT_FIRST_MS;
    // Who did not get the processor in time has to take what he knows of late for true.
    const fast = late
      ? isFast(known ? seen : this.#rates, FLOOD)
      : isFast(inNoLess(FAST_MS, this.#ratesOf(this.#earlier)), FLOOD);
    const wasQuiet = this.#suspectedMs - this.#busyMs >= QUIET_MS;
    const sudden = wasQuiet && windowMs >= SUDDEN_MS && isFast(inNoLess(SUDDEN_MS / 2, rates), SUDDEN_FLOOD);
    if (fast || sudden || isFast(seen, CLEARLY_FLOOD)) {
      this.#become('flooded', rates);
      this.#fastMs = nowMs;
      this.#window = this.#windowFrom(nowMs);
    } else if (late || (known && windowMs >= slowMs && !isFast(seen, FLOOD))) {
      this.#acquit(nowMs, rates);
      this.#suspectedMs = nowMs;
      this.#acquitted = true;
    }
  }

  #judgeFlood(nowMs: number): void {
    const windowMs = nowMs - this.#window.sinceMs;
    if (windowMs < WINDOW_MS) return;
    const rates = this.#ratesOf(this.#window);
    const seen = rates.filter(({ ms }) => ms >= SEEN_MS);
    const known = seen.length === rates.length || isFast(seen, FLOOD);
    // Who did not get the processor in time waits for a better window; who is lapped whenever he looks waits in vain.
    if (!known && windowMs <= MAX_WINDOW_MS) return;
    this.#window = this.#windowFrom(nowMs);
    if (isFast(known ? seen : this.#rates, STILL_FLOOD)) this.#fastMs = nowMs;
    else if (nowMs - this.#fastMs > OVER_MS) this.#acquit(nowMs, rates);
  }

  /** What it wrote before is not held against it. */
  #acquit(nowMs: number, rates: readonly Progress[]): void {
    this.#become('none', rates);
    this.#busyMs = nowMs;
    this.#window = this.#windowFrom(nowMs);
    this.#earlier = this.#window;
  }

  #become(state: FloodState, rates: readonly Progress[]): void {
    this.#state = state;
    const perMs = rates.map(({ frames, ms }) => `${(frames / ms).toFixed(1)} in ${ms.toFixed(0)} ms`);
    debug('flood by %d: %s (messages a millisecond %s)', this.connection.clientPid, state, perMs.join(', '));
  }

  #windowFrom(sinceMs: number): Window {
    return { sinceMs, written: this.#rings.map(({ written }) => written) };
  }

  #ratesOf({ written }: Window): Progress[] {
    return this.#rings.map((ring, index) => {
      const from = written[index]!;
      const to = ring.written;
      const rounds = to.rounds - from.rounds;
      // By the size that frames have now: what it was before changes with every look.
      const frames = to.rounds === 0 ? 0 : (rounds * to.frames) / to.rounds;
      return { rounds, frames, ms: to.ms - from.ms };
    });
  }
}

/** As if it had taken `ms` at least. */
function inNoLess(ms: number, rates: readonly Progress[]): Progress[] {
  return rates.map((rate) => ({ ...rate, ms: Math.max(rate.ms, ms) }));
}

/** Of one ring at least. */
function isFast(rates: readonly Progress[], limit: Limit): boolean {
  return rates.some(({ rounds, frames, ms }) => rounds > ms * limit.rounds || frames > ms * limit.frames);
}
