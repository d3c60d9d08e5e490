/**
 * The service socket: connecting, and the handshake. Node's `onread` puts what arrives into one buffer
 * shared by the process, so the single bytes that announce events are counted without allocating.
 */
import { writeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { constants } from 'node:os';
import {
  decodeHandshakeResponse,
  encodeHandshakeRequest,
  HANDSHAKE_RESPONSE_BYTES,
  type HandshakeResponse,
} from '../codec/handshake';
import { malformed } from '../codec/fields';
import { frameSize } from '../codec/header';
import { IPC_REQUEST_SIZE_BYTES } from '../codec/limits';
import { debugMessage, debugTransport as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import { systemError, systemErrorCode, type Remedies } from '../system-error';
import type { Address } from './address';
import { counted } from '../text';

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
    signal.throwIfAborted();
    const service = new ServiceSocket(address);
    try {
      const { answer, announced } = await service.#shakeHands(address, signal);
      debug('%s answered the handshake', address.text);
      debugMessage('<', { type: 'handshake', ...answer });
      if (answer.error !== 0) throw handshakeError(answer.error, address);
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
        if (received >= ANSWER_SIZE_KNOWN_BYTES && frameSize(answer) !== HANDSHAKE_RESPONSE_BYTES) {
          fail(
            malformed(
              `a handshake answer that says ${counted(frameSize(answer), 'byte')}`,
              `${HANDSHAKE_RESPONSE_BYTES}`,
            ),
          );
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

function closedInHandshake(address: Address, received: number, cause?: Error): CpgError {
  return new CpgError(
    'CS_ERR_LIBRARY',
    `${address.text} closed the connection after ${counted(received, 'byte')} of its handshake answer`,
    {
      cause,
      reason: 'handshake-failed',
      remedy: 'check that this is a corosync daemon, and its log; it may be shutting down',
    },
  );
}

const START_REMEDY =
  'no corosync listens there: start it (systemctl start corosync); in a container, share the network namespace and /dev/shm of the host';

function connectError(error: NodeJS.ErrnoException, address: Address): CpgError {
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return closedInHandshake(address, 0, error);
  // The daemon was not even asked, so no stanza of its configuration would help.
  const forbidden = systemErrorCode(error.code) === 'CS_ERR_ACCESS';
  const who = forbidden ? ` as ${whoWeAre()}` : '';
  const nobodyThere = error.code === 'ECONNREFUSED' || error.code === 'ENOENT';
  const remedies: Remedies = {
    ...(nobodyThere && { CS_ERR_LIBRARY: START_REMEDY }),
    CS_ERR_ACCESS:
      'the system keeps this user from the socket: see its permissions and those of its directories',
    CS_ERR_NO_RESOURCES: DESCRIPTORS_REMEDY,
    CS_ERR_TRY_AGAIN: 'the daemon has too many connections waiting; try again',
  };
  const reason = nobodyThere ? 'no-daemon' : forbidden ? 'socket-permission' : undefined;
  return systemError(error, `cannot connect to ${address.text}${who}`, remedies, reason);
}

/** The daemon's refusal, a negative errno, as an error that says what to do about it. */
function handshakeError(error: number, address: Address): CpgError {
  const { errno } = constants;
  const what = `${address.text} refused the connection (errno ${-error})`;
  if (-error === errno.EACCES || -error === errno.EPERM) return accessDenied(what);
  const [name] = Object.entries(errno).find(([, number]) => number === -error) ?? [];
  const code = systemErrorCode(name);
  return new CpgError(code, what, { remedy: REFUSAL_REMEDIES[code] ?? 'see the daemon log' });
}

/** What is wrong with a /dev/shm in which a connection finds no place. */
export const SHM_REMEDY =
  'a connection takes about 3.2 MB of /dev/shm: make it larger (mount -o remount,size=256m /dev/shm; docker run --shm-size)';

/** A connection is one socket and six files. */
export const DESCRIPTORS_REMEDY =
  'a connection takes 7 descriptors: close connections, or raise the limit of this process (ulimit -n)';

/** What to do about a refusal; the errors are those of the daemon. */
const REFUSAL_REMEDIES: Remedies = {
  CS_ERR_ACCESS: 'the daemon cannot write where it makes its rings, /dev/shm as a rule: see its log',
  CS_ERR_NO_MEMORY: 'free memory on the node of the daemon',
  CS_ERR_NO_RESOURCES:
    'the daemon, or its node, has no file descriptors left: close connections or raise the limit',
  CS_ERR_NO_SPACE: SHM_REMEDY,
  CS_ERR_TRY_AGAIN: 'the daemon is starting or stopping; try again in a moment',
};

function accessDenied(what: string): CpgError {
  const { uid, gid } = identity();
  const file = `/etc/corosync/uidgid.d/uid-${uid}`;
  return new CpgError('CS_ERR_ACCESS', `${what} for ${whoWeAre()}`, {
    reason: 'not-allowed',
    remedy:
      `allow it: put "uidgid { uid: ${uid} }" (or "gid: ${gid}"), one directive a line, into corosync.conf or a file of ` +
      `/etc/corosync/uidgid.d and run corosync-cfgtool -R; as root: ` +
      `printf 'uidgid {\\n  uid: ${uid}\\n}\\n' > ${file} && corosync-cfgtool -R`,
  });
}

/** The real user, not the effective one: it is what the kernel tells the daemon. */
function identity(): { uid: number | undefined; gid: number | undefined } {
  return { uid: process.getuid?.(), gid: process.getgid?.() };
}

function whoWeAre(): string {
  const { uid, gid } = identity();
  return `uid ${uid} gid ${gid}`;
}

/** True for the refusals that pass by themselves. */
export function isTransient(error: unknown): error is CpgError {
  return isCpgError(error) && error.code === 'CS_ERR_TRY_AGAIN';
}
