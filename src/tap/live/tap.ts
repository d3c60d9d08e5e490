/**
 * Follows all connections of libqb services on this machine; it only reads.
 *
 * A round reads every ring: events first, then responses, then requests, so that the request of every visible reply is
 * visible, too. New frames go to the backlog, which sorts and yields them in pieces.
 *
 * A pause after each round limits the work to a share of one CPU: a tap must not slow down the programs that it follows.
 * During the pause it still reads the rings, which is cheap. It only samples a connection that is too fast for the share
 * (see followed.ts), and counts the missed frames.
 */
import { abortSignal, callback, kind, readOptions, string, type OptionKinds } from '../../arguments';
import { clearTimeout, monotonicMs, setTimeout, timeOrigin } from '../../clock';
import { debugTap as debug } from '../../debug';
import { CpgError } from '../../errors';
import { SHM_DIRECTORY } from '../../ring/paths';
import type { TapConnection } from '../connections';
import { Backlog, KEPT_FRAMES, type RingDelta, type TapBatch } from './backlog';
import { Budget } from './budget';
import { Discovery, reasonOf, type Described, type Refused } from './discovery';
import { Followed, READING_ORDER } from './followed';

const MAX_CPU_SHARE = 0.25;
/** Between two rounds: after one that found something, and at most. */
const MIN_PAUSE_MS = 1;
const MAX_PAUSE_MS = 5;
/** How long yielding may take before the rings are read again. */
const YIELD_MS = 2;
/** The rings are read so often even while nothing is yielded: a fast writer must not come round. */
const MAX_REST_MS = 20;
/** Between two samples of a connection that is too fast. */
const SAMPLE_MS = 200;
/** Connections that are followed at a time; three rings each, up to a megabyte of memory each. */
export const MAX_CONNECTIONS = 1000;

/** Options of the constructor of Tap. */
export interface TapOptions {
  /**
   * The directory of the rings.
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
   * Maximum share of one CPU, on average, for reading and for the consumer's work on the batches; above 0, up to 1.
   *
   * @default 0.25
   */
  maxCpuShare?: number | undefined;
}

const TAP_OPTIONS: OptionKinds<TapOptions> = {
  directory: string,
  accept: callback,
  signal: abortSignal,
  maxCpuShare: kind(
    'a number above 0, up to 1',
    (value) => typeof value === 'number' && value > 0 && value <= 1,
  ),
};

/** Follows live connections: batches() gives their frames. */
export class Tap {
  readonly #root: string;
  readonly #accept: (connection: TapConnection) => boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #discovery: Discovery;
  readonly #budget: Budget;
  readonly #followed = new Map<string, Followed>();
  readonly #backlog = new Backlog();
  #nextId = 1;
  #firstRound = true;
  #wake: (() => void) | undefined;

  constructor(options?: TapOptions) {
    const {
      directory = SHM_DIRECTORY,
      accept = () => true,
      signal,
      maxCpuShare = MAX_CPU_SHARE,
    } = readOptions('Tap', options, TAP_OPTIONS);
    this.#root = directory;
    this.#accept = accept;
    this.#signal = signal;
    this.#discovery = new Discovery(directory);
    this.#budget = new Budget(maxCpuShare);
  }

