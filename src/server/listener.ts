/** Where a server listens. */
import { chmodSync, lstatSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CpgError } from '../errors';
import { resolveAddress } from '../transport/address';
import { removeOnExit } from './exit';

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
 * same over several listeners.
 */
export function privateAddress(name: string): { address: string; remove: () => void } {
  const base = tmpdir().length <= MAX_BASE_LENGTH ? tmpdir() : '/tmp';
  const directory = mkdtempSync(join(base, 'cpg-'));
  const removeNow = (): void => rmSync(directory, { recursive: true, force: true });
  const keepOnExit = removeOnExit(removeNow);
  const remove = (): void => {
    keepOnExit();
    removeNow();
  };
  return { address: join(directory, name), remove };
}

/**
 * Listens at '/path' or '@name'. A socket file that a dead server left is replaced. Rejects with
 * CS_ERR_EXIST when somebody answers there, CS_ERR_INVALID_PARAM for a bad address, CS_ERR_LIBRARY otherwise.
 */
export async function listen(address: string, onStream: (stream: Socket) => void): Promise<Listener> {
  const { path } = resolveAddress(address);
  const server = createServer(onStream);
  try {
    await tryListen(server, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cannotListen(address, error);
    if (path.startsWith('\0') || !(await isAbandoned(path))) {
      throw new CpgError('CS_ERR_EXIST', `somebody listens at ${address} already`, {
        cause: error,
        remedy: 'choose another address, or stop what listens there',
      });
    }
    unlinkSync(path);
    await tryListen(server, path).catch((again: unknown) => {
      throw cannotListen(address, again);
    });
  }
  try {
    if (!path.startsWith('\0')) chmodSync(path, SOCKET_MODE);
  } catch (error) {
    server.close();
    throw cannotListen(address, error);
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
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return Promise.resolve(false);
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

function cannotListen(address: string, cause: unknown): CpgError {
  const { code, message } = cause as NodeJS.ErrnoException;
  return new CpgError('CS_ERR_LIBRARY', `cannot listen at ${address} (${code ?? message})`, {
    cause,
    remedy: 'give a path in a directory you may write to',
  });
}
