/** The pure codec of libqb IPC and of the CPG service: bytes <-> values, no I/O. */
export {
  decodeHandshakeRequest,
  decodeHandshakeResponse,
  encodeHandshakeRequest,
  encodeHandshakeResponse,
} from './handshake.js';
export {
  AUTHENTICATE,
  ConnectionType,
  HANDSHAKE_REQUEST_BYTES,
  HANDSHAKE_RESPONSE_BYTES,
} from './handshake.js';
export type { HandshakeRequest, HandshakeResponse } from './handshake.js';
export { frameId, frameSize } from './header.js';
export type { RequestHeader, ResponseHeader } from './header.js';
export { decodeRequest, encodeRequest, encodePartialMcastHeader, writeMcastHeader } from './requests.js';
export {
  DELIVER_INITIAL_TOTEM_CONF,
  FragmentType,
  Guarantee,
  IterationType,
  MCAST_HEADER_BYTES,
  PARTIAL_MCAST_HEADER_BYTES,
  RequestId,
} from './requests.js';
export type { CpgRequest } from './requests.js';
export { decodeResponse, encodeResponse, RESPONSE_BYTES, RESPONSE_ID_OF, ResponseId } from './responses.js';
export type { CpgResponse, ResponseType } from './responses.js';
export { checkDeliver, decodeEvent, DELIVER, encodeEvent, EventId } from './events.js';
export type { CpgWireEvent, RingId } from './events.js';
export { Reason } from './addresses.js';
export type { CpgAddress } from './addresses.js';
export { groupBytes, groupText } from './groups.js';
export * from './limits.js';
export { CpgError, isCpgError } from '../errors.js';
export type { CpgErrorCode } from '../errors.js';
