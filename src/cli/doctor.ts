/** Why a daemon cannot be reached: the error says what failed, the machine around it why. */
import { realpathSync, statSync } from 'node:fs';
import type { CpgError } from '../errors';
import { abstractAddress, exists, resolveAddress, socketFiles, type Address } from '../transport/address';
import { CAUSES, causeOf, remedyOf, type Cause } from '../transport/causes';
import { removeUnopened } from '../transport/connection-files';
import { ServiceSocket } from '../transport/service-socket';
import {
  daemons,
  listenerAt,
  listeningHere,
  openFiles,
  ownFacts,
  ringsOfOthers,
  seesProcesses,
  shmSpace,
  type Daemon,
} from './surroundings';

const SERVICE = 'cpg';
/** For each of the other addresses. */
const PROBE_TIMEOUT_MS = 1000;

export interface Diagnosis {
  cause: Cause;
  /** Sentences about what was looked at. */
  findings: string[];
  /** What to do. */
  remedy: string;
}

/** The address that failed, and where it comes from. */
export interface Asked {
  address: string;
  from: 'option' | 'environment' | 'default';
  environment: string | undefined;
}

/** What was tried, beside the address itself. */
interface Probe {
  address: Address;
  listens: boolean;
  /** What came of it, to follow the address. */
  outcome: string;
}

export async function diagnose(error: CpgError, asked: Asked, signal: AbortSignal): Promise<Diagnosis> {
  const cause = causeOf(error) ?? causeOf(error.cause) ?? causeByCode(error);
  const found = (row: Cause, more: string[] = [], remedy = error.remedy): Diagnosis => ({
    cause: row,
    findings: [CAUSES[row].finding, ...more],
    remedy,
  });
  switch (cause) {
    case 'not-running':
    case 'not-a-socket':
      return noListener(cause, error, asked, signal);
    case 'not-answering':
      return silence(asked);
    case 'starting':
      // The error may be that of the time limit.
      return found(cause, daemons().map(describe), remedyOf(cause));
    case 'socket-permission': {
      const tried = await probeOthers(asked, daemons(), signal);
      return found(cause, tried.map(describeProbe));
    }
    case 'shm-not-shared':
      return found(cause, shmFindings());
    case 'shm-too-small':
    case 'daemon-cannot-write':
      return found(cause, shmFacts(asked));
    case 'daemon-too-many-files':
      return found(cause, fileFacts(asked));
    case 'not-corosync': {
      const listener = listenerAt(asked.address, daemons());
      const who = listener === undefined ? [] : [`Pid ${listener.pid} (${listener.name}) listens there.`];
      return found(cause, who, remedyOf(cause));
    }
    case 'unknown':
      return found(cause, [...errorFacts(error), ...ownFacts(), ...daemons().map(describe)]);
    default:
      return found(cause);
  }
}

/** For errors that were not made by the table. */
function causeByCode({ code, reason }: CpgError): Cause {
  if (code === 'CS_ERR_TIMEOUT' && reason === 'no-answer') return 'not-answering';
  if (reason === 'socket-mode') return 'ipc-type-socket';
  if (reason === 'datagrams-not-there') return reason;
  if (code === 'CS_ERR_MESSAGE_ERROR' || code === 'CS_ERR_SECURITY') return 'not-corosync';
  return 'unknown';
}

// --------------------------------------------------------------------------------------------- nobody at the address

