/**
 * Requests, client to daemon: see docs/protocol.md. mcast and partialMcast begin with the 24-byte header and do not use
 * its `error`.
 */
import { check, inCall, oneOf, plainObject, uint8Array, whole } from '../arguments';
import {
  asBuffer,
  cpgName,
  CPG_NAME_BYTES,
  malformed,
  Table,
  uint32,
  uint64,
  unset,
  type FieldSpan,
} from './fields';
import {
  frameHeader,
  requestHeaderFields,
  responseHeaderFields,
  type RequestHeader,
  type ResponseHeader,
} from './header';
import { counted } from '../text';

/** Request ids: corosync's `enum req_cpg_types`. */
export const RequestId = {
  join: 0,
  leave: 1,
  mcast: 2,
  membershipGet: 3,
  localGet: 4,
  iterationInitialize: 5,
  iterationNext: 6,
  iterationFinalize: 7,
  finalize: 8,
  zeroCopyAlloc: 9,
  zeroCopyFree: 10,
  zeroCopyExecute: 11,
  partialMcast: 12,
} as const;

/** cpg_guarantee_t. The daemon always delivers in agreed order. */
export const Guarantee = { UNORDERED: 0, FIFO: 1, AGREED: 2, SAFE: 3 } as const;

/** cpg_iteration_type_t. */
export const IterationType = { NAME_ONLY: 1, ONE_GROUP: 2, ALL: 3 } as const;

/** lib_cpg_partial_types: the position of a fragment in its message. */
export const FragmentType = { FIRST: 1, CONTINUED: 2, LAST: 3 } as const;

/** CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF, a flag of join. */
export const DELIVER_INITIAL_TOTEM_CONF = 1;

interface JoinFields {
  group: Uint8Array;
  /** The pid the client announces: the daemon believes it. */
  pid: number;
  flags: number;
}
interface LeaveFields {
  group: Uint8Array;
  pid: number;
}
interface GroupFields {
  group: Uint8Array;
}
interface IterationFields {
  group: Uint8Array;
  iterationType: number;
}
interface HandleFields {
  handle: bigint;
}
interface McastFields {
  guarantee: number;
  messageLength: number;
}
interface PartialMcastFields {
  guarantee: number;
  /** Bytes of the whole message. */
  messageLength: number;
  fragmentLength: number;
  fragmentType: number;
}

type Request<Type extends keyof typeof RequestId, Fields> = { type: Type } & Fields;

/** A request, discriminated by `type`: corosync's structs `req_lib_cpg_*`. `group` always has 1 to 128 bytes. */
export type CpgRequest =
  | Request<'join', JoinFields>
  | Request<'leave', LeaveFields>
  | Request<'mcast', { guarantee: number; message: Uint8Array }>
  | Request<'membershipGet', GroupFields>
  | Request<'localGet', unknown>
  | Request<'iterationInitialize', IterationFields>
  | Request<'iterationNext', HandleFields>
  | Request<'iterationFinalize', HandleFields>
  | Request<'finalize', unknown>
  | Request<'zeroCopyAlloc' | 'zeroCopyFree' | 'zeroCopyExecute', { body: Uint8Array }>
  | Request<'partialMcast', Omit<PartialMcastFields, 'fragmentLength'> & { fragment: Uint8Array }>;

const join = new Table<RequestHeader & JoinFields>(
  'join',
  ...requestHeaderFields,
  cpgName('group'),
  uint32('pid'),
  uint32('flags'),
);
const leave = new Table<RequestHeader & LeaveFields>(
  'leave',
  ...requestHeaderFields,
  cpgName('group'),
  uint32('pid'),
);
const membershipGet = new Table<RequestHeader & GroupFields>(
  'membershipGet',
  ...requestHeaderFields,
  cpgName('group'),
);
const empty = new Table<RequestHeader>('request without fields', ...requestHeaderFields);
const iterationInitialize = new Table<RequestHeader & IterationFields>(
  'iterationInitialize',
  ...requestHeaderFields,
  cpgName('group'),
  uint32('iterationType'),
);
const iterationTypeOnly = new Table<RequestHeader & Pick<IterationFields, 'iterationType'>>(
  'iterationInitialize',
  ...requestHeaderFields,
  unset(CPG_NAME_BYTES),
  uint32('iterationType'),
);
const iterationHandle = new Table<RequestHeader & HandleFields>(
  'iteration request',
  ...requestHeaderFields,
  uint64('handle'),
);
const mcast = new Table<ResponseHeader & McastFields>(
  'mcast',
  ...responseHeaderFields,
  uint32('guarantee'),
  uint32('messageLength'),
);
const partialMcast = new Table<ResponseHeader & PartialMcastFields>(
  'partialMcast',
  ...responseHeaderFields,
  uint32('guarantee'),
  uint32('messageLength'),
  uint32('fragmentLength'),
  uint32('fragmentType'),
);

