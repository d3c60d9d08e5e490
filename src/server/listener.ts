/** Where a server listens. */
import { accessSync, chmodSync, lstatSync, mkdtempSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { systemError } from '../system-error';
import { assertUsable, resolveAddress } from '../transport/address';
import { removeOnExit } from './exit';
import { removeDirectory } from './wire/ring-directory';

/** The socket is for its owner: the rings it leads to are his alone, too. */
const SOCKET_MODE = 0o600;

/** Connections that may wait to be accepted; the kernel lowers it to its own bound. */
const BACKLOG = 4096;

/** The path of a socket has room for 107 bytes, and more comes behind this. */
const MAX_BASE_LENGTH = 80;

export interface Listener {
  /** For connect() of a client. */
  readonly address: string;
  /** Takes no more clients; resolves when the address is free. Can be called again. */
  close(): Promise<void>;
}

/**
 * A socket of our own in a new private directory. The caller removes it with `remove`; its address stays the
 * same over several listeners. Throws CpgError where no directory can be made.
 */
export function privateAddress(name: string): { address: string; remove: () => void } {
  const temporary = resolve(tmpdir());
  const base = temporary.length <= MAX_BASE_LENGTH ? temporary : '/tmp';
  const directory = makeDirectory(base);
  const removeNow = (): void => removeDirectory(directory);
  const keepOnExit = removeOnExit(removeNow);
  const remove = (): void => {
    keepOnExit();
    removeNow();
  };
  return { address: join(directory, name), remove };
}

function makeDirectory(base: string): string {
  try {
    return mkdtempSync(join(base, 'cpg-'));
  } catch (error) {
    const remedy = 'set TMPDIR to a directory you may write to, or give an address';
    throw systemError(error, `cannot make a directory for the socket in ${base}`, {
      CS_ERR_ACCESS: remedy,
      CS_ERR_LIBRARY: remedy,
    });
  }
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
  const isFile = path.startsWith('/');
  const server = createServer(onStream);
  try {
    // Throws for a directory that is not there, which Node would take for one that is forbidden.
    if (isFile) accessSync(dirname(path));
    await listenOrReplace(server, path);
    if (isFile) chmodSync(path, SOCKET_MODE);
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
      server.close();
      return closed;
    },
  };
}

async function listenOrReplace(server: Server, path: string): Promise<void> {
  try {
    await tryListen(server, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || !(await isAbandoned(path))) throw error;
    unlinkSync(path);
    await tryListen(server, path);
  }
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
    server.listen({ path, backlog: BACKLOG });
  });
}

/** True for a socket file behind which nobody listens any more. */
function isAbandoned(path: string): Promise<boolean> {
  // An abstract name goes with its server.
  if (path.startsWith('\0') || lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) {
    return Promise.resolve(false);
  }
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}
