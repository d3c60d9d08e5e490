/** The server's side of the handshake: 24 bytes in, 12,328 bytes out. */
import { constants } from 'node:os';
import {
  decodeHandshakeRequest,
  encodeHandshakeResponse,
  HANDSHAKE_REQUEST_BYTES,
} from '../../codec/handshake';
import { malformed } from '../../codec/fields';
import { IPC_REQUEST_SIZE_BYTES } from '../../codec/limits';
import type { RingDirectory } from './ring-directory';

/** Puts the request together from what arrives, however it is cut. */
export class HandshakeReader {
  readonly #bytes = Buffer.alloc(HANDSHAKE_REQUEST_BYTES);
  #received = 0;

  /**
   * Takes bytes in. Returns the largest frame the client wants, once its request is whole.
   * Throws CS_ERR_MESSAGE_ERROR for anything that is not exactly one request: what would follow announces
   * chunks in rings that do not exist yet.
   */
  take(bytes: Buffer): number | undefined {
    if (this.#received + bytes.length > HANDSHAKE_REQUEST_BYTES) {
      throw malformed(
        `${this.#received + bytes.length} bytes before an answer`,
        `${HANDSHAKE_REQUEST_BYTES}`,
      );
    }
    bytes.copy(this.#bytes, this.#received);
    this.#received += bytes.length;
    if (this.#received < HANDSHAKE_REQUEST_BYTES) return undefined;
    return decodeHandshakeRequest(this.#bytes).maxMessageSize;
  }
}

/** The larger of what the client asks for and libcpg's own size, as libqb decides it. */
export function frameBytesFor(asked: number): number {
  return Math.max(asked, IPC_REQUEST_SIZE_BYTES);
}

export function acceptance(
  connectionType: number,
  stems: RingDirectory['stems'],
  connection: number,
  frameBytes: number,
): Buffer {
  return encodeHandshakeResponse({
    error: 0,
    connectionType,
    maxMessageSize: frameBytes,
    connection: BigInt(connection),
    ...stems,
  });
}

/** Why a server turns a client away, by the name of the errno a daemon would answer with. */
export const REFUSALS = ['EACCES', 'EAGAIN', 'EMFILE', 'ENOSPC', 'EINVAL'] as const;
/** The errno with which a new client is turned away. */
export type Refusal = (typeof REFUSALS)[number];

export function refusal(errno: number): Buffer {
  return encodeHandshakeResponse({
    error: -errno,
    connectionType: 0,
    maxMessageSize: 0,
    connection: 0n,
    request: '',
    response: '',
    event: '',
  });
}

/**
 * The errno to refuse a client with after an error while its rings were made. It is that of the system, as a daemon
 * answers it, but for refused access: a client would take that for a lack of permission of its own.
 */
export function refusalFor(error: unknown): number {
  const { errno } = constants;
  if (error instanceof RangeError) return errno.EINVAL;
  const number = Math.abs((error as NodeJS.ErrnoException).errno ?? errno.ENOSPC);
  return number === errno.EACCES || number === errno.EPERM ? errno.EROFS : number;
}
