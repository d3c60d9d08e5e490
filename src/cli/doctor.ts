/** Why a daemon cannot be reached: the error says what failed, the machine around it why. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { CpgError } from '../errors';

export type Cause =
  | 'not-running'
  | 'other-address'
  | 'network-namespace'
  | 'permission'
  | 'shm-not-shared'
  | 'shm-too-small'
  | 'ipc-type-socket'
  | 'starting'
  | 'not-answering'
  | 'not-corosync'
  | 'unknown';

export interface Diagnosis {
  cause: Cause;
  /** Sentences about what was looked at. */
  findings: string[];
  /** Better advice than the error's own, if there is any. */
  remedy?: string;
}

/** What can be seen of the machine; tests make one up. */
export interface Surroundings {
  /** Processes named corosync, and whether they share our network namespace, if that can be told. */
  daemons: { pid: number; sameNetwork: boolean | undefined }[];
  /** Abstract sockets of our network namespace. */
  abstractNames: string[];
  /** Rings of any libqb service are in our /dev/shm. */
  ringsInShm: boolean;
  socketExists: (path: string) => boolean;
}

const START_REMEDY =
  'start it (systemctl start corosync); in a container, share the network namespace and /dev/shm of the host';

export function diagnose(error: CpgError, address: string, around = lookAround()): Diagnosis {
  const { syscall } = (error.cause ?? {}) as NodeJS.ErrnoException;
  switch (error.code) {
    case 'CS_ERR_ACCESS':
      if (syscall === 'connect') {
        return {
          cause: 'permission',
          findings: ['The socket file does not let this user in.'],
          remedy: `run as a user who may write to ${address}, its owner for instance`,
        };
      }
      return { cause: 'permission', findings: ['The daemon is there and does not allow this user.'] };
    case 'CS_ERR_NO_SPACE':
      return { cause: 'shm-too-small', findings: ['The daemon found no room for a connection in /dev/shm.'] };
    case 'CS_ERR_NOT_SUPPORTED':
      return { cause: 'ipc-type-socket', findings: ['The daemon is there and uses another transport.'] };
    case 'CS_ERR_TRY_AGAIN':
      return { cause: 'starting', findings: ['The daemon is there and not ready.'] };
    case 'CS_ERR_TIMEOUT':
      return {
        cause: 'not-answering',
        findings: ['Something listens there and does not answer.', ...daemonFindings(around)],
      };
    case 'CS_ERR_MESSAGE_ERROR':
    case 'CS_ERR_SECURITY':
      return { cause: 'not-corosync', findings: ['Something answers there, and not as corosync does.'] };
    case 'CS_ERR_LIBRARY':
      if (error.reason === 'datagrams-not-there') {
        return {
          cause: 'network-namespace',
          findings: ['The daemon answered, and its datagram sockets cannot be reached from here.'],
        };
      }
      if (syscall === 'connect') return unreachable(address, around);
      if (syscall === 'open' || syscall === 'lstat') {
        return {
          cause: 'shm-not-shared',
          findings: ['The daemon answered, and its rings are not in the /dev/shm that we see.'],
          remedy:
            "share the daemon's /dev/shm with this container (docker run --ipc=host, or -v /dev/shm:/dev/shm)",
        };
      }
      return { cause: 'unknown', findings: daemonFindings(around) };
    default:
      return { cause: 'unknown', findings: [] };
  }
}

/** Nobody listens at the address. */
function unreachable(address: string, around: Surroundings): Diagnosis {
  return address.startsWith('/') ? noSuchSocket(address, around) : noSuchName(address, around);
}

/** A path: network namespaces do not matter to it. */
function noSuchSocket(address: string, around: Surroundings): Diagnosis {
  const findings = [
    around.socketExists(address)
      ? `There is a file ${address}, and nobody listens behind it.`
      : `There is no file ${address}.`,
    ...daemonFindings(around),
  ];
  if (around.daemons.length === 0) return { cause: 'not-running', findings, remedy: START_REMEDY };
  const [known = '@cpg'] = knownAddresses(address, around);
  return {
    cause: 'other-address',
    findings,
    remedy: `give the address at which the daemon listens, --address ${known} perhaps`,
  };
}

/** Where a daemon of this machine may listen instead. */
function knownAddresses(address: string, { abstractNames, socketExists }: Surroundings): string[] {
  const names = abstractNames.includes('cpg') ? ['@cpg'] : [];
  const inFiles = ['/run/cpg', '/var/run/cpg', '/tmp/cpg'].filter((path) => socketExists(path));
  return [...names, ...inFiles].filter((candidate) => candidate !== address);
}

function noSuchName(address: string, around: Surroundings): Diagnosis {
  const findings = daemonFindings(around);
  const { daemons } = around;
  const near = daemons.some(({ sameNetwork }) => sameNetwork === true);
  const elsewhere = daemons.find(({ sameNetwork }) => sameNetwork === false);
  if (near) {
    const known = knownAddresses(address, around);
    return {
      cause: known.length > 0 ? 'other-address' : 'starting',
      findings,
      remedy:
        known.length > 0
          ? `give --address ${known[0]!}: the daemon seems to listen there`
          : 'wait until the daemon has started, or see in its log whether it offers the service cpg',
    };
  }
  if (elsewhere !== undefined) {
    return {
      cause: 'network-namespace',
      findings,
      remedy: `run it in the daemon's network namespace (nsenter --target ${elsewhere.pid} --net; docker run --network=host): abstract sockets do not cross that border`,
    };
  }
  if (daemons.length === 0 && around.ringsInShm) {
    return {
      cause: 'network-namespace',
      findings: [
        ...findings,
        'There are rings of libqb in /dev/shm, so a daemon seems to run outside of this container.',
      ],
      remedy: "share the daemon's network namespace with this container (docker run --network=host)",
    };
  }
  return {
    cause: daemons.length === 0 ? 'not-running' : 'unknown',
    findings,
    ...(daemons.length === 0 ? { remedy: START_REMEDY } : {}),
  };
}

function daemonFindings({ daemons }: Surroundings): string[] {
  if (daemons.length === 0) return ['No process named corosync is to be seen.'];
  return daemons.map(({ pid, sameNetwork }) => {
    const where = {
      true: 'in our network namespace',
      false: 'in another network namespace',
      undefined: 'in a network namespace that cannot be looked at',
    };
    return `corosync runs as pid ${pid}, ${where[`${sameNetwork}`]}.`;
  });
}

function lookAround(): Surroundings {
  const ownNetwork = networkOf('self');
  const daemons = list('/proc')
    .filter((name) => /^\d+$/.test(name) && content(`/proc/${name}/comm`).trim() === 'corosync')
    .map((name) => {
      const network = networkOf(name);
      const known = network !== undefined && ownNetwork !== undefined;
      return { pid: Number(name), sameNetwork: known ? network === ownNetwork : undefined };
    });
  const abstractNames = content('/proc/net/unix')
    .split('\n')
    .flatMap((line) => /@(\S+?)@*$/.exec(line)?.[1] ?? []);
  const ringsInShm = list('/dev/shm').some((name) => /^qb-\d+-\d+-\d+-/.test(name));
  return { daemons, abstractNames, ringsInShm, socketExists: existsSync };
}

function networkOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
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
