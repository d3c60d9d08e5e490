/**
 * The service socket: connecting and the handshake. Node's `onread` reads into one buffer shared by the process, so
 * counting the bytes that announce events allocates nothing.
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
/** Enough of the answer to know its claimed size. */
const ANSWER_SIZE_KNOWN_BYTES = 12;

/** One byte per chunk; the value does not matter. */
const WAKE_UP_BYTES = 32 * 1024;
const wakeUps = Buffer.alloc(WAKE_UP_BYTES);

const receiveBuffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);

/** Called with the number of bytes received. False pauses the reading until readOn(). */
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
   * Connects and shakes hands. `announced` counts event bytes that arrived together with the answer.
   * Rejects with CpgError or the signal's reason, and then leaves nothing open.
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

  /** The descriptor that cpg_fd_get returns, from a private field of Node; -1 when closed. */
  get fd(): number {
    return (this.socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;
  }

  /** Sends `count` bytes in one write. */
  wakeUp(count: number): void {
    let sent = 0;
    try {
      // Bypasses the stream, which costs several times as much as the write. The rest can go through the stream:
      // the bytes are all alike, so their order does not matter.
      if (this.fd >= 0) sent = writeSync(this.fd, wakeUps, 0, Math.min(count, WAKE_UP_BYTES));
    } catch (error) {
      // The socket is full or gone: the stream waits or ends.
      debug('wake-up: %s', String(error));
    }
    if (sent < count) this.socket.write(Buffer.alloc(count - sent));
  }

  /** From now on `counter` is called for incoming bytes. */
  count(counter: ByteCounter): void {
    this.#onBytes = counter;
  }

  /** Resumes reading after a counter returned false. */
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
      // The kernel attaches our credentials to this write; the daemon uses them to authenticate us.
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

/** An error of net.connect() as a CpgError with a remedy. */
function connectError(error: NodeJS.ErrnoException, address: Address): CpgError {
  const { code } = error;
  if (code === 'ECONNRESET' || code === 'EPIPE') return closedInHandshake(address, 0, error);
  const what = `cannot connect to ${describeAddress(address)}`;
  const circumstances = { error, path: address.path };
  const inSystem = causeInSystem(error);
  if (inSystem !== undefined) return failure(inSystem, `${what} (${code})`, circumstances);
  // EPROTOTYPE: a datagram socket. The others: a component of the path is not a directory.
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
  // The daemon does not accept, and its queue is full.
  if (code === 'EAGAIN') return failure('not-answering', `${what} (${code})`, circumstances);
  return unexplained(error, what);
}

/** Whether the path exists and is not a socket. */
function isOtherFile(path: string): boolean {
  try {
    return path.startsWith('/') && !statSync(path).isSocket();
  } catch {
    return false;
  }
}

/** The first component of a socket's path whose permissions deny us; undefined if none does. */
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

/** The daemon's refusal, a negative errno, as a CpgError with a remedy. */
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
      // The user is allowed, so the system denies the daemon itself.
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

/** Whether a refusal is temporary. */
export function isTransient(error: unknown): error is CpgError {
  return isCpgError(error) && error.code === 'CS_ERR_TRY_AGAIN';
}
