/**
 * Follows all connections of libqb services on this machine, and only ever reads.
 *
 * A round looks at every ring and hands out what was new as one batch. Events are looked at first, then
 * responses, then requests, so that the request of a reply that was seen is in sight too; order.ts puts them
 * in order.
 *
 * How long to wait between rounds depends on how much of the rings was new: a ring must not fill up between
 * two looks, and a tap that looks all the time would take a processor away from those it watches.
 */
import { watch, type FSWatcher } from 'node:fs';
import { debugTap as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import {
  connectionDirectories,
  describeConnection,
  isConnectionDirectory,
  RING_NAMES,
  ringStem,
  SHM_DIRECTORY,
  type RingName,
  type TapConnection,
} from './connections';
import type { TapFrame } from './frames';
import { CausalOrder, type Round } from './order';
import { RingFollower, type Progress, type RingLook } from './ring-follower';

const MIN_PAUSE_MS = 1;
const MAX_PAUSE_MS = 5;
/** Above this share of a ring in one look there is no pause at all, above the other one the shortest. */
const HURRY_FILL = 0.25;
const BUSY_FILL = 0.1;
/**
 * A connection is flooded while a ring of it is faster than this, in rounds or in frames a millisecond, on average
 * over a window of time: following it would cost those it belongs to too much. Meanwhile it gets a small share of a
 * processor. Being watched slows a flood down, so it is over only when it was a good deal slower for some time. A
 * connection is suspected of a flood when we were lapped, or when it looks like one at first sight, until a window
 * has shown whether it is.
 */
const FLOOD = { rounds: 1 / 130, frames: 40 };
const STILL_FLOOD = { rounds: 1 / 170, frames: 22 };
const FLOOD_WINDOW_MS = 80;
/** This long no window was fast enough. */
const FLOOD_OVER_MS = 500;
/** Shorter while it is only suspected: meanwhile nothing is read. */
const SUSPECT_WINDOW_MS = 40;
/** A window that did not show anything is given up after this. */
const MAX_WINDOW_MS = 300;
/** Of a processor, for a flood. */
const FLOOD_SHARE = 0.02;
/** Of its rings, what is read at a time: several short looks let others run more evenly than a long one. */
const FLOOD_NEWEST = 1 / 64;
const MIN_FLOOD_PAUSE_MS = 100;
const MAX_FLOOD_PAUSE_MS = 500;
/** Between two looks how far a writer is that may be flooding. */
const SAMPLE_MS = 8;
/**
 * Each wake-up of ours takes a processor from those who flood. So of a flood that is certain a few looks close
 * together tell the rate, and the laps until the next few are reckoned from that. The first two are so close that
 * the largest messages do not get round in between, and tell how far apart the third may be.
 */
const FLOOD_SHORT_MS = 0.1;
const FLOOD_LONG_MS = 12;
const FLOOD_REST_MS = 70;
/** Time in a window that must have been seen, to say that a flood is over. */
const FLOOD_SEEN_MS = 0.1;
/** A look at a quiet ring takes a few microseconds; pauses keep them below some percent of a processor. */
const PAUSE_PER_RING_MS = 0.05;
/** A daemon that makes a connection is done long before this; what is still no connection then is none. */
const INCOMPLETE_MS = 1000;
const GONE_TOO_SOON = 'it was gone before it could be opened';
/** How old the list of directories may get. */
const LIST_AGAIN_MS = 200;
/** Names of directories that are kept to know them again when their removal is announced. */
const MAX_REMEMBERED = 100_000;
/** Connections that are followed at a time; three rings each, up to a megabyte of memory each. */
export const MAX_CONNECTIONS = 1000;

export interface TapOptions {
  /** Where the rings are. Default /dev/shm. */
  directory?: string;
  /** Whether to follow a connection; all when undefined. */
  accept?: (connection: TapConnection) => boolean;
  signal?: AbortSignal;
}

export interface TapBatch {
  timeNs: bigint;
  opened: TapConnection[];
  closed: TapConnection[];
  /** Valid until the next batch is asked for: copy what is to be kept. */
  frames: TapFrame[];
  /** Connections that cannot be followed, with the reason; each is told once. */
  refused: { directory: string; reason: string }[];
  /** Missed frames of connections that ended, when no frame came after them that could tell of them. */
  untold: number;
}

interface Followed {
  connection: TapConnection;
  followers: Record<RingName, RingFollower>;
  /** What was there when it was opened, until the first round. */
  first: Record<RingName, RingLook> | undefined;
  /** The tap was there before it. */
  fresh: boolean;
  flood: Flood | undefined;
  window: Window;
}

interface Flood {
  /** When it is looked at again, if it lasts. */
  untilMs: number;
  /** When a window was last fast; undefined while none was seen. */
  fastMs: number | undefined;
}

/** A stretch of time, and what had been written to each ring when it began. */
interface Window {
  sinceMs: number;
  written: Progress[];
}

export class Tap {
  readonly #root: string;
  readonly #accept: (connection: TapConnection) => boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #followed = new Map<string, Followed>();
  /** Directories that are not followed: for ever, or until a time because they are not complete yet. */
  readonly #ignored = new Map<string, { untilMs: number; reason: string }>();
  /** Directories that appeared, and those ever dealt with: what is only in the first set was gone too soon. */
  readonly #announced = new Set<string>();
  readonly #dealtWith = new Set<string>();
  readonly #order = new CausalOrder();
  #present: ReadonlySet<string> = new Set();
  #listedMs = -Infinity;
  #watched = false;
  #nextId = 1;
  #firstRound = true;
  /** The last pause was the one between two series of samples. */
  #rested = true;
  #wake: (() => void) | undefined;

  constructor({ directory = SHM_DIRECTORY, accept = () => true, signal }: TapOptions = {}) {
    this.#root = directory;
    this.#accept = accept;
    this.#signal = signal;
  }

  /** Connections that are followed now. */
  get connections(): TapConnection[] {
    return [...this.#followed.values()].map(({ connection }) => connection);
  }

  /**
   * Batches from now on, the first one at once with what is still in the rings from before. Ends when the
   * signal aborts. Throws CpgError when the directory cannot be read. What happens between two batches is
   * counted as missed once it has been overwritten, so a slow consumer loses nothing but messages.
   */
  async *batches(): AsyncGenerator<TapBatch, void> {
    const watcher = this.#watch();
    try {
      let pauseMs = MIN_PAUSE_MS;
      for (;;) {
        // The last look comes after the end was asked for: what was written before it is not lost.
        const last = this.#signal?.aborted === true;
        const startedMs = cpuMs();
        const { batch, fill, flooded } = this.#round(last);
        const { opened, closed, frames, refused, untold } = batch;
        if (last) frames.push(...this.#order.flush());
        if (this.#firstRound || opened.length + closed.length + frames.length + refused.length + untold > 0)
          yield batch;
        this.#firstRound = false;
        if (last) return;
        pauseMs = this.#nextPause(pauseMs, fill, frames.length > 0);
        if (flooded.length > 0) sitOut(flooded, cpuMs() - startedMs);
        await this.#pause(fill > HURRY_FILL ? 0 : pauseMs);
        while (this.#onlySamples()) await this.#pause(this.#samplePause());
      }
    } finally {
      watcher?.close();
      for (const { followers } of this.#followed.values()) closeAll(followers);
      this.#followed.clear();
    }
  }

  /** Samples the floods and returns true when there was nothing else to do: a round would take many times as long. */
  #onlySamples(): boolean {
    const now = performance.now();
    if (this.#followed.size === 0 || this.#signal?.aborted === true) return false;
    if (this.#announced.size > 0 || now - this.#listedMs >= LIST_AGAIN_MS) return false;
    try {
      for (const followed of this.#followed.values()) {
        if (followed.flood === undefined || !sitsOut(followed, now)) return false;
      }
      return true;
    } catch {
      // The round that comes now finds the same, and tells it.
      return false;
    }
  }

  #nextPause(pauseMs: number, fill: number, busy: boolean): number {
    const followed = [...this.#followed.values()];
    const floods = followed.filter(({ flood }) => flood !== undefined).length;
    // Nothing is to be read for a while: only how far the writers are is looked at.
    if (floods > 0 && floods === followed.length) return this.#samplePause();
    const least = Math.max(MIN_PAUSE_MS, followed.length * RING_NAMES.length * PAUSE_PER_RING_MS);
    const most = Math.max(floods > 0 ? SAMPLE_MS : MAX_PAUSE_MS, least);
    if (fill > BUSY_FILL || this.#expectsMore()) return least;
    return Math.min(most, Math.max(least, busy ? pauseMs : pauseMs * 2));
  }

  /** Until the next sample of connections that are all flooded. */
  #samplePause(): number {
    const followed = [...this.#followed.values()];
    if (followed.some(({ flood }) => flood?.fastMs === undefined)) return SAMPLE_MS;
    const rested = this.#rested;
    this.#rested = true;
    if (!rested) return FLOOD_REST_MS;
    block(FLOOD_SHORT_MS);
    const rings = followed.flatMap(({ followers }) => RING_NAMES.map((ring) => followers[ring]));
    try {
      for (const ring of rings) ring.sample(performance.now());
    } catch {
      // The round that comes soon finds the same, and tells it.
      return MIN_PAUSE_MS;
    }
    const longMs = Math.min(FLOOD_LONG_MS, ...rings.map(({ sureForMs }) => sureForMs));
    if (longMs < MIN_PAUSE_MS) return FLOOD_REST_MS;
    this.#rested = false;
    return longMs;
  }

  /** A connection is being made. */
  #expectsMore(): boolean {
    const now = Date.now();
    for (const { untilMs } of this.#ignored.values()) if (untilMs !== Infinity && untilMs > now) return true;
    return false;
  }

  #round(last: boolean): { batch: TapBatch; fill: number; flooded: Followed[] } {
    const present = this.#directories();
    const refused: TapBatch['refused'] = [];
    const opened = [...present].flatMap((directory) => this.#open(directory, refused));
    for (const directory of this.#comeAndGone(present)) {
      refused.push({ directory, reason: GONE_TOO_SOON });
    }
    const gone = [...this.#followed.keys()].filter((directory) => !present.has(directory));
    for (const [directory, { untilMs }] of this.#ignored) {
      if (present.has(directory)) continue;
      this.#ignored.delete(directory);
      // It was seen, but never complete.
      if (untilMs !== Infinity) refused.push({ directory, reason: GONE_TOO_SOON });
    }

    const timeNs = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
    const awaited = last ? this.#followed.keys() : gone;
    for (const directory of awaited) this.#followed.get(directory)!.flood = undefined;
    const { rounds, fill, broken, flooded } = this.#look(timeNs);
    const frames = this.#order.order(rounds, timeNs);
    for (const { directory, reason } of broken) refused.push({ directory, reason });
    const ending = [...gone, ...broken.map(({ directory }) => directory)];
    const untold = (last ? [...this.#followed.keys()] : ending).reduce(
      (sum, directory) => sum + untoldOf(this.#followed.get(directory)),
      0,
    );
    const closed = ending.flatMap((directory) => this.#close(directory));
    for (const connection of closed) frames.push(...this.#order.flush(connection));
    return { batch: { timeNs, opened, closed, frames, refused, untold }, fill, flooded };
  }

  /** Connections too short for us: the tap must not hide that there were any. */
  #comeAndGone(present: ReadonlySet<string>): string[] {
    if (this.#dealtWith.size > MAX_REMEMBERED) this.#dealtWith.clear();
    for (const directory of present) this.#dealtWith.add(directory);
    for (const directory of this.#ignored.keys()) this.#dealtWith.add(directory);
    // Their removal is announced as well.
    const missed = [...this.#announced].filter((directory) => !this.#dealtWith.has(directory));
    this.#announced.clear();
    for (const directory of missed) this.#dealtWith.add(directory);
    return missed;
  }

  /** The directories there are; read anew when one has come or gone, and now and then in case nobody says so. */
  #directories(): ReadonlySet<string> {
    const now = performance.now();
    const known = this.#watched && this.#announced.size === 0 && !this.#expectsMore();
    if (known && now - this.#listedMs < LIST_AGAIN_MS) return this.#present;
    this.#listedMs = now;
    try {
      this.#present = new Set(connectionDirectories(this.#root));
      return this.#present;
    } catch (error) {
      throw new CpgError('CS_ERR_ACCESS', `${this.#root} cannot be read (${codeOf(error)})`, {
        cause: error,
        remedy: 'run it where the daemon runs, with its /dev/shm',
      });
    }
  }

  /** Begins to follow a connection that is new; a list of one, or of none. */
  #open(directory: string, refused: TapBatch['refused']): TapConnection[] {
    if (this.#followed.has(directory)) return [];
    const ignored = this.#ignored.get(directory);
    if (ignored?.untilMs === Infinity) return [];
    const refuse = (reason: string): [] => {
      this.#ignored.set(directory, { untilMs: Infinity, reason });
      refused.push({ directory, reason });
      return [];
    };
    try {
      const described = describeConnection(this.#root, directory);
      if (described === undefined) return this.#later(directory, 'its rings are not there', refuse);
      if (this.#followed.size >= MAX_CONNECTIONS) return refuse(`more than ${MAX_CONNECTIONS} connections`);
      const connection = { id: this.#nextId, ...described };
      if (!this.#accept(connection)) {
        this.#ignored.set(directory, { untilMs: Infinity, reason: 'not wanted' });
        return [];
      }
      const followers = openRings(this.#root, directory, connection.service);
      const now = performance.now();
      const first = {
        event: followers.event.begin(now),
        response: followers.response.begin(now),
        request: followers.request.begin(now),
      };
      this.#nextId++;
      this.#ignored.delete(directory);
      this.#followed.set(directory, {
        connection,
        followers,
        first,
        fresh: !this.#firstRound,
        flood: isFast(
          RING_NAMES.map((ring) => followers[ring].rate),
          FLOOD,
        )
          ? { untilMs: now + SUSPECT_WINDOW_MS, fastMs: undefined }
          : undefined,
        window: windowFrom(followers, now),
      });
      return [connection];
    } catch (error) {
      if (codeOf(error) === 'EACCES' || codeOf(error) === 'EPERM') return refuse('permission denied');
      return this.#later(directory, messageOf(error), refuse);
    }
  }

  /** Not complete: the daemon may be making it, or taking it away. */
  #later(directory: string, reason: string, refuse: (reason: string) => []): [] {
    const now = Date.now();
    const ignored = this.#ignored.get(directory);
    if (ignored === undefined) this.#ignored.set(directory, { untilMs: now + INCOMPLETE_MS, reason });
    else if (now > ignored.untilMs) return refuse(reason);
    return [];
  }

  #close(directory: string): TapConnection[] {
    const followed = this.#followed.get(directory);
    if (followed === undefined) return [];
    this.#followed.delete(directory);
    closeAll(followed.followers);
    return [followed.connection];
  }

  /**
   * One look at every ring: all events, then all responses, then all requests. Flooded connections are left
   * out until their time has come; of them only the speed is looked at.
   */
  #look(timeNs: bigint): {
    rounds: Map<TapConnection, Round>;
    fill: number;
    broken: { directory: string; reason: string }[];
    flooded: Followed[];
  } {
    const rounds = new Map<TapConnection, Round>();
    const broken = new Map<string, string>();
    const flooded = new Set<Followed>();
    const due = [...this.#followed].filter(([directory, followed]) => {
      try {
        return !sitsOut(followed, performance.now());
      } catch (error) {
        broken.set(directory, messageOf(error));
        return false;
      }
    });
    let fill = 0;
    for (const ring of ['event', 'response', 'request'] as const) {
      for (const [directory, followed] of due) {
        if (broken.has(directory)) continue;
        const { connection, followers, first, fresh } = followed;
        try {
          // The frames of the first look lie in the memory that the next one uses.
          const newest = followed.flood?.fastMs === undefined ? 1 : FLOOD_NEWEST;
          const look =
            first === undefined
              ? followers[ring].look(performance.now(), newest)
              : newestOf(first[ring], newest);
          const missed = first !== undefined && !fresh ? 0 : look.missed;
          if (missed > 0 || followers[ring].untold > 0) flooded.add(followed);
          else fill = Math.max(fill, look.fill);
          if (look.frames.length === 0) continue;
          const round = rounds.get(connection) ?? { request: [], response: [], event: [] };
          rounds.set(connection, round);
          addFrames(
            round[ring],
            connection,
            ring,
            { ...look, missed },
            timeNs,
            first !== undefined && !fresh,
          );
        } catch (error) {
          broken.set(directory, messageOf(error));
        }
      }
    }
    for (const [, followed] of due) {
      followed.first = undefined;
      if (followed.flood !== undefined) flooded.add(followed);
    }
    return {
      rounds,
      fill,
      broken: [...broken].map(([directory, reason]) => ({ directory, reason })),
      flooded: [...flooded],
    };
  }

  /** Ends early when a connection appears or the signal aborts. */
  #pause(ms: number): Promise<void> {
    if (this.#signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        clearImmediate(immediate);
        this.#signal?.removeEventListener('abort', wake);
        this.#wake = undefined;
        resolve();
      };
      const timer = ms > 0 ? setTimeout(wake, ms) : undefined;
      const immediate = ms > 0 ? undefined : setImmediate(wake);
      this.#signal?.addEventListener('abort', wake);
      this.#wake = wake;
    });
  }

  /** Without it new connections are found a pause later. */
  #watch(): FSWatcher | undefined {
    try {
      const watcher = watch(this.#root, { persistent: false }, (_, name) => {
        if (name !== null && isConnectionDirectory(name)) this.#announced.add(name);
        this.#wake?.();
      });
      watcher.on('error', (error) => {
        this.#watched = false;
        debug('watching %s: %s', this.#root, error.message);
      });
      this.#watched = true;
      return watcher;
    } catch (error) {
      debug('watching %s: %s', this.#root, messageOf(error));
      return undefined;
    }
  }
}

/** Whether a flood goes on and it is not yet time to look at it again. */
function sitsOut(followed: Followed, nowMs: number): boolean {
  const { flood, followers, window } = followed;
  if (flood !== undefined) for (const ring of RING_NAMES) followers[ring].sample(nowMs);
  const windowMs = nowMs - window.sinceMs;
  const suspected = flood !== undefined && flood.fastMs === undefined;
  if (windowMs >= (suspected ? SUSPECT_WINDOW_MS : FLOOD_WINDOW_MS)) {
    const next = windowFrom(followers, nowMs);
    const rates = next.written.map((written, index) => between(window.written[index]!, written));
    const seenMs = flood?.fastMs === undefined ? windowMs / 2 : FLOOD_SEEN_MS;
    const seen = rates.filter(({ ms }) => ms >= seenMs);
    const known = seen.length === rates.length || isFast(seen, FLOOD);
    // Who did not get the processor in time waits for a better window; who is lapped whenever he looks waits in vain.
    const vain = !known && flood !== undefined && windowMs > MAX_WINDOW_MS;
    if (known || vain || flood === undefined) followed.window = next;
    if (known || vain) {
      const judged = known ? seen : RING_NAMES.map((ring) => followers[ring].rate);
      if (isFast(judged, flood?.fastMs === undefined ? FLOOD : STILL_FLOOD))
        followed.flood = { untilMs: flood?.untilMs ?? nowMs, fastMs: nowMs };
      else if (flood?.fastMs === undefined || nowMs - flood.fastMs > FLOOD_OVER_MS)
        followed.flood = undefined;
    }
  }
  return followed.flood !== undefined && nowMs < followed.flood.untilMs;
}

/** What was written between two moments. */
function between(from: Progress, to: Progress): Progress {
  return { rounds: to.rounds - from.rounds, frames: to.frames - from.frames, ms: to.ms - from.ms };
}

/** Of one ring at least. */
function isFast(rates: readonly Progress[], limit: typeof FLOOD): boolean {
  return rates.some(({ rounds, frames, ms }) => rounds > ms * limit.rounds || frames > ms * limit.frames);
}

/** The last part of what was found in a ring at first. */
function newestOf(look: RingLook, part: number): RingLook {
  const left = look.frames.length - Math.ceil(look.frames.length * part);
  return { ...look, frames: look.frames.slice(left), consumed: look.consumed.slice(left) };
}

function windowFrom(followers: Followed['followers'], sinceMs: number): Window {
  return { sinceMs, written: RING_NAMES.map((ring) => followers[ring].written) };
}

/**
 * Who was lapped cannot keep up, and trying harder only takes time away from those who are watched. So what a
 * look at them cost decides when the next one comes.
 */
function sitOut(flooded: readonly Followed[], costMs: number): void {
  const nowMs = performance.now();
  const pauseMs = Math.min(MAX_FLOOD_PAUSE_MS, Math.max(MIN_FLOOD_PAUSE_MS, costMs * (1 / FLOOD_SHARE - 1)));
  for (const followed of flooded) {
    const fastMs = followed.flood?.fastMs;
    // One lap may have been an accident: the window that begins now tells, and no more time is lost than it takes.
    if (fastMs === undefined) followed.window = windowFrom(followed.followers, nowMs);
    followed.flood = { untilMs: nowMs + (fastMs === undefined ? SUSPECT_WINDOW_MS : pauseMs), fastMs };
  }
}

function untoldOf(followed: Followed | undefined): number {
  if (followed === undefined) return 0;
  return RING_NAMES.reduce((sum, ring) => sum + followed.followers[ring].untold, 0);
}

function addFrames(
  target: TapFrame[],
  connection: TapConnection,
  ring: RingName,
  { frames, consumed, missed }: RingLook,
  timeNs: bigint,
  old: boolean,
): void {
  for (const [index, bytes] of frames.entries()) {
    const missedHere = index === 0 ? missed : 0;
    target.push({
      connection,
      ring,
      timeNs,
      bytes,
      old,
      consumed: consumed[index] === true,
      missed: missedHere,
    });
  }
}

function openRings(root: string, directory: string, service: string): Record<RingName, RingFollower> {
  const opened: RingFollower[] = [];
  const open = (ring: RingName): RingFollower => {
    const follower = RingFollower.open(ringStem(root, directory, ring, service));
    opened.push(follower);
    return follower;
  };
  try {
    return { request: open('request'), response: open('response'), event: open('event') };
  } catch (error) {
    for (const follower of opened) follower.close();
    throw error;
  }
}

function closeAll(followers: Record<RingName, RingFollower>): void {
  for (const ring of RING_NAMES) followers[ring].close();
}

const never = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

/** Sleeps for less than a timer can. */
function block(ms: number): void {
  Atomics.wait(never, 0, 0, ms);
}

/** Processor time of this process, what the consumer of the batches does with them included. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown error';
}

function messageOf(error: unknown): string {
  return isCpgError(error) ? error.what : codeOf(error);
}
