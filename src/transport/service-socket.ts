/**
 * The service socket: connecting, and the handshake. Node's `onread` puts what arrives into one buffer
 * shared by the process, so the single bytes that announce events are counted without allocating.
 */
import { statSync, writeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { constants } from 'node:os';
import {
  decodeHandshakeResponse,
  encodeHandshakeRequest,
  foreignMachine,
  HANDSHAKE_RESPONSE_BYTES,
  type HandshakeResponse,
} from '../codec/handshake';
import { malformed } from '../codec/fields';
import { frameSize } from '../codec/header';
import { IPC_REQUEST_SIZE_BYTES } from '../codec/limits';
import { debugMessage, debugTransport as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import { systemErrorCode } from '../system-error';
import { counted } from '../text';
import { assertUsable, describeAddress, type Address } from './address';
import {
  causeInSystem,
  currentUser,
  describeUser,
  failure,
  isRootForDaemon,
  overridesPermissions,
  unexplained,
} from './causes';

const RECEIVE_BYTES = 64 * 1024;
/** Enough of the answer to know how long it claims to be. */
const ANSWER_SIZE_KNOWN_BYTES = 12;

/** One byte for each chunk; any value will do. */
const WAKE_UP_BYTES = 32 * 1024;
const wakeUps = Buffer.alloc(WAKE_UP_BYTES);

const receiveBuffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);

/** How many bytes came in, told to whoever owns the socket now. False reads no more until readOn(). */
type ByteCounter = (count: number) => boolean;

export class ServiceSocket {
  readonly socket: Socket;
  #onBytes: ByteCounter = () => true;
  #onAnswerBytes: ((bytes: Buffer) => void) | undefined;

  private constructor(address: Address) {
    this.socket = connect({
      path: address.path,
      onread: { buffer: receiveBuffer, callback: (count) => this.#received(count) },
    });
  }

  /**
   * Connects and shakes hands. Event bytes that come right behind the answer are counted in `announced`.
   * Rejects with CpgError, or with the signal's reason; nothing is left open then.
   */
  static async open(
    address: Address,
    signal: AbortSignal,
  ): Promise<{ service: ServiceSocket; answer: HandshakeResponse; announced: number }> {
    assertUsable(address, 'connect to');
    signal.throwIfAborted();
    const service = new ServiceSocket(address);
    try {
      const { answer, announced } = await service.#shakeHands(address, signal);
      debug('%s answered the handshake', address.text);
      debugMessage('<', { type: 'handshake', ...answer });
      if (answer.error !== 0) throw refusalError(answer.error, address);
      return { service, answer, announced };
    } catch (error) {
      service.socket.destroy();
      throw error;
    }
  }

  /** The descriptor: not public in Node, and the only way to learn what cpg_fd_get tells. -1 when closed. */
  get fd(): number {
    return (this.socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;
  }

  /** Sends `count` bytes, whose values mean nothing, in one write. */
  wakeUp(count: number): void {
    let sent = 0;
    try {
      // Past the machinery of streams, which costs several times what the write itself does. What does not go
      // now can go through the stream: the order of bytes that are all alike does not matter.
      if (this.fd >= 0) sent = writeSync(this.fd, wakeUps, 0, Math.min(count, WAKE_UP_BYTES));
    } catch (error) {
      // A full socket, or one that is gone: the stream finds out, waits or ends.
      debug('wake-up: %s', String(error));
    }
    if (sent < count) this.socket.write(Buffer.alloc(count - sent));
  }

  /** From now on `counter` is told of incoming bytes. */
  count(counter: ByteCounter): void {
    this.#onBytes = counter;
  }

  /** After a counter said false. */
  readOn(): void {
    this.socket.resume();
  }

  #received(count: number): boolean {
    if (this.#onAnswerBytes === undefined) return this.#onBytes(count);
    this.#onAnswerBytes(receiveBuffer.subarray(0, count));
    return true;
  }

  #shakeHands(
    address: Address,
    signal: AbortSignal,
  ): Promise<{ answer: HandshakeResponse; announced: number }> {
    const { socket } = this;
    return new Promise((resolve, reject) => {
      const answer = Buffer.alloc(HANDSHAKE_RESPONSE_BYTES);
      let received = 0;
      const settle = (): void => {
        this.#onAnswerBytes = undefined;
        signal.removeEventListener('abort', onAbort);
        socket.off('error', onError);
        socket.off('close', onClose);
        // Later errors come with 'close'; without a listener they would end the process.
        socket.on('error', (error) => debug('service socket: %s', error.message));
      };
      const fail = (error: unknown): void => {
        settle();
        reject(error);
      };
      const onAbort = (): void => fail(signal.reason);
      const onError = (error: Error): void => fail(connectError(error, address));
      const onClose = (): void => fail(closedInHandshake(address, received));
      signal.addEventListener('abort', onAbort);
      socket.on('error', onError);
      socket.on('close', onClose);
      this.#onAnswerBytes = (bytes) => {
        const missing = HANDSHAKE_RESPONSE_BYTES - received;
        bytes.copy(answer, received, 0, Math.min(missing, bytes.length));
        received += Math.min(missing, bytes.length);
        if (received < ANSWER_SIZE_KNOWN_BYTES) return;
        const foreign = foreignMachine(answer.subarray(0, received));
        if (foreign !== undefined) {
          fail(foreignError(foreign, address));
        } else if (frameSize(answer) !== HANDSHAKE_RESPONSE_BYTES) {
          const found = `a handshake answer that says ${counted(frameSize(answer), 'byte')}`;
          fail(malformed(found, `${HANDSHAKE_RESPONSE_BYTES}`));
        } else if (received === HANDSHAKE_RESPONSE_BYTES) {
          try {
            const decoded = decodeHandshakeResponse(answer);
            settle();
            resolve({ answer: decoded, announced: bytes.length - Math.min(missing, bytes.length) });
          } catch (error) {
            fail(error);
          }
        }
      };
      // The kernel attaches our credentials to this write; the daemon authenticates us by them.
      const request = { maxMessageSize: IPC_REQUEST_SIZE_BYTES };
      debugMessage('>', { type: 'handshake', ...request });
      socket.write(encodeHandshakeRequest(request));
    });
  }
}

function closedInHandshake(address: Address, received: number, error?: Error): CpgError {
  const what = `${address.text} closed the connection after ${counted(received, 'byte')} of its handshake answer`;
  return failure('hung-up', what, { error, code: 'CS_ERR_LIBRARY' });
}

function foreignError(machine: '32-bit' | 'byte-order', address: Address): CpgError {
  const kind =
    machine === '32-bit' ? 'is a 32-bit daemon' : 'is a daemon of the other byte order (big-endian)';
  return failure(machine, `${address.text} ${kind}`, { code: 'CS_ERR_NOT_SUPPORTED' });
}

/** What net.connect() failed with, as an error that says what to do about it. */
function connectError(error: NodeJS.ErrnoException, address: Address): CpgError {
  const { code } = error;
  if (code === 'ECONNRESET' || code === 'EPIPE') return closedInHandshake(address, 0, error);
  const what = `cannot connect to ${describeAddress(address)}`;
  const circumstances = { error, path: address.path };
  const inSystem = causeInSystem(error);
  if (inSystem !== undefined) return failure(inSystem, `${what} (${code})`, circumstances);
  // EPROTOTYPE is a socket for datagrams; the others, something in the path that is no directory.
  if (code === 'EPROTOTYPE' || code === 'ENOTDIR' || code === 'ELOOP' || isOtherFile(address.path)) {
    return failure('not-a-socket', `${what} (${code})`, circumstances);
  }
  if (code === 'ECONNREFUSED' || code === 'ENOENT') {
    return failure('not-running', `${what} (${code})`, circumstances);
  }
  const closed = code === 'EACCES' ? closedPath(address.path) : undefined;
  if (closed !== undefined) {
    const who = describeUser(currentUser());
    return failure('socket-permission', `${what} as ${who}: ${closed.why} (${code})`, {
      error,
      path: closed.path,
    });
  }
  // The queue of a daemon that accepts nothing is full.
  if (code === 'EAGAIN') return failure('not-answering', `${what} (${code})`, circumstances);
  return unexplained(error, what);
}

/** True for what is there and is not a socket. */
function isOtherFile(path: string): boolean {
  try {
    return path.startsWith('/') && !statSync(path).isSocket();
  } catch {
    return false;
  }
}

/** The first thing on the way to a socket file that keeps us out by its permissions; undefined where these do not show it. */
function closedPath(path: string): { path: string; why: string } | undefined {
  if (!path.startsWith('/') || overridesPermissions()) return undefined;
  try {
    const steps = path.split('/');
    for (let count = 1; count < steps.length; count++) {
      const directory = steps.slice(0, count).join('/') || '/';
      const { closed, permissions } = permissionsOf(directory, 0o111);
      if (closed) return { path: directory, why: `${directory} (${permissions}) may not be entered` };
    }
    const { closed, permissions } = permissionsOf(path, 0o222);
    return closed ? { path, why: `${path} (${permissions}) may not be written to` } : undefined;
  } catch {
    return undefined;
  }
}

function permissionsOf(path: string, wanted: number): { closed: boolean; permissions: string } {
  const { mode, uid, gid } = statSync(path);
  const groups = [process.getegid?.(), ...(process.getgroups?.() ?? [])];
  const ours = uid === process.geteuid?.() ? 0o700 : groups.includes(gid) ? 0o070 : 0o007;
  return {
    closed: (mode & wanted & ours) === 0,
    permissions: `mode ${(mode & 0o7777).toString(8)}, of uid ${uid} gid ${gid}`,
  };
}

/** The daemon's refusal, a negative errno, as an error that says what to do about it. */
function refusalError(refusal: number, address: Address): CpgError {
  const { errno } = constants;
  const [name] = Object.entries(errno).find(([, number]) => number === -refusal) ?? [];
  const code = systemErrorCode(name);
  const user = currentUser();
  const what = `${address.text} refused the connection (errno ${-refusal}${name === undefined ? '' : ` ${name}`})`;
  const facts = { code } as const;
  switch (name) {
    case 'EACCES': {
      const whom = `${what} for ${describeUser(user)}`;
      if (!isRootForDaemon(user)) return failure('permission', whom, facts);
      // It is not the list of users, then, but the system below the daemon.
      const reason = 'not-allowed';
      return failure('daemon-cannot-write', `${whom}, whom corosync allows without "uidgid { uid: 0 }"`, {
        ...facts,
        reason,
      });
    }
    case 'EPERM':
    case 'EROFS':
      return failure('daemon-cannot-write', what, facts);
    case 'EAGAIN':
      return failure('starting', what, facts);
    case 'EMFILE':
    case 'ENFILE':
      return failure('daemon-too-many-files', what, facts);
    case 'ENOMEM':
      return failure('daemon-out-of-memory', what, facts);
    case 'ENOSPC':
    case 'EDQUOT':
      return failure('shm-too-small', what, facts);
    case 'ENOSYS':
      return failure('no-service', what, facts);
    default:
      return new CpgError(code, what, { reason: 'refused', remedy: 'see the log of the daemon' });
  }
}

/** True for the refusals that pass by themselves. */
export function isTransient(error: unknown): error is CpgError {
  return isCpgError(error) && error.code === 'CS_ERR_TRY_AGAIN';
}
