/**
 * The directory that holds the rings of one connection:
 *
 *     /dev/shm/qb-<server pid>-<client pid>-<server's descriptor>-XXXXXX/qb-{request,response,event}-<service>
 *
 * each name standing for two files, `...-header` and `...-data`.
 */
import { lstatSync, rmdirSync, unlinkSync } from 'node:fs';
import { basename, dirname, isAbsolute, normalize } from 'node:path';
import { ConnectionType, type HandshakeResponse } from '../codec/handshake';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { systemError, systemErrorCode, type Remedies } from '../system-error';
import { Ring } from './ring';
import { storeInFiles, type OpenStorage } from './ring-storage';
import { DESCRIPTORS_REMEDY, SHM_REMEDY } from './service-socket';

const DIRECTORY_NAME = /^qb-(\d+)-(\d+)-(\d+)-[^/]+$/;
/** libqb before 1.0.4 has no directory: it names the rings, and leaves the place to the client. */
const OLD_RING_NAME = /^[^/]+-(request|response|event)-\d+-\d+-\d+$/;
/** And of its sockets. */
const OLD_SOCKET_NAME = /^\d+-\d+-\d+-[^/]+$/;
const RINGS = ['request', 'response', 'event'] as const;
type RingName = (typeof RINGS)[number];
/** libqb makes the directory 0770; a member of our group can at worst break this connection. */
const OTHERS_MAY_WRITE = 0o002;

export interface ConnectionFiles {
  directory: string;
  serverPid: number;
  clientPid: number;
  rings: Record<RingName, Ring>;
  /** Closes the rings and removes their files and the directory. Can be called again, and never throws. */
  readonly remove: () => void;
}

/** A directory that was found to be ours, with the files in it that a handshake named. */
export interface OwnDirectory {
  path: string;
  /** What it is by, whatever its name stands for later. */
  dev: number;
  ino: number;
  serverPid: number;
  clientPid: number;
  files: string[];
}

/** The directories of connections that are open. */
const inUse = new Set<OwnDirectory>();

/**
 * Opens the three rings a handshake named. A spoofed daemon could name anything, so the names must have
 * libqb's form and lie in one directory, and all of it must belong to us; else CS_ERR_SECURITY, and nothing
 * was opened for writing elsewhere.
 */
export function openConnectionFiles(
  answer: HandshakeResponse,
  store: OpenStorage = storeInFiles,
  uid = process.getuid?.(),
): ConnectionFiles {
  const opened: Ring[] = [];
  const open = (ring: RingName): Ring => {
    const opening = Ring.open(answer[ring], uid, store);
    opened.push(opening);
    return opening;
  };
  try {
    const own = ownDirectory(answer, ringFiles(answer), uid);
    const rings = { request: open('request'), response: open('response'), event: open('event') };
    // Only now that all three are known to be ours.
    for (const ring of opened) ring.attach();
    const { path: directory, serverPid, clientPid } = own;
    return { directory, serverPid, clientPid, rings, remove: heldUntilRemoved(own, opened) };
  } catch (error) {
    for (const ring of opened) ring.close();
    throw openError(error, dirname(answer.request));
  }
}

/** Removes the files of a connection that came to nothing, if all that is asked of their names holds. */
export function removeUnopened(answer: HandshakeResponse, uid = process.getuid?.()): void {
  const filesOf = answer.connectionType === ConnectionType.SOCKET ? controlFile : ringFiles;
  quietly(() => removeFiles(ownDirectory(answer, filesOf(answer), uid)));
}

/** The files of the rings that the handshake names, whose names have libqb's form and lie in one directory. */
function ringFiles(answer: HandshakeResponse): string[] {
  const path = dirname(answer.request);
  if (!RINGS.every((ring) => isNamed(answer[ring], path, `qb-${ring}-`))) throw misnamed(answer);
  return RINGS.flatMap((ring) => [`${answer[ring]}-header`, `${answer[ring]}-data`]);
}

/** The one file of a connection by datagrams; the names of its sockets begin with a path beside it. */
export function controlFile(answer: HandshakeResponse): string[] {
  const { request, response, event } = answer;
  const path = dirname(request);
  const wellNamed = isNamed(request, path, 'qb-control-') && isNamed(response, path, 'qb-');
  if (!wellNamed || (event !== '' && event !== response)) throw misnamed(answer);
  return [request];
}

function isNamed(file: string, directory: string, prefix: string): boolean {
  return (
    isAbsolute(file) &&
    normalize(file) === file &&
    dirname(file) === directory &&
    basename(file).startsWith(prefix)
  );
}