/** Nobody listens at the address: where else does somebody? */
async function noListener(
  cause: 'not-running' | 'not-a-socket',
  error: CpgError,
  asked: Asked,
  signal: AbortSignal,
): Promise<Diagnosis> {
  const around = daemons();
  const { path, text } = resolveAddress(asked.address);
  const forced = text.startsWith('@') && path.startsWith('/');
  const tried = await probeOthers(asked, around, signal);
  const facts = [
    ...(asked.from === 'environment' ? [`The address ${asked.address} comes from CPG_ADDRESS.`] : []),
    ...(path.startsWith('/') ? [describeFile(path)] : []),
    ...around.map(describe),
    ...tried.map(describeProbe),
  ];
  const found = (row: Cause, remedy: string, more: string[] = []): Diagnosis => ({
    cause: row,
    findings: [CAUSES[row].finding, ...facts, ...more],
    remedy,
  });

  // A socket that its daemon left behind: a server of somebody else's is not what was meant.
  const left = cause === 'not-running' && path.startsWith('/') && exists(path);
  if (left && around.length === 0) return found('not-running', remedyOf('not-running'));
  const known = tried.find(({ listens }) => listens)?.address;
  if (known !== undefined && !(forced && known.path.startsWith('\0'))) {
    return found('other-address', remedyOf('other-address', { known: known.text }));
  }
  if (known !== undefined) return found('forced-sockets', remedyOf('forced-sockets'));
  if (cause === 'not-a-socket') return found(cause, error.remedy);

  const near = around.find(({ sameNetwork }) => sameNetwork === true);
  if (near?.listens.length === 0) return found('starting', remedyOf('starting'));
  const places = around.flatMap(({ pid, sameNetwork, listens }) =>
    listens.map(({ address }) => ({ pid, path: address, sameNetwork })),
  );
  const beyond = places.find((place) => place.sameNetwork === false && place.path.startsWith('@'));
  if (beyond !== undefined) return found('network-namespace', remedyOf('network-namespace', beyond));
  const hidden = places.find((place) => place.path.startsWith('/'));
  if (hidden !== undefined) return found('socket-not-mounted', remedyOf('socket-not-mounted', hidden));
  if (around.length > 0) {
    return found(
      'unknown',
      'run cpg info as root, who may look at the namespaces and the sockets of the daemon',
    );
  }
  if (!seesProcesses()) {
    return found(
      'unknown',
      'start the daemon (systemctl start corosync); or, if it runs, run cpg info as root and without restrictions, so that it finds where',
      ['Processes of others cannot be seen here, so a daemon may run somewhere.'],
    );
  }
  if (ringsOfOthers()) {
    const rings =
      'There are rings of a libqb service in /dev/shm whose process is not to be seen: it runs outside of this container, or has crashed.';
    return found(
      'unknown',
      'if the daemon runs outside of this container, share its network namespace (docker run --network=host); else start it (systemctl start corosync)',
      [rings],
    );
  }
  return found('not-running', remedyOf('not-running'));
}

function describeFile(path: string): string {
  try {
    const stat = statSync(path);
    if (stat.isSocket())
      return `There is a socket ${path}, and nobody listens behind it: its daemon has ended.`;
    const kind = stat.isDirectory() ? 'directory' : stat.isFile() ? 'file' : 'special file';
    return `${path} is a ${kind}, not a socket.`;
  } catch (error) {
    return `There is no socket ${path} (${(error as NodeJS.ErrnoException).code}).`;
  }
}

/** Tries the usual addresses, that of the environment, and those at which the system shows a listener. */
function probeOthers(asked: Asked, around: readonly Daemon[], signal: AbortSignal): Promise<Probe[]> {
  const { path: failed, others = [] } = resolveAddress(asked.address);
  const files = [
    ...(asked.environment?.startsWith('/') === true ? [asked.environment] : []),
    ...socketFiles(SERVICE),
    ...listeningHere().map(({ address }) => address),
    ...around.flatMap(({ listens }) => listens.map(({ address }) => address)),
  ].filter((path) => path.startsWith('/'));
  const different = new Map<string, Address>();
  const known = new Set([failed, ...others].map(realPath));
  for (const path of files) {
    const real = realPath(path);
    if (!known.has(real)) different.set(real, { text: path, path });
    known.add(real);
  }
  const abstract = abstractAddress(SERVICE);
  const candidates = [...(failed === abstract.path ? [] : [abstract]), ...different.values()];
  return Promise.all(candidates.map((address) => probe(address, signal)));
}

