/**
 * Follows all connections of libqb services on this machine, and only ever reads.
 *
 * A round looks at every ring: events first, then responses, then requests, so that the request of a reply that was
 * seen is in sight too. What was new goes to the backlog, which puts it in order and hands it out piece by piece.
 *
 * How long to wait between rounds depends on how much of the rings was new: a ring must not fill up between
 * two looks, and a tap that looks all the time would take a processor away from those it watches. Who is flooded is
 * not followed at all but sampled; flood.ts decides that.
 */
import { watch, type FSWatcher } from 'node:fs';
import { abortSignal, callback, readOptions, string, type OptionKinds } from '../arguments';
import { debugTap as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import { Backlog, type Sight } from './backlog';
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
import { FloodWatch, type FloodState } from './flood';
import type { TapFrame } from './frames';
import { RingFollower, type RingLook } from './ring-follower';

const MIN_PAUSE_MS = 1;
const MAX_PAUSE_MS = 5;
/** Between two rounds, while there is more to hand out. */
const HANDING_OUT_MS = 2;
/** Above this share of a ring in one look there is no pause at all, above the other one the shortest. */
const HURRY_FILL = 0.25;
const BUSY_FILL = 0.1;
/** Of a processor, for floods. */
const FLOOD_SHARE = 0.01;
const MIN_FLOOD_REST_MS = 250;
const MAX_FLOOD_REST_MS = 1000;
/** Between two samples of a writer that may be flooding. */
const SAMPLE_MS = 8;
/**
 * Each wake-up of ours takes a processor from those who flood. So of a flood that is certain a few looks close
 * together tell the rate, and the laps until the next few are reckoned from that. The first two are so close that
 * the largest messages do not get round in between, and tell how far apart the third may be.
 */
const FLOOD_SHORT_MS = 0.1;
const FLOOD_LONG_MS = 12;
const FLOOD_SAMPLES_REST_MS = 150;
/** A look at a quiet ring takes a few microseconds; pauses keep them below some percent of a processor. */
const PAUSE_PER_RING_MS = 0.05;
/** A daemon that makes a connection is done long before this; what is still no connection then is none. */
const INCOMPLETE_MS = 1000;
const GONE_TOO_SOON = 'it was gone before it could be opened';
/** How old the list of directories may get. */
const LIST_AGAIN_MS = 200;
/** Names of directories that are kept to know them again when their removal is announced. */
const MAX_REMEMBERED = 100_000;
/** So that the request of a reply that was seen is in sight too. */
const LOOKING_ORDER = ['event', 'response', 'request'] as const satisfies readonly RingName[];
/** Connections that are followed at a time; three rings each, up to a megabyte of memory each. */
export const MAX_CONNECTIONS = 1000;

/** What the constructor of Tap takes. */
export interface TapOptions {
  /**
   * Where the rings are.
   *
   * @default '/dev/shm'
   */
  directory?: string | undefined;
  /**
   * Whether to follow a connection.
   *
   * @default all of them
   */
  accept?: ((connection: TapConnection) => boolean) | undefined;
  /**
   * Ends the batches.
   *
   * @default none
   */
  signal?: AbortSignal | undefined;
  /**
   * Told when a connection begins to look like a flood for the first time, or to be one, and when that is over.
   *
   * @default none
   */
  onFlood?: ((flooding: boolean) => void) | undefined;
}

const TAP_OPTIONS: OptionKinds<TapOptions> = {
  directory: string,
  accept: callback,
  signal: abortSignal,
  onFlood: callback,
};

/** What was new in one round. */
export interface TapBatch {
  /** When, in nanoseconds since 1970. */
  timeNs: bigint;
  /** Connections that are followed from now on. */
  opened: TapConnection[];
  /** Connections that ended. */
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
  flood: FloodWatch;
}

/** Follows live connections: batches() gives their frames. */
export class Tap {
  readonly #root: string;
  readonly #accept: (connection: TapConnection) => boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #onFlood: (flooding: boolean) => void;
  readonly #followed = new Map<string, Followed>();
  /** Directories that are not followed: for ever, or until a time because they are not complete yet. */
  readonly #ignored = new Map<string, { untilMs: number; reason: string }>();
  /** Directories that appeared, and those ever dealt with: what is only in the first set was gone too soon. */
  readonly #announced = new Set<string>();
  readonly #dealtWith = new Set<string>();
  readonly #backlog = new Backlog();
  /** Until then nothing is read of floods. */
  #restUntilMs = 0;
  #present: ReadonlySet<string> = new Set();
  #listedMs = -Infinity;
  #watched = false;
  #nextId = 1;
  #firstRound = true;
  #flooding = false;
  /** The last pause was the one between two series of samples. */
  #rested = true;
  #wake: (() => void) | undefined;

  constructor(options?: TapOptions) {
    const {
      directory = SHM_DIRECTORY,
      accept = () => true,
      signal,
      onFlood = () => undefined,
    } = readOptions('Tap', options, TAP_OPTIONS);
    this.#root = directory;
    this.#accept = accept;
    this.#signal = signal;
    this.#onFlood = onFlood;
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
        const startedMs = this.#flooding ? cpuMs() : undefined;
        const resting = this.#restsFromFloods();
        const { fill, busy } = this.#round(last);
        this.#tellOfFloods();
        const untilMs = performance.now() + HANDING_OUT_MS;
        while (last ? !this.#backlog.empty : this.#mayHandOut()) {
          if (!last && !this.#backlog.full && performance.now() >= untilMs) break;
          const batch = this.#backlog.take();
          if (batch !== undefined) yield batch;
        }
        if (last) return;
        if (!resting && startedMs !== undefined) this.#restFromFloods(cpuMs() - startedMs);
        if (this.#mayHandOut()) {
          await this.#pause(0);
          continue;
        }
        pauseMs = this.#nextPause(pauseMs, fill, busy);
        await this.#pause(fill > HURRY_FILL ? 0 : pauseMs);
        while (this.#onlySamples()) await this.#pause(this.#samplePause());
      }
    } finally {
      watcher?.close();
      this.#tellOfFloods(false);
      for (const { followers } of this.#followed.values()) closeAll(followers);
      this.#followed.clear();
    }
  }

  #isAny(state: FloodState): boolean {
    return this.#someFlood((flood) => flood.state === state);
  }

  /** Without a list of all, because it is asked in every round. */
  #someFlood(is: (flood: FloodWatch) => boolean): boolean {
    for (const { flood } of this.#followed.values()) if (is(flood)) return true;
    return false;
  }

  #tellOfFloods(flooding = this.#someFlood(({ goesFirst }) => goesFirst)): void {
    if (flooding === this.#flooding) return;
    this.#flooding = flooding;
    try {
      this.#onFlood(flooding);
    } catch (error) {
      debug('onFlood: %s', String(error));
    }
  }

  /** Whether anything is to be handed out: whoever is suspected of a flood is not to be slowed down by that. */
  #mayHandOut(): boolean {
    return this.#backlog.full || (!this.#backlog.empty && !this.#isAny('suspected'));
  }

  #restsFromFloods(): boolean {
    return performance.now() < this.#restUntilMs && this.#isAny('flooded');
  }

  /**
   * What was done took `costMs` of processor time, which decides when more of a flood is read: trying harder would
   * only take time away from those who are watched.
   */
  #restFromFloods(costMs: number): void {
    const restMs = Math.max(MIN_FLOOD_REST_MS, costMs * (1 / FLOOD_SHARE - 1));
    this.#restUntilMs = performance.now() + Math.min(MAX_FLOOD_REST_MS, restMs);
  }

  /** Samples the floods and returns true when there was nothing else to do: a round would take many times as long. */
  #onlySamples(): boolean {
    const now = performance.now();
    const followed = [...this.#followed.values()];
    if (followed.length === 0 || followed.some(({ flood }) => flood.state === 'none')) return false;
    if (this.#signal?.aborted === true) return false;
    if (this.#announced.size > 0 || now - this.#listedMs >= LIST_AGAIN_MS) return false;
    // The round that comes otherwise finds the same, and tells it.
    if (this.#sample().size > 0) return false;
    if (followed.some((one) => this.#judge(one) === 'none' || one.flood.pressing)) return false;
    return !this.#mayHandOut() && (this.#restsFromFloods() || this.#isAny('suspected'));
  }

  /**
   * Looks how far all writers are: at all events, then all responses, then all requests. Returns the directories of
   * those that are no rings any more, with what is wrong.
   */
  #sample(): Map<string, string> {
    const broken = new Map<string, string>();
    for (const ring of LOOKING_ORDER) {
      for (const [directory, { followers }] of this.#followed) {
        try {
          followers[ring].sample(performance.now());
        } catch (error) {
          broken.set(directory, messageOf(error));
        }
      }
    }
    return broken;
  }

  #nextPause(pauseMs: number, fill: number, busy: boolean): number {
    const followed = [...this.#followed.values()];
    const floods = followed.filter(({ flood }) => flood.state !== 'none').length;
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
    if (followed.some(({ flood }) => flood.state !== 'flooded')) return SAMPLE_MS;
    const rested = this.#rested;
    this.#rested = true;
    if (!rested) return FLOOD_SAMPLES_REST_MS;
    block(FLOOD_SHORT_MS);
    if (this.#sample().size > 0) return MIN_PAUSE_MS;
    const rings = followed.flatMap(({ followers }) => RING_NAMES.map((ring) => followers[ring]));
    const longMs = Math.min(FLOOD_LONG_MS, ...rings.map(({ sureForMs }) => sureForMs));
    if (longMs < MIN_PAUSE_MS) return FLOOD_SAMPLES_REST_MS;
    this.#rested = false;
    return longMs;
  }

  /** A connection is being made. */
  #expectsMore(): boolean {
    const now = Date.now();
    for (const { untilMs } of this.#ignored.values()) if (untilMs !== Infinity && untilMs > now) return true;
    return false;
  }

  /** Reads what is new into the backlog. */
  #round(last: boolean): { fill: number; busy: boolean } {
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
    for (const directory of awaited) this.#followed.get(directory)!.flood.end();
    const { sights, fill, broken } = this.#look();
    for (const [directory, reason] of broken) refused.push({ directory, reason });
    const ending = [...gone, ...broken.keys()];
    const untold = (last ? [...this.#followed.keys()] : ending).reduce(
      (sum, directory) => sum + untoldOf(this.#followed.get(directory)),
      0,
    );
    const closed = ending.flatMap((directory) => this.#close(directory));
    this.#backlog.add({ timeNs, opened, closed, refused, untold, sights, first: this.#firstRound, last });
    this.#firstRound = false;
    return { fill, busy: sights.size > 0 };
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
      const fresh = !this.#firstRound;
      const flood = new FloodWatch(connection, followers, now, fresh);
      this.#nextId++;
      this.#ignored.delete(directory);
      this.#followed.set(directory, { connection, followers, first, fresh, flood });
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

  /** Reads what is new, except of floods whose time has not come. */
  #look(): { sights: Map<TapConnection, Sight[]>; fill: number; broken: Map<string, string> } {
    const sights = new Map<TapConnection, Sight[]>();
    const readsFloods = this.#backlog.empty && !this.#restsFromFloods();
    const broken = this.#sample();
    let fill = 0;
    for (const [directory, followed] of this.#followed) {
      if (broken.has(directory)) continue;
      const state = this.#judge(followed);
      if (state === 'suspected' && !followed.flood.pressing) continue;
      if (state === 'flooded' && !readsFloods) continue;
      try {
        const keep = !this.#backlog.empty || followed.first !== undefined;
        if (followed.first !== undefined) addFirst(followed, followed.first, sights);
        followed.first = undefined;
        const look = readRings(followed, sights, keep);
        fill = Math.max(fill, look.fill);
        if (look.lapped) followed.flood.lapped(performance.now());
      } catch (error) {
        broken.set(directory, messageOf(error));
      }
    }
    return { sights, fill, broken };
  }

  #judge({ connection, followers, flood }: Followed): FloodState {
    const before = flood.state;
    const state = flood.judge(performance.now(), !this.#backlog.empty);
    if (state === 'flooded' && before !== state) {
      // What was read of it before that was known would take too much time as well.
      const dropped = this.#backlog.drop(connection);
      for (const ring of RING_NAMES) followers[ring].addMissed(dropped[ring]);
    }
    return state;
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

/** Adds what was there when a connection was opened to `sights`. */
function addFirst(
  { connection, fresh, flood }: Followed,
  first: Record<RingName, RingLook>,
  sights: Map<TapConnection, Sight[]>,
): void {
  const seen: Sight[] = [];
  for (const ring of LOOKING_ORDER) {
    const { chunks, missed, fill } = first[ring];
    if (chunks.length === 0) continue;
    const newest = chunks.newest(Math.ceil(chunks.length * flood.newest));
    // What was lost before the tap came is none of its business.
    seen.push({ ring, look: { chunks: newest, missed: fresh ? missed : 0, fill }, old: !fresh });
    sights.set(connection, seen);
  }
}

/** Adds what is new to `sights`. With `keep` the last look is still needed. */
function readRings(
  { connection, followers, flood }: Followed,
  sights: Map<TapConnection, Sight[]>,
  keep: boolean,
): { fill: number; lapped: boolean } {
  const seen = sights.get(connection) ?? [];
  let fill = 0;
  let lapped = false;
  for (const ring of LOOKING_ORDER) {
    const follower = followers[ring];
    if (keep) follower.keepLook();
    // Some may be missed from before and not told of yet.
    const owed = follower.untold;
    const look = follower.read(flood.newest);
    if (look.missed + follower.untold > owed) lapped = true;
    else fill = Math.max(fill, look.fill);
    if (look.chunks.length === 0) continue;
    seen.push({ ring, look, old: false });
    sights.set(connection, seen);
  }
  return { fill, lapped };
}

function untoldOf(followed: Followed | undefined): number {
  if (followed === undefined) return 0;
  return RING_NAMES.reduce((sum, ring) => sum + followed.followers[ring].untold, 0);
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
