/**
 * Which connections of libqb services there are: each has a directory in /dev/shm,
 *
 *     qb-<server pid>-<client pid>-<server's descriptor>-XXXXXX/qb-{request,response,event}-<service>-{header,data}
 */
import { readdirSync, readFileSync, watch, type FSWatcher } from 'node:fs';
import { join } from 'node:path';
import { debugTap as debug } from '../../debug';
import { CpgError, isCpgError } from '../../errors';
import { RING_NAMES, type RingName, type TapConnection } from '../connections';

export const SHM_DIRECTORY = '/dev/shm';
/** A daemon that makes a connection is done long before this; what is still no connection then is none. */
const INCOMPLETE_MS = 1000;
const GONE_TOO_SOON = 'it was gone before it could be opened';
const BY_DATAGRAMS = 'it goes by datagrams (qb_ipc_type: socket), which only a relay can show';
/** How old the list of directories may get. */
const LIST_AGAIN_MS = 200;
/** Names of directories that are kept to know them again when their removal is announced. */
const MAX_REMEMBERED = 100_000;
const DIRECTORY = /^qb-(\d+)-(\d+)-\d+-[^/]+$/;
const REQUEST_HEADER = /^qb-request-(.+)-header$/;

/** A directory that cannot be followed, with the reason. */
export interface Refused {
  directory: string;
  reason: string;
}

export class Discovery {
  readonly #root: string;
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
        if (name !== null && DIRECTORY.test(name)) this.#announced.add(name);
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
    const now = Date.now();
    for (const untilMs of this.#ignored.values()) if (untilMs !== Infinity && untilMs > now) return true;
    return false;
  }

  /** The directories there are; listed again when one has come or gone, and now and then in case nobody says so. */
  list(): ReadonlySet<string> {
    const now = performance.now();
    const known = this.#watcher !== undefined && this.#announced.size === 0 && !this.expectsMore;
    if (known && now - this.#listedMs < LIST_AGAIN_MS) return this.#present;
    this.#listedMs = now;
    try {
      this.#present = new Set(readdirSync(this.#root).filter((name) => DIRECTORY.test(name)));
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
    open: (described: Omit<TapConnection, 'id'>) => T | undefined,
    refused: Refused[],
  ): T | undefined {
    const ignoredUntilMs = this.#ignored.get(directory);
    if (ignoredUntilMs === Infinity) return undefined;
    let reason = 'its rings are not there';
    let denied = false;
    try {
      const described = describeConnection(this.#root, directory);
      const opened = described && open(described);
      if (opened !== undefined) this.#ignored.delete(directory);
      else if (described !== undefined) this.#ignored.set(directory, Infinity);
      if (described !== undefined) return opened;
    } catch (error) {
      denied = ['EACCES', 'EPERM'].includes(codeOf(error));
      reason = denied ? 'permission denied' : reasonOf(error);
    }
    // Not complete: the daemon may be making it, or taking it away.
    const now = Date.now();
    if (denied || (ignoredUntilMs !== undefined && now > ignoredUntilMs)) {
      this.#ignored.set(directory, Infinity);
      refused.push({ directory, reason });
    } else if (ignoredUntilMs === undefined) {
      this.#ignored.set(directory, now + INCOMPLETE_MS);
    }
    return undefined;
  }
}

/** What a directory's name and files tell; undefined while the files are not all there. */
function describeConnection(root: string, directory: string): Omit<TapConnection, 'id'> | undefined {
  const [, server, client] = DIRECTORY.exec(directory) ?? [];
  const files = readdirSync(join(root, directory));
  if (files.some((name) => name.startsWith('qb-control-'))) {
    throw new CpgError('CS_ERR_NOT_SUPPORTED', BY_DATAGRAMS);
  }
  const service = files.map((name) => REQUEST_HEADER.exec(name)?.[1]).find((name) => name !== undefined);
  if (service === undefined || server === undefined || client === undefined) return undefined;
  const complete = RING_NAMES.every((ring) =>
    ['header', 'data'].every((part) => files.includes(`qb-${ring}-${service}-${part}`)),
  );
  if (!complete) return undefined;
  const [serverPid, clientPid] = [Number(server), Number(client)];
  return {
    service,
    serverPid,
    clientPid,
    serverName: processName(serverPid),
    clientName: processName(clientPid),
    directory,
  };
}

export function ringStem(root: string, directory: string, ring: RingName, service: string): string {
  return join(root, directory, `qb-${ring}-${service}`);
}

function processName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown error';
}

export function reasonOf(error: unknown): string {
  return isCpgError(error) ? error.what : codeOf(error);
}