/** A handshake; what it was given is given back. */
async function probe(address: Address, signal: AbortSignal): Promise<Probe> {
  const timeout = AbortSignal.timeout(PROBE_TIMEOUT_MS);
  try {
    const { service, answer } = await ServiceSocket.open(address, AbortSignal.any([signal, timeout]));
    service.socket.destroy();
    removeUnopened(answer);
    return { address, listens: true, outcome: 'a daemon answers' };
  } catch (error) {
    if (signal.aborted) throw error;
    if (timeout.aborted) return { address, listens: true, outcome: 'something listens and does not answer' };
    const { reason, cause, what } = error as CpgError;
    const { code } = (cause ?? {}) as NodeJS.ErrnoException;
    if (reason === 'no-daemon') {
      return {
        address,
        listens: false,
        outcome: code === 'ENOENT' ? 'no such socket' : `nobody listens (${code})`,
      };
    }
    if (code !== undefined) return { address, listens: false, outcome: `no connection (${code})` };
    return { address, listens: true, outcome: what };
  }
}

function describeProbe({ address, outcome }: Probe): string {
  return `Tried ${address.text}: ${outcome}.`;
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path.replace(/^\/var\/run\//, '/run/');
  }
}

// --------------------------------------------------------------------------------------------------------- the rest

function silence(asked: Asked): Diagnosis {
  const around = daemons();
  const listener = listenerAt(asked.address, around);
  const { pid = 0, name, state = '' } = listener ?? {};
  return {
    cause: 'not-answering',
    findings: [
      CAUSES['not-answering'].finding,
      ...(listener === undefined
        ? around.map(describe)
        : [`Pid ${pid} (${name}) listens there, in state ${state}${isStopped(state) ? ' (stopped)' : ''}.`]),
    ],
    remedy: remedyOf('not-answering', { pid, stopped: isStopped(state) }),
  };
}

function isStopped(state: string): boolean {
  return state === 'T' || state === 't';
}

function shmFindings(): string[] {
  if (!exists('/dev/shm')) return ['There is no /dev/shm here.'];
  return daemons().map((daemon) => {
    const { pid, sameShm } = daemon;
    const whose = {
      true: 'that of this process',
      false: 'another than that of this process',
      undefined: 'out of our sight',
    };
    return `${describe(daemon)} The /dev/shm of pid ${pid} is ${whose[`${sameShm}`]}.`;
  });
}

/** What can be seen of the daemon that refused, and of its /dev/shm; of our own where the daemon is out of sight. */
function shmFacts(asked: Asked): string[] {
  const listener = listenerAt(asked.address, daemons());
  const space = shmSpace(listener?.pid ?? 'self');
  const whose =
    listener === undefined ? 'The /dev/shm of this process' : `The /dev/shm of pid ${listener.pid}`;
  if (space === undefined) return [`${whose} cannot be looked at.`];
  const { freeBytes, totalBytes, freeFiles, totalFiles } = space;
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
  const bytes = totalBytes === 0 ? 'no limit' : `${megabytes(freeBytes)} MB free of ${megabytes(totalBytes)}`;
  const files = totalFiles === 0 ? 'no limit of files' : `${freeFiles} files free of ${totalFiles}`;
  return [`${whose} has ${bytes}, and ${files}.`];
}

function fileFacts(asked: Asked): string[] {
  const listener = listenerAt(asked.address, daemons());
  const { open, most } = listener === undefined ? {} : openFiles(listener.pid);
  return open === undefined ? [] : [`Pid ${listener!.pid} has ${open} files open, of at most ${most}.`];
}

function errorFacts(error: CpgError): string[] {
  const { code, syscall, path } = (error.cause ?? {}) as NodeJS.ErrnoException;
  if (code === undefined) return [];
  const call = syscall === undefined ? '' : ` from ${syscall}()`;
  return [`The system says ${code}${call}${path === undefined ? '' : ` for ${JSON.stringify(path)}`}.`];
}

function describe({ pid, state, ageSeconds, sameNetwork, listens }: Daemon): string {
  const where = {
    true: 'in our network namespace',
    false: 'in another network namespace',
    undefined: 'in a network namespace that cannot be looked at',
  };
  const stopped = isStopped(state) ? ', stopped' : '';
  const places = listens.map(({ address }) => address).join(' and ');
  const since = ageSeconds === undefined ? '' : `for ${Math.floor(ageSeconds)} s `;
  return `corosync runs ${since}as pid ${pid}, ${where[`${sameNetwork}`]}${stopped}${places === '' ? '' : `, and listens at ${places}`}.`;
}
