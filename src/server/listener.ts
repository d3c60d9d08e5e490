/** Where a server listens. */
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  linkSync,
  lstatSync,
  mkdtempSync,
  openSync,
  renameSync,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { systemError } from '../system-error';
import { assertUsable, resolveAddress } from '../transport/address';
import { claim, isAbandoned, removeDead, type Share } from './claim';
import { removeOnExit } from './exit';
import { removeQuietly } from './remove';
import { SHM_DIRECTORY } from '../ring/paths';

/** The socket is for its owner: the rings it leads to are his alone, too. */
const SOCKET_MODE = 0o600;

/** Connections that may wait to be accepted; the kernel lowers it to its own bound. */
const BACKLOG = 4096;

/** The path of a socket has room for so many bytes. */
const MAX_PATH_BYTES = 107;
/** So much of it is left to the directory for temporary files, as more comes after it. */
const MAX_BASE_LENGTH = 80;

export interface Listener {
  /** For connect() of a client. */
  readonly address: string;
  /** Takes no more clients; resolves when the address is free. Can be called again. */
  close(): Promise<void>;
  /** It does not keep the process alive. */
  unref(): void;
}

/**
 * A socket of our own in a new private directory. The caller removes it with `remove`; its address stays the
 * same over several listeners. Throws CpgError where no directory can be made.
 */
export function privateAddress(name: string): { address: string; remove: () => void } {
  const base = temporaryDirectory();
  let share: Share | undefined;
  try {
    share = claim(base);
    const directory = share.makeDirectory();
    return {
      address: join(directory, name),
      remove: () => {
        removeQuietly(directory);
        share?.release();
      },
    };
  } catch (error) {
    share?.release();
    const remedy = 'set TMPDIR to a directory you may write to, or give an address';
    throw systemError(error, `cannot make a directory for the socket in ${base}`, {
      CS_ERR_ACCESS: remedy,
      CS_ERR_LIBRARY: remedy,
    });
  }
}

function temporaryDirectory(): string {
  const temporary = resolve(tmpdir());
  return temporary.length <= MAX_BASE_LENGTH ? temporary : '/tmp';
}

/** Removes what dead servers of this user left on this machine. */
export async function removeLeftovers(): Promise<void> {
  for (const base of new Set([SHM_DIRECTORY, temporaryDirectory(), resolve(tmpdir())]))
    await removeDead(base);
}

/**
 * Listens at '/path' or '@name'. A socket file that a dead server left is replaced. Rejects with
 * CS_ERR_EXIST when somebody answers there, CS_ERR_INVALID_PARAM for a bad address, CS_ERR_ACCESS where this user
 * may not listen, CS_ERR_LIBRARY for a directory that is not there, and as the system says otherwise.
 */
export async function listen(address: string, onStream: (stream: Socket) => void): Promise<Listener> {
  const resolved = resolveAddress(address);
  assertUsable(resolved, 'listen at');
  const { path } = resolved;
  const server = createServer(onStream);
  let removeFile = (): void => undefined;
  try {
    if (path.startsWith('/')) removeFile = await listenAtFile(server, path);
    else await tryListen(server, path);
  } catch (error) {
    server.close();
    const remedy = 'give a path in a directory you may write to';
    throw systemError(error, `cannot listen at ${address}`, {
      CS_ERR_EXIST: 'it is in use: choose another address, or stop what listens there',
      CS_ERR_ACCESS: remedy,
      CS_ERR_LIBRARY: remedy,
    });
  }
  // A client that gives up while it is accepted is no trouble of the server's.
  server.on('error', () => undefined);
  const closed = new Promise<void>((resolve) => server.once('close', resolve));
  return {
    address,
    close: () => {
      removeFile();
      server.close();
      return closed;
    },
    unref: () => void server.unref(),
  };
}

/**
 * bind() makes the file with the permissions that the umask leaves, and that belongs to the whole process. So the file is
 * made in a private directory, and gets its name when it is for its owner alone and listened to. Returns what removes it.
 */
async function listenAtFile(server: Server, path: string): Promise<() => void> {
  const parent = dirname(path);
  // Throws for a directory that is not there, which Node would take for one that is forbidden.
  accessSync(parent);
  const directory = mkdtempSync(join(parent, '.cpg-'));
  try {
    const made = join(directory, 'socket');
    await tryListenWithin(server, directory, made);
    chmodSync(made, SOCKET_MODE);
    await giveName(made, path, join(directory, 'old'));
  } finally {
    removeQuietly(directory);
  }
  const { dev, ino } = lstatSync(path);
  const remove = (): void => {
    const there = lstatSync(path, { throwIfNoEntry: false });
    if (there?.dev === dev && there.ino === ino) removeQuietly(path);
  };
  const keepOnExit = removeOnExit(remove);
  return () => {
    keepOnExit();
    remove();
  };
}

async function tryListenWithin(server: Server, directory: string, path: string): Promise<void> {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return tryListen(server, path);
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await tryListen(server, `/proc/self/fd/${fd}/socket`);
  } finally {
    closeSync(fd);
  }
}

/** Moves the socket file `made` to `path`, where a dead server may have left its own. */
async function giveName(made: string, path: string, old: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
    if (!(await isAbandoned(path))) throw inUse(path);
    // Another server may do the same at this moment: only what was taken away is certainly what is looked at.
    renameSync(path, old);
    if (!(await isAbandoned(old))) {
      putBack(old, path);
      throw inUse(path);
    }
  }
  // rename() replaces whatever is there, so the name is taken first. A link would keep the private directory busy.
  try {
    closeSync(openSync(path, 'wx', SOCKET_MODE));
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'EEXIST' ? inUse(path) : error;
  }
  renameSync(made, path);
}

function putBack(old: string, path: string): void {
  try {
    linkSync(old, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function inUse(path: string): Error {
  return Object.assign(new Error(`${path} is in use`), { code: 'EADDRINUSE' });
}

function tryListen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => {
      server.off('listening', onListening);
      reject(error);
    };
    const onListening = (): void => {
      server.off('error', onError);
      resolve();
    };
    server.once('error', onError);
    server.once('listening', onListening);
    server.listen({ path, backlog: BACKLOG, exclusive: true });
  });
}
