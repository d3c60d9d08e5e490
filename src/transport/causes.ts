/**
 * Why a daemon cannot be reached, and what to do about it: the one table of causes, for the errors of connect() and for
 * `cpg info`. docs/troubleshooting.md shows each of them as it is seen.
 *
 * A cause is named where something shows that it is this one. Where nothing does it is `unknown`: the error then has the facts
 * alone, and advice that holds for each of the possible causes.
 */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { CpgError, isCpgError, type CpgErrorCode, type CpgErrorReason } from '../errors';
import { systemError, systemErrorCode, type Remedies } from '../system-error';

/** Whom the system and the daemon take this process for. */
export interface User {
  uid: number;
  gid: number;
  euid: number;
  egid: number;
  /** Of `uid` and `gid`, outside of the user namespace of this process; undefined when it is in none of its own. */
  outer: { uid: number | undefined; gid: number | undefined } | undefined;
}

/** What a row may say; each row is used where the facts that it needs are known. */
export interface Facts {
  user: User;
  /** The file or directory that it is about. */
  path: string;
  /** The address at which a daemon answers. */
  known: string;
  /** The daemon, or the process that holds its place. */
  pid: number;
  /** It was seen to be stopped. */
  stopped: boolean;
  /** Who owns what should be ours. */
  owner: number;
}

interface Row {
  reason?: CpgErrorReason;
  /** What was found, as a sentence. */
  finding: string;
  /** What to do. */
  remedy: string | ((facts: Facts) => string);
}

export const FORCE_FILESYSTEM_SOCKETS = '/etc/libqb/force-filesystem-sockets';

const START =
  'start it (systemctl start corosync); in a container, share the network namespace and /dev/shm of the host';
/** What a connection needs of a /dev/shm. */
export const SHM_REMEDY =
  'a connection takes about 3.2 MB and 7 files (inodes) of /dev/shm: make it larger (mount -o remount,size=256m,nr_inodes=10k /dev/shm; docker run --shm-size); df and df -i show which it lacks';

