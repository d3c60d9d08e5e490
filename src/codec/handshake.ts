/**
 * The handshake on a new service socket (qb_ipc_connection_request / _response of libqb): see docs/protocol.md.
 * With shared memory the strings in the answer are the path stems of the three rings.
 */
import { check, inCall, plainObject, uint8Array } from '../arguments';
import { asBuffer, cString, malformed, packedUint32, Table, uint32, uint64 } from './fields';
import {
  frameHeader,
  requestHeaderFields,
  responseHeader,
  responseHeaderFields,
  type RequestHeader,
  type ResponseHeader,
} from './header';
import { MAX_FRAME_BYTES } from './limits';

/** QB_IPC_MSG_AUTHENTICATE: the id of the handshake request. */
export const AUTHENTICATE = -1;

/** PATH_MAX: the span of each string in the answer. */
const PATH_BYTES = 4096;

/** The transport after the handshake: libqb's `enum qb_ipc_type`. */
export const ConnectionType = { SOCKET: 0, SHM: 1 } as const;

/** A client's first message: `struct qb_ipc_connection_request`. */
export interface HandshakeRequest {
  /** Size of the largest frame the client wants to exchange. */
  maxMessageSize: number;
}

/** The daemon's answer: `struct qb_ipc_connection_response`. */
export interface HandshakeResponse {
  /** 0, or a negative system errno (-13 EACCES, -11 EAGAIN, ...). */
  error: number;
  /** 0 socket, 1 shared memory; no other values are known. */
  connectionType: number;
  /** Size of the largest frame in either direction. */
  maxMessageSize: number;
  /** An opaque number of the server, 64 bits. */
  connection: bigint;
  /** Path stem of the request ring, up to 4095 bytes, to be followed by `-header` or `-data`. */
  request: string;
  /** Path stem of the response ring. */
  response: string;
  /** Path stem of the event ring. */
  event: string;
}

const requestTable = new Table<RequestHeader & HandshakeRequest>(
  'handshake request',
  ...requestHeaderFields,
  uint32('maxMessageSize'),
);
const responseTable = new Table<ResponseHeader & HandshakeResponse>(
  'handshake answer',
  ...responseHeaderFields,
  packedUint32('connectionType'),
  packedUint32('maxMessageSize'),
  uint64('connection'),
  cString(PATH_BYTES, 'request'),
  cString(PATH_BYTES, 'response'),
  cString(PATH_BYTES, 'event'),
);

const NOTHING = {
  connectionType: 0,
  maxMessageSize: 0,
  connection: 0n,
  request: '',
  response: '',
  event: '',
};

/** Bytes of a handshake request. */
export const HANDSHAKE_REQUEST_BYTES = requestTable.size;
/** Bytes of a handshake answer. */
export const HANDSHAKE_RESPONSE_BYTES = responseTable.size;

/** The offset in a 32-bit daemon's answer, which has the same size: the field before it has 4 bytes there. */
const REQUEST_OFFSET_32_BIT = responseTable.offsetOf('request') - 4;

/**
 * Detects a daemon that is not 64-bit little-endian from its answer: the byte order from the first 12 bytes, the width
 * from the whole answer. Undefined if nothing indicates another machine.
 */
export function foreignMachine(answer: Uint8Array): 'byte-order' | '32-bit' | undefined {
  const bytes = asBuffer(answer);
  const sizeOffset = responseTable.offsetOf('size');
  if (bytes.length < sizeOffset + 4) return undefined;
  if (bytes.readInt32BE(sizeOffset) === HANDSHAKE_RESPONSE_BYTES) return 'byte-order';
  if (bytes.length < HANDSHAKE_RESPONSE_BYTES) return undefined;
  // At the offset of each name in a 32-bit answer there is text; in a 64-bit one there would be zeros.
  const names = [REQUEST_OFFSET_32_BIT, REQUEST_OFFSET_32_BIT + PATH_BYTES];
  const isText = names.every((offset) =>
    bytes.subarray(offset, offset + 4).every((byte) => byte > 0x20 && byte < 0x7f),
  );
  return isText ? '32-bit' : undefined;
}

/** Encodes a handshake request. Throws CS_ERR_INVALID_PARAM. */
export function encodeHandshakeRequest(value: HandshakeRequest): Buffer {
  check('encodeHandshakeRequest', 'value', value, plainObject);
  return inCall('encodeHandshakeRequest', () =>
    requestTable.frame({ ...value, id: AUTHENTICATE, size: requestTable.size }),
  );
}

/** Decodes a handshake request. Throws CS_ERR_MESSAGE_ERROR. */
export function decodeHandshakeRequest(bytes: Uint8Array): HandshakeRequest {
  check('decodeHandshakeRequest', 'bytes', bytes, uint8Array);
  const { id } = frameHeader(bytes);
  if (id !== AUTHENTICATE) throw malformed(`a handshake with id ${id}`, `${AUTHENTICATE}`);
  const { maxMessageSize } = requestTable.decodeWhole(bytes);
  return { maxMessageSize };
}

/** Encodes a handshake answer. Throws CS_ERR_INVALID_PARAM. */
export function encodeHandshakeResponse(value: HandshakeResponse): Buffer {
  check('encodeHandshakeResponse', 'value', value, plainObject);
  return inCall('encodeHandshakeResponse', () =>
    responseTable.frame({ ...value, id: AUTHENTICATE, size: responseTable.size }),
  );
}

/**
 * Decodes a handshake answer. With an error, only the header is decoded and the rest is empty. Throws
 * CS_ERR_MESSAGE_ERROR.
 */
export function decodeHandshakeResponse(bytes: Uint8Array): HandshakeResponse {
  check('decodeHandshakeResponse', 'bytes', bytes, uint8Array);
  frameHeader(bytes);
  const refusal = responseHeader.decode(bytes).error;
  if (refusal !== 0) return { ...NOTHING, error: refusal };
  const { error, connectionType, maxMessageSize, connection, request, response, event } =
    responseTable.decodeWhole(bytes);
  if (connectionType !== ConnectionType.SHM && connectionType !== ConnectionType.SOCKET) {
    throw malformed(`connection type ${connectionType}`, '0 (socket) or 1 (shared memory)');
  }
  if (maxMessageSize === 0 || maxMessageSize > MAX_FRAME_BYTES) {
    throw malformed(`a largest frame of ${maxMessageSize} bytes`, `1 to ${MAX_FRAME_BYTES}`);
  }
  return { error, connectionType, maxMessageSize, connection, request, response, event };
}
