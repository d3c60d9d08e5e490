/**
 * Replies, daemon to client, one for each request but mcast: see docs/protocol.md.
 *
 * `error` is a cs_error_t; 1 (CS_OK) is success. With an error the daemon leaves the fields unset, so we neither read
 * nor write them. It answers a request that it does not know, or cannot take now, with a bare header with id 0.
 */
import { check, inCall, kind, oneOf, plainObject, uint8Array } from '../arguments';
import { CS_OK } from '../errors';
import { ADDRESS_BYTES, ADDRESSES, decodeAddresses, encodeAddresses, type CpgAddress } from './addresses';
import { cpgName, malformed, packedUint32, Table, uint32, uint64, type FieldSpan } from './fields';
import { frameHeader, responseHeader, responseHeaderFields, type ResponseHeader } from './header';
import { MEMBERSHIP_SLOTS } from './limits';
import { RequestId } from './requests';

/** Reply ids: corosync's `enum res_cpg_types`. */
export const ResponseId = {
  join: 0,
  leave: 1,
  mcast: 2,
  membershipGet: 3,
  localGet: 7,
  iterationInitialize: 9,
  iterationNext: 10,
  iterationFinalize: 11,
  finalize: 12,
  null: 14,
  partialMcast: 18,
} as const;

/** The name of a reply. */
export type ResponseType = keyof typeof ResponseId;

/** The reply id for each request id; mcast (2) has none. */
export const RESPONSE_ID_OF: Readonly<Record<number, number>> = {
  [RequestId.join]: ResponseId.join,
  [RequestId.leave]: ResponseId.leave,
  [RequestId.membershipGet]: ResponseId.membershipGet,
  [RequestId.localGet]: ResponseId.localGet,
  [RequestId.iterationInitialize]: ResponseId.iterationInitialize,
  [RequestId.iterationNext]: ResponseId.iterationNext,
  [RequestId.iterationFinalize]: ResponseId.iterationFinalize,
  [RequestId.finalize]: ResponseId.finalize,
  [RequestId.zeroCopyAlloc]: ResponseId.null,
  [RequestId.zeroCopyFree]: ResponseId.null,
  [RequestId.zeroCopyExecute]: ResponseId.null,
  [RequestId.partialMcast]: ResponseId.partialMcast,
};

type Bare = 'join' | 'leave' | 'mcast' | 'iterationFinalize' | 'finalize' | 'null' | 'partialMcast';

/**
 * A successful reply with its fields, or any reply with only an error (a cs_error_t): corosync's structs
 * `res_lib_cpg_*`.
 */
export type CpgResponse =
  | { type: ResponseType; error: number }
  | { type: Bare; error: typeof CS_OK }
  | { type: 'membershipGet'; error: typeof CS_OK; members: CpgAddress[] }
  | { type: 'localGet'; error: typeof CS_OK; nodeId: number }
  | { type: 'iterationInitialize'; error: typeof CS_OK; handle: bigint }
  | { type: 'iterationNext'; error: typeof CS_OK; group: Uint8Array; nodeId: number; pid: number };

interface MembershipFields {
  count: number;
}
interface LocalGetFields {
  nodeId: number;
}
interface HandleFields {
  handle: bigint;
}
interface IterationNextFields {
  group: Uint8Array;
  nodeId: number;
  pid: number;
}

const membershipGet = new Table<ResponseHeader & MembershipFields>(
  'membershipGet reply',
  ...responseHeaderFields,
  uint32('count'),
);
const localGet = new Table<ResponseHeader & LocalGetFields>(
  'localGet reply',
  ...responseHeaderFields,
  uint32('nodeId'),
);
const iterationInitialize = new Table<ResponseHeader & HandleFields>(
  'iterationInitialize reply',
  ...responseHeaderFields,
  uint64('handle'),
);
// mar_cpg_iteration_description_t packs nodeid and pid into one 8-byte cell.
const iterationNext = new Table<ResponseHeader & IterationNextFields>(
  'iterationNext reply',
  ...responseHeaderFields,
  cpgName('group'),
  packedUint32('nodeId'),
  packedUint32('pid'),
);