export const CAUSES = {
  // Nobody answers.
  'not-running': {
    reason: 'no-daemon',
    finding: 'Nobody listens there, and no corosync was found.',
    remedy: START,
  },
  starting: {
    finding: 'A daemon is there, and is not ready or does not offer the service cpg.',
    remedy:
      'wait until the daemon has started, or see in its log what it waits for and whether it offers the service cpg',
  },
  'other-address': {
    reason: 'no-daemon',
    finding: 'A daemon listens at another address.',
    remedy: ({ known }) =>
      `give the address at which it listens: --address ${known}, or CPG_ADDRESS=${known}`,
  },
  'forced-sockets': {
    reason: 'no-daemon',
    finding: `${FORCE_FILESYSTEM_SOCKETS} exists on this side only: the daemon listens at an abstract socket, and here @names are looked for as files.`,
    remedy: `remove ${FORCE_FILESYSTEM_SOCKETS} here, or make it for the daemon too and restart it: both sides must agree`,
  },
  'network-namespace': {
    reason: 'no-daemon',
    finding: 'The daemon listens in another network namespace, whose border abstract sockets do not cross.',
    remedy: ({ pid }) =>
      `run in the daemon's network namespace (nsenter --target ${pid} --net; docker run --network=host), or make ${FORCE_FILESYSTEM_SOCKETS} on both sides and mount its socket file here`,
  },
  'socket-not-mounted': {
    reason: 'no-daemon',
    finding: 'The daemon listens at a socket file that is not to be seen here.',
    remedy: ({ pid, path }) =>
      `mount its socket here (docker run -v ${path}:${path}) and give --address ${path}; for root, /proc/${pid}/root${path} is an address, too`,
  },
  'not-a-socket': {
    reason: 'no-daemon',
    finding: 'What is at that path is not a socket that a daemon listens at.',
    remedy: 'give the path of the socket of the daemon; without an address it is @cpg',
  },
  'socket-permission': {
    reason: 'socket-permission',
    finding: 'The system keeps this user from the socket; the daemon was not asked.',
    remedy: ({ path }) => `open ${path} to this user, or run as one who may use it`,
  },
  'not-answering': {
    reason: 'no-answer',
    finding: 'Something listens there and does not answer.',
    remedy: ({ stopped, pid }) =>
      stopped
        ? `it is stopped, by SIGSTOP or a debugger: let it go on (kill -CONT ${pid}), or end the debugger`
        : 'see whether the daemon is overloaded or hangs, in its log and with top; or raise the time limit',
  },
  'hung-up': {
    reason: 'handshake-failed',
    finding: 'Something listens there and closed the connection without an answer.',
    remedy: 'check that this is a corosync daemon, and its log; it may be shutting down',
  },
  'not-corosync': {
    finding: 'Something answers there, and not as corosync does.',
    remedy: 'find out which program answers on this address (ss -xlp)',
  },
  // The daemon answers, and refuses.
  permission: {
    reason: 'not-allowed',
    finding: 'The daemon is there and does not allow this user.',
    remedy: ({ user }) => allow(user),
  },
  'daemon-cannot-write': {
    reason: 'refused',
    finding: 'The daemon is there, and the system keeps it from making rings for us.',
    remedy: 'the daemon cannot write where it makes its rings, /dev/shm as a rule: see its log',
  },
  'shm-too-small': {
    reason: 'refused',
    finding: 'The daemon found no room for a connection in its /dev/shm.',
    remedy: SHM_REMEDY,
  },
  'daemon-too-many-files': {
    reason: 'refused',
    finding: 'The daemon is there and has no file descriptors left.',
    remedy:
      'the daemon, or its node, has no file descriptors left: close connections or raise the limit (LimitNOFILE of its unit)',
  },
  'daemon-out-of-memory': {
    reason: 'refused',
    finding: 'The daemon is there and got no memory for a connection.',
    remedy: 'free memory on the node of the daemon',
  },
  'no-service': {
    reason: 'refused',
    finding: 'The daemon is there and does not offer this service.',
    remedy: 'see in the log of the daemon why its service cpg is not loaded',
  },
  // The daemon is of a kind that we cannot talk to.
  'ipc-type-socket': {
    reason: 'socket-mode',
    finding: 'The daemon is there and uses datagrams instead of shared memory, which nothing here can open.',
    remedy: 'set "qb_ipc_type: native" in the system section of corosync.conf and restart corosync',
  },
  'datagrams-not-there': {
    reason: 'datagrams-not-there',
    finding: 'The daemon answered, and its datagram sockets cannot be reached from here.',
    remedy:
      "run in the daemon's network namespace, which datagrams do not leave, or set qb_ipc_type to native",
  },
  'old-libqb': {
    reason: 'old-libqb',
    finding: 'The daemon is there and runs with a libqb before 1.0.4.',
    remedy: 'update libqb on this node: its rings have been in private directories since 1.0.4',
  },
  '32-bit': {
    reason: '32-bit',
    finding: 'The daemon is there and is a 32-bit program, whose rings are laid out in another way.',
    remedy: 'run a 64-bit corosync on this node: only its layout is known',
  },
  'byte-order': {
    reason: 'byte-order',
    finding: 'The daemon is there and is built for a machine of the other byte order.',
    remedy:
      'run a corosync that is built for this machine, little-endian and 64-bit, and not under an emulator',
  },
  'ring-layout': {
    reason: 'ring-layout',
    finding: 'The daemon is there, and its rings are laid out in a way that is not known.',
    remedy: 'only the 64-bit layout of libqb 1 and 2 is known: compare the versions of both sides',
  },
  'old-node': {
    reason: 'old-node',
    finding: 'This Node cuts the name of a socket at the first NUL, with which abstract names begin.',
    remedy: "use Node 20.8 or later, or a filesystem socket ('/path')",
  },
  // The daemon let us in; its rings cannot be opened.
  'shm-not-shared': {
    reason: 'rings-not-there',
    finding: 'The daemon answered, and its rings are not in the /dev/shm that we see.',
    remedy:
      "share the daemon's /dev/shm with this container (docker run --ipc=host, or -v /dev/shm:/dev/shm), or see whether the daemon is stopping",
  },
  'shm-read-only': {
    reason: 'ring-read-only',
    finding: 'The daemon let us in, and its rings are in a file system that is mounted read-only here.',
    remedy: ({ path }) => `mount ${dirname(path)} writable (no ":ro" at docker run -v /dev/shm:/dev/shm)`,
  },
  'effective-user': {
    reason: 'effective-user',
    finding: 'The daemon let the real user of this process in, whose rings its effective user may not open.',
    remedy: ({ user: { uid, euid } }) =>
      `connect with one user for both: the real user (uid ${uid}) and the effective user (uid ${euid}) differ, and the kernel shows the daemon the real one`,
  },
  'shm-permission': {
    reason: 'ring-permission',
    finding: 'The daemon let us in, and a directory above the rings does not let this user through.',
    remedy: ({ path }) => `let this user into ${path} (/dev/shm has mode 1777 as a rule)`,
  },
  'other-owner': {
    finding: 'Something answers there whose rings belong to another user.',
    remedy: ({ owner }) =>
      `find out which program answers on this address; nothing was written. A daemon without root's rights cannot give rings away: if it is yours, run as its user (uid ${owner})`,
  },
  // This process.
  'node-permission': {
    reason: 'node-permission',
    finding: "Node's permission model forbids it.",
    remedy:
      'allow it to Node: --allow-fs-read=/dev/shm --allow-fs-write=/dev/shm --allow-fs-read=/etc/libqb, and --allow-net where Node has that option',
  },
  'too-many-files': {
    finding: 'This process may open no more files.',
    remedy:
      'a connection takes 7 descriptors: close connections, or raise the limit of this process (ulimit -n)',
  },
  'machine-too-many-files': {
    finding: 'This machine may open no more files.',
    remedy: 'raise the limit of the machine (sysctl fs.file-max), or close files',
  },
  unknown: {
    finding: 'The cause was not found; these are the facts.',
    remedy: 'see the facts: no cause that is known fits them',
  },
} as const satisfies Record<string, Row>;