/** The directory of a connection, with the `files` that are in it. */
export function ownDirectory(
  answer: HandshakeResponse,
  files: string[],
  uid: number | undefined,
): OwnDirectory {
  const path = dirname(answer.request);
  const match = DIRECTORY_NAME.exec(basename(path));
  if (match === null) throw misnamed(answer);
  const stat = lstatSync(path);
  if (
    !stat.isDirectory() ||
    (uid !== undefined && stat.uid !== uid) ||
    (stat.mode & OTHERS_MAY_WRITE) !== 0
  ) {
    throw refused(`${path} is not a directory of our own`);
  }
  return {
    path,
    dev: stat.dev,
    ino: stat.ino,
    serverPid: Number(match[1]),
    clientPid: Number(match[2]),
    files,
  };
}

function misnamed(answer: HandshakeResponse): CpgError {
  if (
    RINGS.every((ring) => OLD_RING_NAME.exec(answer[ring])?.[1] === ring) ||
    OLD_SOCKET_NAME.test(answer.response)
  ) {
    return new CpgError(
      'CS_ERR_NOT_SUPPORTED',
      `the daemon runs with a libqb before 1.0.4: it names its files ${JSON.stringify(answer.request)}`,
      {
        reason: 'old-libqb',
        remedy: 'update libqb on this node: its rings have been in private directories since 1.0.4',
      },
    );
  }
  return refused(
    `the handshake names the files ${RINGS.map((ring) => JSON.stringify(answer[ring])).join(', ')}`,
  );
}

/**
 * The function that ends the connection's hold on its files.
 *
 * Once the connection is over nobody looks for them any more, so they are removed at once, by the client: whether
 * its daemon lives, and will remove them too, cannot be known (it may hang and be killed later, or have its pid in
 * another namespace), and need not be, because a daemon works in its mapping and does not mind that a name is gone.
 * For the same reason they are never truncated. A process that exits does this for all of its connections, of which
 * some may not have learned yet that their daemon is dead.
 */
export function heldUntilRemoved(own: OwnDirectory, opened: readonly { close(): void }[]): () => void {
  if (inUse.size === 0) process.on('exit', removeOnExit);
  inUse.add(own);
  return () => {
    for (const one of opened) one.close();
    if (!inUse.delete(own)) return;
    if (inUse.size === 0) process.off('exit', removeOnExit);
    removeFiles(own);
  };
}

/** The rings stay open: another listener may want to say goodbye. */
function removeOnExit(): void {
  for (const own of inUse) removeFiles(own);
}

function removeFiles({ path, dev, ino, files }: OwnDirectory): void {
  quietly(() => {
    const stat = lstatSync(path);
    if (stat.dev !== dev || stat.ino !== ino) throw new Error(`${path} is another one now`);
    for (const file of files) quietly(() => unlinkSync(file));
    rmdirSync(path);
  });
}

function quietly(action: () => void): void {
  try {
    action();
  } catch (error) {
    // The daemon may have been first.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') debug('clean-up: %s', (error as Error).message);
  }
}

export function refused(what: string): CpgError {
  return new CpgError('CS_ERR_SECURITY', what, {
    remedy: 'find out which program answers on this address; nothing was written',
  });
}

/** open() of what is no plain file. */
const NO_PLAIN_FILE: readonly unknown[] = ['ELOOP', 'EISDIR', 'ENXIO', 'ENODEV'];

export function openError(error: unknown, directory: string): CpgError {
  if (NO_PLAIN_FILE.includes((error as NodeJS.ErrnoException).code)) {
    return refused(`${directory} holds other things than plain files`);
  }
  const remedies: Remedies = {
    CS_ERR_LIBRARY:
      'the daemon made them in its own /dev/shm: share that with this container, or see whether the daemon is stopping',
    CS_ERR_NO_SPACE: SHM_REMEDY,
    CS_ERR_NO_RESOURCES: DESCRIPTORS_REMEDY,
    CS_ERR_ACCESS:
      'the daemon let us in and gave the rings to our real user: see whether the effective user is another one, /dev/shm is mounted read-only, or a security module forbids it',
  };
  const { code } = error as NodeJS.ErrnoException;
  const forbidden = systemErrorCode(code) === 'CS_ERR_ACCESS';
  const reason = code === 'ENOENT' ? 'rings-not-there' : forbidden ? 'ring-permission' : undefined;
  return systemError(error, `cannot open the rings in ${directory}`, remedies, reason);
}
