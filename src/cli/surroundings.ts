/** What can be seen of the machine around a connection that failed: daemons, where they listen, namespaces, shared memory. */
import { readdirSync, readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { pidsOf, SHM_DIRECTORY } from '../ring/paths';

const SERVICE = 'cpg';
/** __SO_ACCEPTCON: the socket listens. */
const LISTENS = 0x10000;
/** sysconf(_SC_CLK_TCK), which is the same on every Linux. */
const TICKS_PER_SECOND = 100;

/** A socket that listens, by its table /proc/net/unix. */
export interface Listening {
  /** '@name' or '/path', as its process sees it. */
  address: string;
  inode: string;
}

export interface Daemon {
  pid: number;
  /** The state letter of /proc: R, S, T for stopped, t for one held by a debugger, and so on. */
  state: string;
  /** How long it has been running. */
  ageSeconds: number | undefined;
  /** Whether it shares our network namespace, if that can be told. */
  sameNetwork: boolean | undefined;
  /** Whether its /dev/shm is ours, if that can be told. */
  sameShm: boolean | undefined;
  /** Sockets of the service cpg in its network namespace that are its own. */
  listens: Listening[];
}

/** Whether processes of others can be seen: not where /proc is mounted with hidepid, or Node may not read it. */
export function seesProcesses(): boolean {
  return content('/proc/1/stat') !== '';
}

/** Processes named corosync. */
export function daemons(): Daemon[] {
  const network = link('/proc/self/ns/net');
  return processes()
    .filter((pid) => nameOf(pid) === 'corosync')
    .map((pid) => {
      const other = link(`/proc/${pid}/ns/net`);
      const own = socketsOf(pid);
      return {
        pid,
        ...statusOf(pid),
        sameNetwork: network === undefined || other === undefined ? undefined : network === other,
        sameShm: sameFile('/dev/shm', `/proc/${pid}/root/dev/shm`),
        listens: listening(pid).filter(
          ({ address, inode }) => /^@cpg$|\/cpg$/.test(address) && own.has(inode),
        ),
      };
    });
}

/** The sockets that listen in our network namespace for the service cpg, whose ever they are. */
export function listeningHere(): Listening[] {
  return listening('self').filter(
    ({ address }) => address === `@${SERVICE}` || address.endsWith(`/${SERVICE}`),
  );
}

/** Who listens at an address; undefined where that cannot be found out. */
export function listenerAt(
  address: string,
  known: readonly Daemon[],
): { pid: number; name: string; state: string } | undefined {
  const told = (pid: number): { pid: number; name: string; state: string } => ({
    pid,
    name: nameOf(pid),
    state: statusOf(pid).state,
  });
  // The same file may have another name for its daemon.
  const daemon = known.find(({ pid, sameNetwork, listens }) =>
    listens.some((one) =>
      address.startsWith('/')
        ? one.address.startsWith('/') && sameFile(address, `/proc/${pid}/root${one.address}`) === true
        : sameNetwork === true && one.address === address,
    ),
  );
  if (daemon !== undefined) return told(daemon.pid);
  const here = listening('self').find((one) => one.address === address);
  const owner = here && processes().find((pid) => socketsOf(pid).has(here.inode));
  return owner === undefined ? undefined : told(owner);
}

/** Room in a /dev/shm, by the process whose it is. */
export interface Space {
  freeBytes: number;
  totalBytes: number;
  /** Files that may still be made. */
  freeFiles: number;
  totalFiles: number;
}

export function shmSpace(pid: number | 'self' = 'self'): Space | undefined {
  try {
    const { bsize, bavail, blocks, ffree, files } = statfsSync(
      pid === 'self' ? '/dev/shm' : `/proc/${pid}/root/dev/shm`,
    );
    return { freeBytes: bsize * bavail, totalBytes: bsize * blocks, freeFiles: ffree, totalFiles: files };
  } catch {
    return undefined;
  }
}

/** How many files a process has open, and may have; nothing where we may not look. */
export function openFiles(pid: number): { open?: number; most?: string } {
  const [, most] = /^Max open files +(\d+)/m.exec(content(`/proc/${pid}/limits`)) ?? [];
  const open = list(`/proc/${pid}/fd`).length;
  return open === 0 || most === undefined ? {} : { open, most };
}

/** Rings of a libqb service in our /dev/shm whose process is not to be seen here. */
export function ringsOfOthers(): boolean {
  const here = new Set(processes());
  return list(SHM_DIRECTORY).some((name) => {
    const pids = pidsOf(name);
    return pids !== undefined && !here.has(pids.serverPid);
  });
}

/** What kind of restrictions this process is under, for the one who has to find the cause. */
export function ownFacts(): string[] {
  const namespaces = ['user', 'pid', 'net', 'mnt'].map(
    (name) => link(`/proc/self/ns/${name}`) ?? `${name}:unknown`,
  );
  const status = content('/proc/self/status');
  const of = (field: string): string =>
    new RegExp(`^${field}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? 'unknown';
  const profile = content('/proc/self/attr/current').replaceAll('\0', '').trim();
  return [
    `Namespaces of this process: ${namespaces.join(' ')}.`,
    `Its capabilities: ${of('CapEff')}; seccomp: ${of('Seccomp')}; security profile: ${profile === '' ? 'none' : profile}.`,
  ];
}

// ----------------------------------------------------------------------------------------------------------- /proc

function processes(): number[] {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function nameOf(pid: number): string {
  return content(`/proc/${pid}/comm`).trimEnd();
}

function statusOf(pid: number): { state: string; ageSeconds: number | undefined } {
  // The name, in parentheses, may hold anything.
  const text = content(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const uptime = Number(content('/proc/uptime').split(' ')[0]);
  const age = uptime - Number(fields[19]) / TICKS_PER_SECOND;
  return { state: fields[0] ?? '', ageSeconds: Number.isNaN(age) ? undefined : Math.max(0, age) };
}

/** Inodes of the sockets a process has open; none where we may not look. */
function socketsOf(pid: number): Set<string> {
  const directory = `/proc/${pid}/fd`;
  return new Set(
    list(directory).flatMap((fd) => /^socket:\[(\d+)\]$/.exec(link(`${directory}/${fd}`) ?? '')?.[1] ?? []),
  );
}

function listening(pid: number | 'self'): Listening[] {
  return content(`/proc/${pid}/net/unix`)
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      // Num RefCount Protocol Flags Type St Inode Path
      const [, flags, inode, path] = /^\S+ \S+ \S+ (\S+) \S+ \S+ +(\d+) (.+)$/.exec(line) ?? [];
      if (flags === undefined || inode === undefined || path === undefined) return [];
      if ((Number.parseInt(flags, 16) & LISTENS) === 0) return [];
      // An abstract name is shown with an @ for each of its NULs.
      return [{ address: path.startsWith('@') ? path.replace(/@+$/, '') : path, inode }];
    });
}

function sameFile(one: string, other: string): boolean | undefined {
  try {
    const [a, b] = [statSync(one), statSync(other)];
    return a.dev === b.dev && a.ino === b.ino;
  } catch {
    return undefined;
  }
}

function link(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function content(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
