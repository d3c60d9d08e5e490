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

/** Assembles the request from pieces of any size. */
export class HandshakeReader {
  readonly #bytes = Buffer.alloc(HANDSHAKE_REQUEST_BYTES);
  #received = 0;

  /**
   * Adds bytes. Returns the client's largest frame once its request is complete. Throws CS_ERR_MESSAGE_ERROR for anything
   * but exactly one request: further bytes would announce chunks in rings that do not exist yet.
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

/** The larger of the requested size and libcpg's own, as in libqb. */
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

/** The reason to refuse a client: the name of the errno in a daemon's answer. */
export const REFUSALS = ['EACCES', 'EAGAIN', 'EMFILE', 'ENOSPC', 'EINVAL'] as const;
/** The errno of a refusal. */
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
 * The errno for a client whose rings could not be made: the system's errno, as in a daemon's answer, except for refused
 * access, which a client would take for its own lack of permission.
 */
export function refusalFor(error: unknown): number {
  const { errno } = constants;
  if (error instanceof RangeError) return errno.EINVAL;
  const number = Math.abs((error as NodeJS.ErrnoException).errno ?? errno.ENOSPC);
  return number === errno.EACCES || number === errno.EPERM ? errno.EROFS : number;
}