export type Cause = keyof typeof CAUSES;

const causes = new WeakMap<CpgError, Cause>();

/** The cause of an error that was made here. */
export function causeOf(error: unknown): Cause | undefined {
  return causes.get(error as CpgError);
}

/** What a row needs, beside the user, and what else the error has. */
export interface Circumstances extends Partial<Omit<Facts, 'user'>> {
  /** The error of the system. */
  error?: unknown;
  /** Default: that of the system's error. */
  code?: CpgErrorCode;
  /** Default: that of the row. */
  reason?: CpgErrorReason;
}

/** The error that `what` happened, by `cause`. */
export function failure(cause: Cause, what: string, circumstances: Circumstances = {}): CpgError {
  const row: Row = CAUSES[cause];
  const { error, code, reason = row.reason, ...facts } = circumstances;
  const { code: errno } = (error ?? {}) as NodeJS.ErrnoException;
  const failed = new CpgError(code ?? systemErrorCode(errno), what, {
    reason,
    remedy: remedyOf(cause, facts),
    cause: error,
  });
  causes.set(failed, cause);
  return failed;
}

/** What to do about `cause`, whose row must find all that it needs in `facts`. */
export function remedyOf(cause: Cause, facts: Partial<Omit<Facts, 'user'>> = {}): string {
  const { remedy }: Row = CAUSES[cause];
  return typeof remedy === 'string' ? remedy : remedy({ ...(facts as Facts), user: currentUser() });
}

/** An error of the system that fits no other row: what the error says, and whom it says it to. */
export function unexplained(error: unknown, what: string): CpgError {
  const failed = systemError(error, `${what} as ${describeUser(currentUser())}`, UNEXPLAINED);
  if (!isCpgError(error)) causes.set(failed, 'unknown');
  return failed;
}

/** What is right whatever the cause. */
const UNEXPLAINED: Remedies = {
  CS_ERR_ACCESS:
    'the system forbids it, and file permissions do not show why: see whether a security module or a sandbox (SELinux, AppArmor, Landlock, seccomp) does',
  CS_ERR_INVALID_PARAM: 'the system does not take this; cpg info shows the facts',
  CS_ERR_LIBRARY: 'this is an error of the system that says no more; cpg info shows the facts',
  CS_ERR_TRY_AGAIN: 'the daemon has too many connections waiting: see whether it is stopped or overloaded',
};

