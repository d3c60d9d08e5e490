/** Which connections of libqb services there are: each has a directory in /dev/shm (ring/paths.ts). */
import { readdirSync, statSync, watch, type FSWatcher } from 'node:fs';
import { join } from 'node:path';
import { monotonicMs, wallClockMs } from '../../clock';
import { debugTap as debug } from '../../debug';
import { CpgError, isCpgError } from '../../errors';
import { openReadOnly } from '../../ring/files';
import { missingFiles, pidsOf, RING_NAMES, ringFiles, ringStem, serviceOf } from '../../ring/paths';
import type { TapConnection } from '../connections';
import { fileId, isAlive, namespaceText, Processes, type End, type FileId } from './processes';

/** A daemon that makes a connection is done long before this; what is still no connection then is none. */
const INCOMPLETE_MS = 1000;
/** The reason when this user may not read a connection. */
export const DENIED = 'permission denied';
const GONE_TOO_SOON = 'it was gone before it could be opened';
/** How often the processes at the ends are looked for, and how long one must be absent before it is said. */
const CHECK_ENDS_MS = 1000;
/** An end that was not found in this time is not looked for any more. */
const MAX_ABSENCE_MS = 3000;
/** How often they are looked for in between, when a connection whose ends are not known is used. */
const EARLY_LOOKS = 3;
const BY_DATAGRAMS = 'it goes by datagrams (qb_ipc_type: socket), which only a relay can show';
/** How old the list of directories may get. */
const LIST_AGAIN_MS = 200;
/** Names of directories that are kept to know them again when their removal is announced. */
const MAX_REMEMBERED = 100_000;

/** What the errors of the system mean here. */
const SYSTEM_REASONS: Readonly<Record<string, string>> = {
  EACCES: DENIED,
  EPERM: DENIED,
  ENOENT: 'a file of it vanished',
  ENOTDIR: 'it is not a directory',
  ELOOP: 'a file of it is a symbolic link',
  EMFILE: 'too many open files (see ulimit -n)',
  ENFILE: 'too many open files on this machine',
};

/** A directory that cannot be followed, with the reason. */
export interface Refused {
  directory: string;
  reason: string;
}

/** What is to be known of a connection that is followed. */
export interface Remark {
  directory: string;
  text: string;
}

/** What a directory's name and files tell. */
export type Described = Omit<TapConnection, 'id'> & { readonly directory: string };

export class Discovery {
  readonly #root: string;
  readonly #processes = new Processes();
  /** What is at the ends of connections that are open, and when that was looked at. */
  readonly #ends = new Map<string, Ends>();
  #endsCheckedMs = -Infinity;
  /** Directories that are not followed: permanently, or until a time because they are not complete yet. */
  readonly #ignored = new Map<string, number>();
  /** Directories that appeared, and those ever dealt with: what is only in the first set was gone too soon. */
  readonly #announced = new Set<string>();
  readonly #dealtWith = new Set<string>();
  #present: ReadonlySet<string> = new Set();
  #listedMs = -Infinity;
  #watcher: FSWatcher | undefined;

  constructor(root: string) {
    this.#root = root;
  }

