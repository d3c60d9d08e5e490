/** The directory that holds the rings of one connection (ring/paths.ts): opened with care, and removed at the end. */
import { lstatSync, rmdirSync, unlinkSync } from 'node:fs';
import { basename, dirname, isAbsolute, normalize } from 'node:path';
import { ConnectionType, type HandshakeResponse } from '../codec/handshake';
import { debugTransport as debug } from '../debug';
import type { CpgError } from '../errors';
import { isCpgError } from '../errors';
import { openRing, refused } from '../ring/files';
import {
  connectionOf,
  forEachRing,
  pidsOf,
  RING_NAMES,
  ringFiles,
  type ConnectionPath,
  type RingName,
} from '../ring/paths';
import type { Ring } from '../ring/ring';
import { storeInFiles, type OpenStorage } from '../ring/storage';
import { causeInSystem, currentUser, describeUser, failure, unexplained, type Cause } from './causes';

/** libqb before 1.0.4 has no directory: it names the rings, and leaves the place to the client. */
const OLD_RING_NAME = /^[^/]+-(request|response|event)-\d+-\d+-\d+$/;
/** And of its sockets. */
const OLD_SOCKET_NAME = /^\d+-\d+-\d+-[^/]+$/;
/** libqb makes the directory 0770; a member of our group can at worst break this connection. */
const OTHERS_MAY_WRITE = 0o002;

export interface ConnectionFiles extends ConnectionPath {
  readonly rings: Record<RingName, Ring>;
  /** Closes the rings and removes their files and the directory. Can be called again, and never throws. */
  readonly remove: () => void;
}

/** A directory that was found to be ours, with the files in it that a handshake named. */
export interface OwnDirectory extends ConnectionPath {
  /** What it is by, whatever its name stands for later. */
  dev: number;
  ino: number;
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
  let opened: readonly Ring[] = [];
  try {
    const own = ownDirectory(answer, ringsOf(answer), uid);
    const rings = forEachRing((ring) => openRing(answer[ring], uid, store));
    opened = Object.values(rings);
    // Only now that all three are known to be ours.
    for (const ring of opened) ring.attach();
    return { ...own, rings, remove: heldUntilRemoved(own, opened) };
  } catch (error) {
    for (const ring of opened) ring.close();
    throw openError(error, dirname(answer.request));
  }
}

/** Removes the files of a connection that came to nothing, if all that is asked of their names holds. */
export function removeUnopened(answer: HandshakeResponse, uid = process.getuid?.()): void {
  const filesOf = answer.connectionType === ConnectionType.SOCKET ? controlFile : ringsOf;
  quietly(() => removeFiles(ownDirectory(answer, filesOf(answer), uid)));
}

/** The files of the rings that the handshake names, whose names have libqb's form and lie in one directory. */
function ringsOf(answer: HandshakeResponse): string[] {
  if (connectionOf(answer) === undefined) throw misnamed(answer);
  return RING_NAMES.flatMap((ring) => ringFiles(answer[ring]));
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
  const directory = dirname(answer.request);
  const pids = pidsOf(basename(directory));
  if (pids === undefined) throw misnamed(answer);
  const stat = lstatSync(directory);
  if (
    !stat.isDirectory() ||
    (uid !== undefined && stat.uid !== uid) ||
    (stat.mode & OTHERS_MAY_WRITE) !== 0
  ) {
    const what = `${directory} is not a directory of our own`;
    if (uid === undefined || stat.uid === uid) throw refused(what);
    throw failure('other-owner', `${what} (uid ${uid}): it belongs to uid ${stat.uid}`, {
      owner: stat.uid,
      code: 'CS_ERR_SECURITY',
    });
  }
  const { dev, ino } = stat;
  return { directory, ...pids, dev, ino, files };
}

function misnamed(answer: HandshakeResponse): CpgError {
  if (
    RING_NAMES.every((ring) => OLD_RING_NAME.exec(answer[ring])?.[1] === ring) ||
    OLD_SOCKET_NAME.test(answer.response)
  ) {
    const what = `the daemon runs with a libqb before 1.0.4: it names its files ${JSON.stringify(answer.request)}`;
    return failure('old-libqb', what, { code: 'CS_ERR_NOT_SUPPORTED' });
  }
  return refused(
    `the handshake names the files ${RING_NAMES.map((ring) => JSON.stringify(answer[ring])).join(', ')}`,
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

function removeFiles({ directory, dev, ino, files }: OwnDirectory): void {
  quietly(() => {
    const stat = lstatSync(directory);
    if (stat.dev !== dev || stat.ino !== ino) throw new Error(`${directory} is another one now`);
    for (const file of files) quietly(() => unlinkSync(file));
    rmdirSync(directory);
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

/** open() of what is no plain file. */
const NO_PLAIN_FILE: readonly unknown[] = ['ELOOP', 'EISDIR', 'ENXIO', 'ENODEV'];

export function openError(error: unknown, directory: string): CpgError {
  if (isCpgError(error)) {
    const { code, what, reason } = error;
    return reason === '32-bit' || reason === 'ring-layout' ? failure(reason, what, { code }) : error;
  }
  const { code } = error as NodeJS.ErrnoException;
  if (NO_PLAIN_FILE.includes(code)) return refused(`${directory} holds other things than plain files`);
  const what = `cannot open the rings in ${directory}`;
  const cause = causeInSystem(error) ?? causeOfOpenError(code, directory);
  if (cause === undefined) return unexplained(error, what);
  const who = code === 'EACCES' ? ` as ${describeUser(currentUser())}` : '';
  return failure(cause, `${what}${who} (${code})`, {
    error,
    path: cause === 'shm-permission' ? dirname(directory) : directory,
  });
}

function causeOfOpenError(code: string | undefined, directory: string): Cause | undefined {
  switch (code) {
    case 'ENOENT':
      return 'shm-not-shared';
    case 'EROFS':
      return 'shm-read-only';
    case 'EACCES': {
      const { uid, euid } = currentUser();
      try {
        // The daemon gave it to the real user.
        return lstatSync(directory).uid === uid && uid !== euid ? 'effective-user' : undefined;
      } catch (error) {
        return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'shm-permission' : undefined;
      }
    }
    default:
      return undefined;
  }
}
