/** The listening socket of a server. */
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

/** Only the owner may connect: the rings are for the owner alone, too. */
const SOCKET_MODE = 0o600;

/** Connections that may wait for accept(); the kernel lowers it to its own limit. */
const BACKLOG = 4096;

/** Maximum length of a socket path in bytes. */
const MAX_PATH_BYTES = 107;
/** The share of it for the directory of temporary files; the rest follows. */
const MAX_BASE_LENGTH = 80;

export interface Listener {
  /** The address for connect(). */
  readonly address: string;
  /** Accepts no more clients; resolves when the address is free. Idempotent. */
  close(): Promise<void>;
  /** Lets the process end. */
  unref(): void;
}

/**
 * The path of a socket in a new private directory, for several listeners in turn. `remove` removes it. Throws CpgError if
 * it cannot make the directory.
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

/** Removes the leftovers of this user's dead servers on this machine. */
export async function removeLeftovers(): Promise<void> {
  for (const base of new Set([SHM_DIRECTORY, temporaryDirectory(), resolve(tmpdir())]))
    await removeDead(base);
}

/**
 * Listens at '/path' or '@name'. Replaces the socket file of a dead server. Rejects with CS_ERR_EXIST if another server
 * listens there, CS_ERR_INVALID_PARAM for a bad address, CS_ERR_ACCESS if this user may not listen there, CS_ERR_LIBRARY
 * for a missing directory, and otherwise by the system's error.
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
  // A client that gives up during accept() is no fault of the server.
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
 * bind() makes the file with permissions that depend on the umask of the whole process. So this makes the file in a
 * private directory, and moves it to its name once it listens and only its owner may use it. Returns its removal.
 */
async function listenAtFile(server: Server, path: string): Promise<() => void> {
  const parent = dirname(path);
  // Throws for a missing directory, which Node would report as forbidden.
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
    // Another server may do the same at this moment: check the file only after taking it away.
    renameSync(path, old);
    if (!(await isAbandoned(old))) {
      putBack(old, path);
      throw inUse(path);
    }
  }
  // rename() replaces any file, so reserve the name first. A link would keep the private directory busy.
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