  /** The followed connections. */
  get connections(): TapConnection[] {
    return [...this.#followed.values()].map(({ connection }) => connection);
  }

  /**
   * Batches from now on; the first one comes at once, with the older frames still in the rings. Ends when the signal
   * aborts. Throws CpgError if the directory cannot be read. Frames overwritten before the tap reads them count as missed,
   * so a slow consumer loses only messages.
   */
  async *batches(): AsyncGenerator<TapBatch, void> {
    this.#discovery.watch(() => this.#wake?.());
    try {
      let pauseMs = MIN_PAUSE_MS;
      for (;;) {
        // Run the last round after the abort: it reads everything written before.
        const last = this.#signal?.aborted === true;
        const begunMs = cpuMs();
        const busy = this.#round(last);
        const readingMs = cpuMs() - begunMs;
        const untilMs = this.#mayYield() ? monotonicMs() + YIELD_MS : 0;
        while (!this.#backlog.empty && (last || monotonicMs() < untilMs)) {
          const batch = this.#backlog.take();
          if (batch !== undefined) yield batch;
        }
        if (last) return;
        this.#budget.charge(cpuMs() - begunMs, monotonicMs());
        pauseMs = busy || this.#discovery.expectsMore ? MIN_PAUSE_MS : Math.min(MAX_PAUSE_MS, 2 * pauseMs);
        await this.#rest(Math.max(pauseMs, this.#budget.restFor(readingMs)));
      }
    } finally {
      this.#discovery.close();
      for (const followed of this.#followed.values()) followed.close();
      this.#followed.clear();
    }
  }

  /** Not much at the beginning of what may be a flood either: most of that will be dropped. */
  #mayYield(): boolean {
    if (this.#budget.restMs(monotonicMs()) > 0) return false;
    return (
      this.#backlog.frames <= KEPT_FRAMES || [...this.#followed.values()].every(({ undecided }) => !undecided)
    );
  }

  async #rest(pauseMs: number): Promise<void> {
    const restMs = this.#budget.restMs(monotonicMs());
    const all = [...this.#followed.values()];
    if (all.length === 0 || !this.#backlog.empty || all.some(({ sampled }) => !sampled)) {
      await this.#pause(Math.max(pauseMs, Math.min(restMs, MAX_REST_MS)));
      return;
    }
    const untilMs = monotonicMs() + Math.max(SAMPLE_MS, restMs);
    // Only how far the writers are: that takes microseconds, and tells how much is missed.
    while (monotonicMs() < untilMs && !(await this.#pause(MAX_REST_MS))) this.#sample();
  }

  /** Reads new frames into the backlog; false if there are none. */
  #round(last: boolean): boolean {
    const present = this.#discovery.list();
    const refused: Refused[] = [];
    const opened = [...present].flatMap((directory) => this.#open(directory, refused));
    refused.push(...this.#discovery.goneTooSoon(present));
    const gone = [...this.#followed.keys()].filter((directory) => !present.has(directory));

    const timeNs = BigInt(Math.round((timeOrigin + monotonicMs()) * 1000)) * 1000n;
    const ending = new Set(last ? this.#followed.keys() : gone);
    const { deltas, broken } = this.#read(ending);
    for (const [directory, reason] of broken) refused.push({ directory, reason });
    const remarks = this.#discovery.remarks(present, (directory) => {
      const followed = this.#followed.get(directory);
      return followed !== undefined && deltas.has(followed.connection);
    });
    let unreportedMissed = 0;
    for (const directory of new Set([...ending, ...broken.keys()]))
      unreportedMissed += this.#followed.get(directory)!.unreportedMissed;
    const closing = new Set([...gone, ...broken.keys()]);
    const closed = [...closing].map((directory) => this.#close(directory));
    const first = this.#firstRound;
    this.#backlog.add({ timeNs, opened, closed, refused, remarks, unreportedMissed, deltas, first, last });
    this.#firstRound = false;
    return deltas.size > 0;
  }

  /** Starts following a new connection, if there is one; returns it in a list. */
  #open(directory: string, refused: Refused[]): TapConnection[] {
    if (this.#followed.has(directory)) return [];
    const open = (described: Described): Followed | undefined => {
      if (this.#followed.size >= MAX_CONNECTIONS)
        throw new CpgError('CS_ERR_NO_RESOURCES', `more than ${MAX_CONNECTIONS} connections`);
      // Its names become known later than the connection itself, so it stays the object that it is.
      const connection: TapConnection = Object.assign(described, { id: this.#nextId });
      if (!this.#accept(connection)) return undefined;
      return new Followed(this.#root, directory, connection, !this.#firstRound, monotonicMs());
    };
    const followed = this.#discovery.open(directory, open, refused);
    if (followed === undefined) return [];
    this.#nextId++;
    this.#followed.set(directory, followed);
    return [followed.connection];
  }

  #close(directory: string): TapConnection {
    const followed = this.#followed.get(directory)!;
    this.#followed.delete(directory);
    followed.close();
    return followed.connection;
  }

  /** Reads how far all writers are. Returns the directories that hold no rings any more, with what is wrong. */
  #sample(): Map<string, string> {
    const broken = new Map<string, string>();
    for (const ring of READING_ORDER) {
      for (const [directory, followed] of this.#followed) {
        try {
          followed.sample(ring, monotonicMs());
        } catch (error) {
          broken.set(directory, reasonOf(error));
        }
      }
    }
    return broken;
  }

  /** Reads what is new. Nothing follows in connections that are ending, so all of it is read. */
  #read(ending: ReadonlySet<string>): {
    deltas: Map<TapConnection, RingDelta[]>;
    broken: Map<string, string>;
  } {
    const deltas = new Map<TapConnection, RingDelta[]>();
    const broken = this.#sample();
    for (const [directory, followed] of this.#followed) {
      if (broken.has(directory) || (this.#backlog.full && !ending.has(directory))) continue;
      try {
        const now = monotonicMs();
        if (ending.has(directory)) followed.sampled = false;
        else this.#judge(followed, now);
        if (followed.sampled && now < followed.nextSampleMs) continue;
        followed.nextSampleMs = now + SAMPLE_MS;
        const found = followed.read(!this.#backlog.empty);
        if (found.length > 0) deltas.set(followed.connection, found);
      } catch (error) {
        broken.set(directory, reasonOf(error));
      }
    }
    return { deltas, broken };
  }

  #judge(followed: Followed, nowMs: number): void {
    if (!followed.judge(nowMs)) return;
    const { sampled, connection, rate } = followed;
    debug('%d: %s, %d messages per ms', connection.clientPid, sampled ? 'samples' : 'in full', rate.frames);
    // What was read of it and still waits would take too much time as well.
    if (sampled) followed.addMissed(this.#backlog.drop(connection));
  }

  /** Ends early, with true, when a connection appears or the signal aborts. */
  #pause(ms: number): Promise<boolean> {
    if (this.#signal?.aborted === true) return Promise.resolve(true);
    return new Promise((resolve) => {
      const end = (early: boolean): void => {
        clearTimeout(timer);
        this.#signal?.removeEventListener('abort', wake);
        this.#wake = undefined;
        resolve(early);
      };
      const wake = (): void => end(true);
      const timer = setTimeout(end, ms, false);
      this.#signal?.addEventListener('abort', wake);
      this.#wake = wake;
    });
  }
}

/** CPU time of the process, including the consumer's work on the batches. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
