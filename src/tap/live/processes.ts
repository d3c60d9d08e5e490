/**
 * Finds the processes at the ends of a connection.
 *
 * The pids in the name of its directory are those that the daemon knows, in its own pid namespace. Here they may be other
 * processes, or none. So a process is named only when it has the rings of the connection open or mapped:
 *
 *     /proc/<pid>/maps       memory of libqb, and of clients that map their rings
 *     /proc/<pid>/fd/*       clients that read and write the files
 *     /proc/<pid>/status     NSpid: the pids of a process in our pid namespace and in those inside it
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { wallClockMs } from '../../clock';

/** Of the first pid namespace of a kernel (PROC_PID_INIT_INO): from there all processes can be seen. */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';
/** A daemon and a client that make a connection are done long before this. */
const OLD_MS = 1000;
const RING_FILE = /\/qb-request-.+-header( \(deleted\))?$/;

/** The process at one end. */
export interface End {
  /** Its pid as the daemon knows it; 0 where it knows none. */
  readonly pid: number;
  /** Its pid here, when it was seen to have the rings. */
  readonly pidHere: number | undefined;
  /** Empty unless it was. */
  readonly name: string;
}

/** A file by its place in the file system, not by its name, which differs between mount namespaces. */
export interface FileId {
  /** As /proc/<pid>/maps has it, with a space around. */
  readonly inMaps: string;
  /** As a set of open files has it. */
  readonly key: string;
  /** Nobody is just making it. */
  readonly isOld: boolean;
}

interface Held {
  readonly maps: string;
  readonly open: ReadonlySet<string>;
}

/** What /proc says, as it was when it was asked first since the last forget(). */
export class Processes {
  readonly #held = new Map<number, Held | undefined>();
  #byInnerPid: Map<number, number[]> | undefined;

  /** Clears the cache. */
  forget(): void {
    this.#held.clear();
    this.#byInnerPid = undefined;
  }

  /** Who is at the end of a connection where the daemon sees `pid`; `ring` is the header file of its request ring. */
  find(pid: number, ring: FileId, opened = false): End {
    // A tap that has opened the rings has them too.
    const candidates = (pid === 0 ? [] : [pid, ...this.#calledInside(pid)]).filter(
      (candidate) => !opened || candidate !== process.pid,
    );
    const pidHere = candidates.find((candidate) => this.#has(candidate, ring) === true);
    return { pid, pidHere, name: pidHere === undefined ? '' : nameOf(pidHere) };
  }

  /** What is to be said of a connection whose daemon is not there; empty when that is not known. */
  absence(server: End, client: End, ring: FileId): string {
    const holders: number[] = [];
    const suspects = [server.pid, client.pid].flatMap((pid) => [pid, ...this.#calledInside(pid)]);
    for (const pid of processes()) {
      if (pid === process.pid) continue;
      const has = this.#has(pid, ring);
      // One of those pids that does not let us look may be the daemon.
      if (has === undefined && suspects.includes(pid)) return '';
      if (has === true) holders.push(pid);
    }
    if (holders.length === 0) return goneText(server.pid, client.pid);
    if (holders.some((pid) => pid !== client.pidHere) || !seesAll()) return '';
    return `its daemon (pid ${server.pid}) is gone`;
  }

  /** The same of a directory without rings, of which nothing but the pids is known. */
  absenceOf(server: number, client: number): string {
    const present = [server, client].some(
      (pid) => pid !== 0 && (existsSync(`/proc/${pid}`) || this.#calledInside(pid).length > 0),
    );
    return present ? '' : goneText(server, client);
  }

  /** Whether a process has a file; undefined when it does not let us look. */
  #has(pid: number, { inMaps, key, isOld }: FileId): boolean | undefined {
    // Somebody may have just opened a new one.
    for (const again of isOld ? [false] : [false, true]) {
      if (again || !this.#held.has(pid)) this.#held.set(pid, heldBy(pid));
      const held = this.#held.get(pid);
      if (held === undefined) return existsSync(`/proc/${pid}`) ? undefined : false;
      if (held.maps.includes(inMaps) || held.open.has(key)) return true;
    }
    return false;
  }

  /** Processes that have this pid in a pid namespace inside ours. */
  #calledInside(pid: number): readonly number[] {
    this.#byInnerPid ??= innerPids();
    return this.#byInnerPid.get(pid) ?? [];
  }
}

function goneText(server: number, client: number): string {
  const who =
    client === 0
      ? `its daemon (pid ${server}) is`
      : `its daemon (pid ${server}) and its client (pid ${client}) are`;
  return seesAll()
    ? `${who} gone: a crash left it behind, and it can be removed`
    : `${who} gone, or in another pid namespace`;
}

/** What there is to say about pids that are not ours. */
export function namespaceText(server: End, client: End): string {
  const ends = [
    { end: server, what: 'daemon' },
    { end: client, what: 'client' },
  ].filter(({ end: { pid, pidHere } }) => pidHere !== undefined && pidHere !== pid);
  return ends
    .map(
      ({ end: { pid, pidHere }, what }) =>
        `pid ${pid} of its ${what} is of another pid namespace, here it is ${pidHere!}`,
    )
    .join('; ');
}

export function isAlive({ pidHere }: End): boolean {
  return pidHere !== undefined && existsSync(`/proc/${pidHere}`);
}

/** Throws the system's error. */
export function fileId(path: string): FileId {
  const { dev, ino, ctimeMs } = statSync(path, { bigint: true });
  const isOld = wallClockMs() - Number(ctimeMs) > OLD_MS;
  const major = (dev >> 8n) & 0xfffn;
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xfff00n);
  const hex = (part: bigint): string => part.toString(16).padStart(2, '0');
  return { inMaps: ` ${hex(major)}:${hex(minor)} ${ino} `, key: `${dev}:${ino}`, isOld };
}

function heldBy(pid: number): Held | undefined {
  try {
    const maps = readFileSync(`/proc/${pid}/maps`, 'latin1');
    const open = new Set<string>();
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const path = `/proc/${pid}/fd/${fd}`;
      try {
        if (!RING_FILE.test(readlinkSync(path))) continue;
        const { dev, ino } = statSync(path, { bigint: true });
        open.add(`${dev}:${ino}`);
      } catch {
        // It has been closed meanwhile.
      }
    }
    return { maps, open };
  } catch {
    return undefined;
  }
}

/** Processes by their pids in the pid namespaces inside ours. */
function innerPids(): Map<number, number[]> {
  const byInner = new Map<number, number[]>();
  for (const here of processes()) {
    const [, ...inner] = /^NSpid:\s*(.*)$/m.exec(content(`/proc/${here}/status`))?.[1]?.split(/\s+/) ?? [];
    for (const pid of inner.map(Number)) byInner.set(pid, [...(byInner.get(pid) ?? []), here]);
  }
  return byInner;
}

function processes(): number[] {
  return readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? [Number(name)] : []));
}

/** Whether all processes are visible to us. */
function seesAll(): boolean {
  try {
    return readlinkSync('/proc/self/ns/pid') === FIRST_PID_NAMESPACE && existsSync('/proc/1/stat');
  } catch {
    return false;
  }
}

function nameOf(pid: number): string {
  return content(`/proc/${pid}/comm`).trim();
}

function content(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