/** Bytes before the message in an mcast request. */
export const MCAST_HEADER_BYTES = mcast.size;
/** Bytes before the fragment in a partialMcast request. */
export const PARTIAL_MCAST_HEADER_BYTES = partialMcast.size;

/** The kind of a frame size. */
const MAX_INT32 = 2 ** 31 - 1;

const MCAST_SIZE = mcast.offsetOf('size');
const MCAST_GUARANTEE = mcast.offsetOf('guarantee');
const MCAST_MESSAGE_LENGTH = mcast.offsetOf('messageLength');

/** Writes the 40 bytes before the message. */
export function writeMcastHeader(
  target: Buffer,
  offset: number,
  guarantee: number,
  messageLength: number,
): void {
  const call = 'writeMcastHeader';
  const bytes = asBuffer(check(call, 'target', target, uint8Array));
  check(call, 'offset', offset, whole(0, bytes.length - MCAST_HEADER_BYTES));
  check(call, 'guarantee', guarantee, whole(0, 0xffffffff));
  check(call, 'messageLength', messageLength, whole(0, MAX_INT32 - MCAST_HEADER_BYTES));
  bytes.fill(0, offset, offset + MCAST_HEADER_BYTES);
  renewMcastHeader(bytes, offset, guarantee, messageLength);
}

/** Like writeMcastHeader(), for memory that only ever held zeros and mcast headers: the sender's hot path. */
export function renewMcastHeader(
  target: Buffer,
  offset: number,
  guarantee: number,
  messageLength: number,
): void {
  target.writeInt32LE(RequestId.mcast, offset);
  target.writeInt32LE(MCAST_HEADER_BYTES + messageLength, offset + MCAST_SIZE);
  target.writeUInt32LE(guarantee, offset + MCAST_GUARANTEE);
  target.writeUInt32LE(messageLength, offset + MCAST_MESSAGE_LENGTH);
}

/**
 * Throws CS_ERR_MESSAGE_ERROR unless the lengths inside an mcast request agree with its size. The message then follows
 * MCAST_HEADER_BYTES: the server's hot path reads it there.
 */
export function checkMcast(frame: Buffer): void {
  if (frame.length < MCAST_HEADER_BYTES)
    throw malformed(`mcast of ${counted(frame.length, 'byte')}`, `at least ${MCAST_HEADER_BYTES}`);
  const size = frame.readInt32LE(MCAST_SIZE);
  const claimed = frame.readUInt32LE(MCAST_MESSAGE_LENGTH);
  const present = frame.length - MCAST_HEADER_BYTES;
  if (size !== frame.length)
    throw malformed(`mcast that says ${counted(size, 'byte')} on a frame of ${frame.length}`, 'the same');
  if (claimed !== present)
    throw malformed(`mcast that says ${counted(claimed, 'byte')} and carries ${present}`, 'the same');
}

/** The 56 bytes before a fragment, for a sender that keeps the fragment elsewhere. */
export function encodePartialMcastHeader(fields: PartialMcastFields): Buffer {
  const call = 'encodePartialMcastHeader';
  check(call, 'fields', fields, plainObject);
  const { fragmentLength } = fields;
  check(call, 'fragmentLength', fragmentLength, whole(0, MAX_INT32 - partialMcast.size));
  const size = partialMcast.size + fragmentLength;
  return inCall(call, () => partialMcast.frame({ ...fields, id: RequestId.partialMcast, size, error: 0 }));
}

/** Encodes a whole request frame. Throws CS_ERR_INVALID_PARAM or CS_ERR_NAME_TOO_LONG for an invalid value. */
export function encodeRequest(request: CpgRequest): Buffer {
  check('encodeRequest', 'request', request, plainObject);
  check('encodeRequest', 'type', request.type, REQUEST_TYPE);
  return inCall('encodeRequest', () => requestFrame(request));
}

const REQUEST_TYPE = oneOf(...Object.keys(RequestId));

