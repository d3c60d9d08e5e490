/// <reference types="node" preserve="true" />
/** The pure codec of libqb IPC and of the CPG service: bytes <-> values, no I/O. */
export {
  decodeHandshakeRequest,
  decodeHandshakeResponse,
  encodeHandshakeRequest,
  encodeHandshakeResponse,
} from './handshake';
export { AUTHENTICATE, ConnectionType, HANDSHAKE_REQUEST_BYTES, HANDSHAKE_RESPONSE_BYTES } from './handshake';
export type { HandshakeRequest, HandshakeResponse } from './handshake';
export { frameId, frameSize } from './header';
export type { RequestHeader, ResponseHeader } from './header';
export { decodeRequest, encodeRequest, encodePartialMcastHeader, writeMcastHeader } from './requests';
export {
  DELIVER_INITIAL_TOTEM_CONF,
  FragmentType,
  Guarantee,
  IterationType,
  MCAST_HEADER_BYTES,
  PARTIAL_MCAST_HEADER_BYTES,
  RequestId,
} from './requests';
export type { CpgRequest } from './requests';
export { decodeResponse, encodeResponse, RESPONSE_BYTES, RESPONSE_ID_OF, ResponseId } from './responses';
export type { CpgResponse, ResponseType } from './responses';
export { checkDeliver, decodeEvent, DELIVER, encodeEvent, EventId } from './events';
export type { CpgWireEvent, RingId } from './events';
export { Reason } from './addresses';
export type { CpgAddress } from './addresses';
export { groupBytes, groupLabel, groupText, parseGroup } from './groups';
export * from './limits';
export { CpgError, isCpgError } from '../errors';
export type { CpgErrorCode } from '../errors';