/** The size of each reply; those with fields keep it when they carry an error. */
export const RESPONSE_BYTES: Readonly<Record<ResponseType, number>> = {
  join: responseHeader.size,
  leave: responseHeader.size,
  mcast: responseHeader.size,
  membershipGet: membershipGet.size + MEMBERSHIP_SLOTS * ADDRESS_BYTES,
  localGet: localGet.size,
  iterationInitialize: iterationInitialize.size,
  iterationNext: iterationNext.size,
  iterationFinalize: responseHeader.size,
  finalize: responseHeader.size,
  null: responseHeader.size,
  partialMcast: responseHeader.size,
};

const typeById = new Map<number, ResponseType>(
  (Object.keys(ResponseId) as ResponseType[]).map((type) => [ResponseId[type], type]),
);

/** Encodes a whole reply frame, with zeros where the daemon would leave memory unset. */
export function encodeResponse(response: CpgResponse): Buffer {
  check('encodeResponse', 'response', response, plainObject);
  check('encodeResponse', 'type', response.type, RESPONSE_TYPE);
  return inCall('encodeResponse', () => responseFrame(response));
}

const RESPONSE_TYPE = oneOf(...Object.keys(ResponseId));
const MEMBERS = kind(
  `an array of at most ${MEMBERSHIP_SLOTS} addresses`,
  (value) => ADDRESSES.accepts(value) && (value as unknown[]).length <= MEMBERSHIP_SLOTS,
);

function responseFrame(response: CpgResponse): Buffer {
  const size = RESPONSE_BYTES[response.type];
  const bytes = Buffer.alloc(size);
  const header = { id: ResponseId[response.type], size, error: response.error };
  if (response.type === 'membershipGet' && 'members' in response) {
    const { members } = response;
    check(response.type, 'members', members, MEMBERS);
    encodeAddresses(members, bytes, membershipGet.encode({ ...header, count: members.length }, bytes));
  } else if (response.type === 'iterationInitialize' && 'handle' in response) {
    iterationInitialize.encode({ ...header, handle: response.handle }, bytes);
  } else if (response.type === 'iterationNext' && 'group' in response) {
    iterationNext.encode(
      { ...header, group: response.group, nodeId: response.nodeId, pid: response.pid },
      bytes,
    );
  } else if (response.type === 'localGet' && 'nodeId' in response) {
    localGet.encode({ ...header, nodeId: response.nodeId }, bytes);
  } else {
    responseHeader.encode(header, bytes);
  }
  return bytes;
}

/** Decodes a reply. Throws CS_ERR_MESSAGE_ERROR for anything else. */
export function decodeResponse(bytes: Uint8Array): CpgResponse {
  check('decodeResponse', 'bytes', bytes, uint8Array);
  const { id } = frameHeader(bytes);
  const type = typeById.get(id);
  if (type === undefined) throw malformed(`a reply with id ${id}`, 'a known id');
  const { error } = responseHeader.decode(bytes);
  if (error !== CS_OK) return { type, error };
  switch (type) {
    case 'membershipGet': {
      const { count } = membershipGet.decode(bytes);
      if (count > MEMBERSHIP_SLOTS) throw malformed(`${count} members`, `at most ${MEMBERSHIP_SLOTS}`);
      return { type, error, members: decodeAddresses(bytes, membershipGet.size, count) };
    }
    case 'localGet':
      return { type, error, nodeId: localGet.decode(bytes).nodeId };
    case 'iterationInitialize':
      return { type, error, handle: iterationInitialize.decode(bytes).handle };
    case 'iterationNext': {
      const { group, nodeId, pid } = iterationNext.decode(bytes);
      return { type, error, group, nodeId, pid };
    }
    default:
      return { type, error };
  }
}

/** The fields of replies by id, for those with more than a header. */
export const RESPONSE_SPANS: Readonly<Record<number, () => FieldSpan[]>> = {
  [ResponseId.membershipGet]: () => membershipGet.spans,
  [ResponseId.localGet]: () => localGet.spans,
  [ResponseId.iterationInitialize]: () => iterationInitialize.spans,
  [ResponseId.iterationNext]: () => iterationNext.spans,
};