function requestFrame(request: CpgRequest): Buffer {
  const id = RequestId[request.type];
  switch (request.type) {
    case 'join':
      return join.frame({ ...request, id, size: join.size });
    case 'leave':
      return leave.frame({ ...request, id, size: leave.size });
    case 'membershipGet':
      return membershipGet.frame({ ...request, id, size: membershipGet.size });
    case 'iterationInitialize':
      return iterationInitialize.frame({ ...request, id, size: iterationInitialize.size });
    case 'iterationNext':
    case 'iterationFinalize':
      return iterationHandle.frame({ ...request, id, size: iterationHandle.size });
    case 'localGet':
    case 'finalize':
      return empty.frame({ id, size: empty.size });
    case 'zeroCopyAlloc':
    case 'zeroCopyFree':
    case 'zeroCopyExecute':
      check(request.type, 'body', request.body, uint8Array);
      return empty.frame({ id, size: empty.size + request.body.length }, request.body);
    case 'mcast': {
      const { guarantee, message } = request;
      check(request.type, 'message', message, uint8Array);
      const size = mcast.size + message.length;
      return mcast.frame({ id, size, error: 0, guarantee, messageLength: message.length }, message);
    }
    case 'partialMcast': {
      const { guarantee, messageLength, fragmentType, fragment } = request;
      check(request.type, 'fragment', fragment, uint8Array);
      const fields = { guarantee, messageLength, fragmentType, fragmentLength: fragment.length };
      const size = partialMcast.size + fragment.length;
      return partialMcast.frame({ id, size, error: 0, ...fields }, fragment);
    }
  }
}

/** Decodes a request; byte fields of variable length are views into the frame. Throws CS_ERR_MESSAGE_ERROR. */
export function decodeRequest(bytes: Uint8Array): CpgRequest {
  check('decodeRequest', 'bytes', bytes, uint8Array);
  const { id } = frameHeader(bytes);
  switch (id) {
    case RequestId.join: {
      const { group, pid, flags } = join.decodeWhole(bytes);
      return { type: 'join', group, pid, flags };
    }
    case RequestId.leave: {
      const { group, pid } = leave.decodeWhole(bytes);
      return { type: 'leave', group, pid };
    }
    case RequestId.mcast: {
      const { guarantee, messageLength } = mcast.decode(bytes);
      return { type: 'mcast', guarantee, message: mcast.tail(bytes, messageLength) };
    }
    case RequestId.membershipGet:
      return { type: 'membershipGet', group: membershipGet.decodeWhole(bytes).group };
    case RequestId.localGet:
      empty.decodeWhole(bytes);
      return { type: 'localGet' };
    case RequestId.iterationInitialize: {
      const { iterationType } = iterationTypeOnly.decodeWhole(bytes);
      // libcpg leaves the whole name unset, including its length, unless it requests one group.
      const group =
        iterationType === IterationType.ONE_GROUP
          ? iterationInitialize.decode(bytes).group
          : new Uint8Array();
      return { type: 'iterationInitialize', group, iterationType };
    }
    case RequestId.iterationNext:
      return { type: 'iterationNext', handle: iterationHandle.decodeWhole(bytes).handle };
    case RequestId.iterationFinalize:
      return { type: 'iterationFinalize', handle: iterationHandle.decodeWhole(bytes).handle };
    case RequestId.finalize:
      empty.decodeWhole(bytes);
      return { type: 'finalize' };
    case RequestId.zeroCopyAlloc:
      return { type: 'zeroCopyAlloc', body: bytes.subarray(empty.size) };
    case RequestId.zeroCopyFree:
      return { type: 'zeroCopyFree', body: bytes.subarray(empty.size) };
    case RequestId.zeroCopyExecute:
      return { type: 'zeroCopyExecute', body: bytes.subarray(empty.size) };
    case RequestId.partialMcast: {
      const { guarantee, messageLength, fragmentLength, fragmentType } = partialMcast.decode(bytes);
      const fragment = partialMcast.tail(bytes, fragmentLength);
      return { type: 'partialMcast', guarantee, messageLength, fragmentType, fragment };
    }
    default:
      throw malformed(`a request with id ${id}`, '0 to 12');
  }
}

/** The fields of each request by id. */
export const REQUEST_SPANS: Readonly<Record<number, () => FieldSpan[]>> = {
  [RequestId.join]: () => join.spans,
  [RequestId.leave]: () => leave.spans,
  [RequestId.mcast]: () => mcast.spans,
  [RequestId.membershipGet]: () => membershipGet.spans,
  [RequestId.localGet]: () => empty.spans,
  [RequestId.iterationInitialize]: () => iterationInitialize.spans,
  [RequestId.iterationNext]: () => iterationHandle.spans,
  [RequestId.iterationFinalize]: () => iterationHandle.spans,
  [RequestId.finalize]: () => empty.spans,
  [RequestId.partialMcast]: () => partialMcast.spans,
};