  /** Begins to watch; without that new connections are found a pause later. `onChange` when one comes or goes. */
  watch(onChange: () => void): void {
    try {
      this.#watcher = watch(this.#root, { persistent: false }, (_, name) => {
        if (name !== null && pidsOf(name) !== undefined) this.#announced.add(name);
        onChange();
      });
      this.#watcher.on('error', (error) => {
        this.close();
        debug('watching %s: %s', this.#root, error.message);
      });
    } catch (error) {
      debug('watching %s: %s', this.#root, reasonOf(error));
    }
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  /** A connection is being made. */
  get expectsMore(): boolean {
    const now = wallClockMs();
    for (const untilMs of this.#ignored.values()) if (untilMs !== Infinity && untilMs > now) return true;
    return false;
  }

  /** The directories there are; listed again when one has come or gone, and now and then in case nobody says so. */
  list(): ReadonlySet<string> {
    const now = monotonicMs();
    const known = this.#watcher !== undefined && this.#announced.size === 0 && !this.expectsMore;
    if (known && now - this.#listedMs < LIST_AGAIN_MS) return this.#present;
    this.#listedMs = now;
    try {
      this.#present = new Set(readdirSync(this.#root).filter((name) => pidsOf(name) !== undefined));
      return this.#present;
    } catch (error) {
      throw new CpgError('CS_ERR_ACCESS', `${this.#root} cannot be read (${codeOf(error)})`, {
        cause: error,
        remedy: 'run it where the daemon runs, with its /dev/shm',
      });
    }
  }

  /** Connections that are gone and were never open: the tap must not hide that there were any. */
  goneTooSoon(present: ReadonlySet<string>): Refused[] {
    if (this.#dealtWith.size > MAX_REMEMBERED) this.#dealtWith.clear();
    for (const directory of [...present, ...this.#ignored.keys()]) this.#dealtWith.add(directory);
    // Their removal is announced as well.
    const gone = [...this.#announced].filter((directory) => !this.#dealtWith.has(directory));
    this.#announced.clear();
    for (const directory of gone) this.#dealtWith.add(directory);
    for (const [directory, untilMs] of this.#ignored) {
      if (present.has(directory)) continue;
      this.#ignored.delete(directory);
      // It was seen, but never complete.
      if (untilMs !== Infinity) gone.push(directory);
    }
    return gone.map((directory) => ({ directory, reason: GONE_TOO_SOON }));
  }

  /**
   * Opens a directory that is not followed yet, by `open`, which is given what its name and files tell. Nothing when
   * that is not wanted (undefined), or not possible; what never will be possible is added to `refused`, once.
   */
  open<T>(
    directory: string,
    open: (described: Described) => T | undefined,
    refused: Refused[],
  ): T | undefined {
    const ignoredUntilMs = this.#ignored.get(directory);
    if (ignoredUntilMs === Infinity) return undefined;
    let reason: string;
    let denied = false;
    try {
      const described = this.#describe(directory);
      if (typeof described !== 'string') {
        const opened = open(described.connection);
        if (opened === undefined) {
          this.#ignored.set(directory, Infinity);
        } else {
          this.#ignored.delete(directory);
          this.#ends.set(directory, described.ends);
        }
        return opened;
      }
      reason = described;
    } catch (error) {
      denied = isDenied(error);
      reason = reasonOf(error);
    }
    // Not complete: the daemon may be making it, or taking it away.
    const now = wallClockMs();
    if (denied || (ignoredUntilMs !== undefined && now > ignoredUntilMs)) {
      this.#ignored.set(directory, Infinity);
      refused.push({ directory, reason: denied ? reason : this.#withAbsence(reason, directory) });
    } else if (ignoredUntilMs === undefined) {
      this.#ignored.set(directory, now + INCOMPLETE_MS);
    }
    return undefined;
  }

  /**
   * What is new to say about the ends of open connections: processes that are gone, pids of another pid namespace. Looks
   * once a second, and at connections that are new. `active` says which were just used.
   */
  remarks(present: ReadonlySet<string>, active: (directory: string) => boolean): Remark[] {
    const now = monotonicMs();
    const due = now - this.#endsCheckedMs >= CHECK_ENDS_MS;
    if (due) this.#endsCheckedMs = now;
    const remarks: Remark[] = [];
    this.#processes.forget();
    for (const [directory, ends] of this.#ends) {
      if (!present.has(directory)) this.#ends.delete(directory);
      else if (due || ends.isDue(active(directory))) {
        const text = ends.look(this.#processes, now);
        if (text !== '') remarks.push({ directory, text });
      }
    }
    return remarks;
  }

  /**
   * What is in the directory now: how many connections, how many of them whose processes are not known to be gone, how
   * many that may not be read, and what is wrong with any.
   */
  survey(): { connections: number; inUse: number; unreadable: number; odd: Remark[] } {
    let connections = 0;
    let inUse = 0;
    let unreadable = 0;
    const odd: Remark[] = [];
    for (const directory of this.list()) {
      let text: string;
      try {
        const described = this.#describe(directory);
        if (typeof described === 'string') {
          // One that is new is being made.
          if (wallClockMs() - statSync(join(this.#root, directory)).ctimeMs < INCOMPLETE_MS) continue;
          text = this.#withAbsence(described, directory);
        } else {
          const { service } = described.connection;
          for (const ring of RING_NAMES)
            openReadOnly(ringStem(join(this.#root, directory), ring, service)).close();
          connections++;
          text = described.ends.look(this.#processes, monotonicMs());
          if (!described.ends.areGone) inUse++;
        }
      } catch (error) {
        // It was there a moment ago.
        if (codeOf(error) === 'ENOENT') continue;
        text = isDenied(error) ? '' : this.#withAbsence(reasonOf(error), directory);
        if (text === '') unreadable++;
      }
      if (text !== '') odd.push({ directory, text });
    }
    return { connections, inUse, unreadable, odd };
  }

  /** Why a directory is no connection yet, or what it is. */
  #describe(directory: string): string | { connection: Described; ends: Ends } {
    const pids = pidsOf(directory);
    const path = join(this.#root, directory);
    const files = readdirSync(path);
    if (files.some((name) => name.startsWith('qb-control-')))
      throw new CpgError('CS_ERR_NOT_SUPPORTED', BY_DATAGRAMS);
    const service = serviceOf(files);
    if (service === undefined || pids === undefined)
      return files.length === 0 ? 'it is empty' : 'it has no request ring';
    const missing = missingFiles(service, files);
    if (missing.length > 0) return `it is half made: ${missing.join(', ')} not there`;
    const connection = { service, ...pids, serverName: '', clientName: '', directory };
    const ring = fileId(ringFiles(ringStem(path, 'request', service))[0]);
    return { connection, ends: new Ends(connection, ring, this.#processes) };
  }

  /** What is wrong with a directory, and whether those who could mend it are gone. */
  #withAbsence(reason: string, directory: string): string {
    const { serverPid = 0, clientPid = 0 } = pidsOf(directory) ?? {};
    const absence = this.#processes.absenceOf(serverPid, clientPid);
    return absence === '' ? reason : `${reason}; ${absence}`;
  }
}

/** Both ends of an open connection. */
class Ends {
  readonly #connection: Mutable<Described>;
  readonly #ring: FileId;
  #server: End;
  #client: End;
  #said = '';
  #absence = '';
  #looks = 0;
  #absentSinceMs: number | undefined;

  constructor(connection: Mutable<Described>, ring: FileId, processes: Processes) {
    this.#connection = connection;
    this.#ring = ring;
    this.#server = processes.find(connection.serverPid, ring);
    this.#client = processes.find(connection.clientPid, ring);
    connection.serverName = this.#server.name;
    connection.clientName = this.#client.name;
  }

  /** Nobody is left who could use it, as far as we know. */
  get areGone(): boolean {
    return this.#absence !== '' && this.#client.pidHere === undefined;
  }

  /** It was not looked at since it was found; or it is in use, and an end may have its rings by now. */
  isDue(active: boolean): boolean {
    const known = [this.#server, this.#client].every(
      ({ pid, pidHere }) => pid === 0 || pidHere !== undefined,
    );
    return this.#looks === 0 || (active && !known && this.#looks < EARLY_LOOKS);
  }

  /** What is new to say; empty when nothing is. */
  look(processes: Processes, nowMs: number): string {
    const isFirst = this.#looks++ === 0;
    if (this.#looks <= EARLY_LOOKS || this.#server.pidHere !== undefined) {
      this.#server = this.#again(this.#server, processes);
      this.#client = this.#again(this.#client, processes);
    }
    // A process that is gone keeps the name that it had.
    this.#connection.serverName ||= this.#server.name;
    this.#connection.clientName ||= this.#client.name;
    this.#lookForAbsence(processes, isFirst && this.#ring.isOld, nowMs);
    const texts = [namespaceText(this.#server, this.#client), this.#absence].filter((text) => text !== '');
    const text = texts.join('; ');
    if (text === this.#said) return '';
    this.#said = text;
    return text;
  }

  #again(end: End, processes: Processes): End {
    return isAlive(end) ? end : processes.find(end.pid, this.#ring, true);
  }

  /** Whether it is left behind takes a look at all processes, so that is not done often. */
  #lookForAbsence(processes: Processes, atOnce: boolean, nowMs: number): void {
    if (this.#server.pidHere !== undefined) {
      this.#absentSinceMs = undefined;
      this.#absence = '';
      return;
    }
    this.#absentSinceMs ??= nowMs;
    // One that is just being made, or taken away, is looked at again.
    const absentMs = nowMs - this.#absentSinceMs;
    if (!atOnce && (absentMs < CHECK_ENDS_MS || absentMs > MAX_ABSENCE_MS)) return;
    if (this.#absence === '') this.#absence = processes.absence(this.#server, this.#client, this.#ring);
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

function isDenied(error: unknown): boolean {
  return ['EACCES', 'EPERM'].includes(codeOf(error));
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown error';
}

export function reasonOf(error: unknown): string {
  if (isCpgError(error)) return error.what;
  const code = codeOf(error);
  const known = SYSTEM_REASONS[code];
  return known === undefined || known === 'permission denied' ? (known ?? code) : `${known} (${code})`;
}