/** The cause of an error of the system that does not depend on what was done. */
export function causeInSystem(error: unknown): Cause | undefined {
  return CAUSES_IN_SYSTEM[(error as NodeJS.ErrnoException).code ?? ''];
}

const CAUSES_IN_SYSTEM: Readonly<Record<string, Cause>> = {
  ERR_ACCESS_DENIED: 'node-permission',
  EMFILE: 'too-many-files',
  ENFILE: 'machine-too-many-files',
};

// -------------------------------------------------------------------------------------------------------- the user

/** Whom the system takes this process for. Where there are no users, all numbers are 0. */
export function currentUser(): User {
  const uid = process.getuid?.() ?? 0;
  const gid = process.getgid?.() ?? 0;
  const uids = idMap('uid_map');
  const gids = idMap('gid_map');
  return {
    uid,
    gid,
    euid: process.geteuid?.() ?? uid,
    egid: process.getegid?.() ?? gid,
    outer:
      uids === undefined && gids === undefined
        ? undefined
        : { uid: outside(uid, uids), gid: outside(gid, gids) },
  };
}

/** The real user first: the kernel shows that one to the daemon. */
export function describeUser({ uid, gid, euid, egid, outer }: User): string {
  const effective = euid === uid && egid === gid ? '' : `, effective uid ${euid} gid ${egid}`;
  const beyond =
    outer === undefined
      ? ''
      : `, outside of this user namespace uid ${outer.uid ?? 'unknown'} gid ${outer.gid ?? 'unknown'}`;
  return `uid ${uid} gid ${gid}${effective}${beyond}`;
}

const CAP_DAC_OVERRIDE = 2n;

/** Whether permissions of files do not bind this process, as they do not bind root as a rule. */
export function overridesPermissions(): boolean {
  try {
    const [, mask = '0'] = /^CapEff:\s*([\da-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
    return (BigInt(`0x${mask}`) & CAP_DAC_OVERRIDE) !== 0n;
  } catch {
    return process.geteuid?.() === 0;
  }
}

type IdRange = readonly [inside: number, outside: number, count: number];
const ALL_IDS = 2 ** 32 - 1;

/** The ids of this user namespace in the one around it; undefined where they are the same. */
function idMap(name: 'uid_map' | 'gid_map'): readonly IdRange[] | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/self/${name}`, 'utf8');
  } catch {
    return undefined;
  }
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const ranges = lines.map((line) => line.trim().split(/ +/).map(Number) as unknown as IdRange);
  const [first] = ranges;
  const isIdentity = ranges.length === 1 && first?.[0] === 0 && first[1] === 0 && first[2] === ALL_IDS;
  return isIdentity ? undefined : ranges;
}

function outside(id: number, ranges: readonly IdRange[] | undefined): number | undefined {
  if (ranges === undefined) return id;
  const range = ranges.find(([inside, , count]) => id >= inside && id < inside + count);
  return range && range[1] + (id - range[0]);
}

/** corosync lets root in, user or group, whatever its configuration says. */
export function isRootForDaemon({ uid, gid, outer }: User): boolean {
  const seen = outer ?? { uid, gid };
  return seen.uid === 0 || seen.gid === 0;
}

function allow({ uid, gid, outer }: User): string {
  const seen = outer ?? { uid, gid };
  if (seen.uid === undefined || seen.gid === undefined) {
    return 'allow it with a uidgid stanza in corosync.conf, with the uid that the daemon sees: this process has none outside of its user namespace';
  }
  const where = outer === undefined ? '' : ' on the machine of the daemon';
  const file = `/etc/corosync/uidgid.d/uid-${seen.uid}`;
  return (
    `allow it${where}: put "uidgid { uid: ${seen.uid} }" (or "gid: ${seen.gid}"), one directive a line, into corosync.conf ` +
    `or a file of /etc/corosync/uidgid.d and run corosync-cfgtool -R; as root: ` +
    `printf 'uidgid {\\n  uid: ${seen.uid}\\n}\\n' > ${file} && corosync-cfgtool -R`
  );
}
