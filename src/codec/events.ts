/**
 * Events, unsolicited messages from daemon to client: see docs/protocol.md. Each begins with the 24-byte header.
 *
 * Beware: confchg counts joined before left, but lists left before joined. `error` means nothing in events: the daemon
 * leaves it unset in deliver and partialDeliver.
 */
import { check, inCall, listOf, oneOf, plainObject, uint32 as uint32Kind, uint8Array } from '../arguments';
import { CS_OK } from '../errors';
import { ADDRESS_BYTES, ADDRESSES, decodeAddresses, encodeAddresses, type CpgAddress } from './addresses';
import { asBuffer, cpgName, malformed, packedUint32, Table, uint32, uint64, type FieldSpan } from './fields';
import { frameHeader, responseHeaderFields, type ResponseHeader } from './header';
import { MAX_GROUP_NAME_BYTES } from './limits';
import { counted } from '../text';

/** Event ids: the callbacks in corosync's `enum res_cpg_types`. */
export const EventId = { confchg: 4, deliver: 5, totemConfchg: 13, partialDeliver: 17 } as const;

/** The id of a totem ring; each change of its nodes forms a new ring: `struct cpg_ring_id`. */
export interface RingId {
  /** The nodeid of the representative that formed the ring. */
  nodeId: number;
  /** Increases with every new ring, 64 bits. */
  seq: bigint;
}

/** An event in a frame, discriminated by `type`: corosync's structs `res_lib_cpg_*_callback`. */
export type CpgWireEvent =
  | { type: 'confchg'; group: Uint8Array; members: CpgAddress[]; left: CpgAddress[]; joined: CpgAddress[] }
  | { type: 'deliver'; group: Uint8Array; nodeId: number; pid: number; message: Uint8Array }
  | { type: 'totemConfchg'; ringId: RingId; members: number[] }
  | {
      type: 'partialDeliver';
      group: Uint8Array;
      /** Bytes of the whole message. */
      messageLength: number;
      nodeId: number;
      pid: number;
      fragmentType: number;
      fragment: Uint8Array;
    };

interface ConfchgFields {
  group: Uint8Array;
  memberCount: number;
  joinedCount: number;
  leftCount: number;
}
interface DeliverFields {
  group: Uint8Array;
  messageLength: number;
  nodeId: number;
  pid: number;
}
interface TotemConfchgFields {
  ringNodeId: number;
  ringSeq: bigint;
  memberCount: number;
}
interface PartialDeliverFields {
  group: Uint8Array;
  messageLength: number;
  fragmentLength: number;
  nodeId: number;
  pid: number;
  fragmentType: number;
}

const confchg = new Table<ResponseHeader & ConfchgFields>(
  'confchg',
  ...responseHeaderFields,
  cpgName('group'),
  uint32('memberCount'),
  uint32('joinedCount'),
  uint32('leftCount'),
);
const deliver = new Table<ResponseHeader & DeliverFields>(
  'deliver',
  ...responseHeaderFields,
  cpgName('group'),
  uint32('messageLength'),
  uint32('nodeId'),
  uint32('pid'),
);
// The list of nodeids begins right after the count, in the other half of its cell; the daemon sizes the message as if
// the list began at the next cell.
const totemConfchg = new Table<ResponseHeader & TotemConfchgFields>(
  'totemConfchg',
  ...responseHeaderFields,
  uint32('ringNodeId'),
  uint64('ringSeq'),
  packedUint32('memberCount'),
);
const ringMember = new Table<{ nodeId: number }>('a member of the ring', packedUint32('nodeId'));
const partialDeliver = new Table<ResponseHeader & PartialDeliverFields>(
  'partialDeliver',
  ...responseHeaderFields,
  cpgName('group'),
  uint32('messageLength'),
  uint32('fragmentLength'),
  uint32('nodeId'),
  uint32('pid'),
  uint32('fragmentType'),
);

const NODE_ID_BYTES = ringMember.size;

/** Field offsets of a deliver frame: the receiver's hot path reads them in place. */
export const DELIVER = {
  headerBytes: deliver.size,
  groupLength: deliver.offsetOf('group'),
  groupValue: deliver.offsetOf('group') + 8,
  messageLength: deliver.offsetOf('messageLength'),
  nodeId: deliver.offsetOf('nodeId'),
  pid: deliver.offsetOf('pid'),
} as const;

/** Throws CS_ERR_MESSAGE_ERROR unless the lengths inside a deliver frame agree with its size. */
export function checkDeliver(bytes: Uint8Array): void {
  const frame = Buffer.isBuffer(bytes) ? bytes : asBuffer(check('checkDeliver', 'bytes', bytes, uint8Array));
  if (frame.length < DELIVER.headerBytes)
    throw malformed(`deliver of ${counted(frame.length, 'byte')}`, `at least ${DELIVER.headerBytes}`);
  const claimed = frame.readUInt32LE(DELIVER.messageLength);
  const present = frame.length - DELIVER.headerBytes;
  if (claimed !== present)
    throw malformed(`deliver that says ${counted(claimed, 'byte')} and carries ${present}`, 'the same');
  const name = frame.readUInt32LE(DELIVER.groupLength);
  if (name > MAX_GROUP_NAME_BYTES)
    throw malformed(`a group name of ${name} bytes`, `at most ${MAX_GROUP_NAME_BYTES}`);
}

/** Encodes a whole event frame. */
export function encodeEvent(event: CpgWireEvent): Buffer {
  check('encodeEvent', 'event', event, plainObject);
  check('encodeEvent', 'type', event.type, EVENT_TYPE);
  return inCall('encodeEvent', () => eventFrame(event));
}

const EVENT_TYPE = oneOf(...Object.keys(EventId));
const NODE_IDS = listOf('an array of nodeids', uint32Kind);

function eventFrame(event: CpgWireEvent): Buffer {
  const id = EventId[event.type];
  switch (event.type) {
    case 'confchg': {
      for (const name of ['members', 'left', 'joined'] as const)
        check(event.type, name, event[name], ADDRESSES);
      const lists = [...event.members, ...event.left, ...event.joined];
      const size = confchg.size + lists.length * ADDRESS_BYTES;
      const bytes = Buffer.alloc(size);
      const counts = {
        memberCount: event.members.length,
        joinedCount: event.joined.length,
        leftCount: event.left.length,
      };
      confchg.encode({ id, size, error: CS_OK, group: event.group, ...counts }, bytes);
      encodeAddresses(lists, bytes, confchg.size);
      return bytes;
    }
    case 'deliver': {
      const { message } = event;
      check(event.type, 'message', message, uint8Array);
      const size = deliver.size + message.length;
      const bytes = Buffer.alloc(size);
      deliver.encode({ ...event, id, size, error: CS_OK, messageLength: message.length }, bytes);
      bytes.set(message, deliver.size);
      return bytes;
    }
    case 'totemConfchg': {
      const { ringId, members } = event;
      check(event.type, 'ringId', ringId, plainObject);
      check(event.type, 'members', members, NODE_IDS);
      const size = totemConfchg.size + (members.length + 1) * NODE_ID_BYTES;
      const bytes = Buffer.alloc(size);
      const ring = { ringNodeId: ringId.nodeId, ringSeq: ringId.seq };
      totemConfchg.encode({ id, size, error: CS_OK, ...ring, memberCount: members.length }, bytes);
      members.forEach((nodeId, index) =>
        ringMember.encode({ nodeId }, bytes, totemConfchg.size + index * NODE_ID_BYTES),
      );
      return bytes;
    }
    case 'partialDeliver': {
      const { fragment } = event;
      check(event.type, 'fragment', fragment, uint8Array);
      const size = partialDeliver.size + fragment.length;
      const bytes = Buffer.alloc(size);
      partialDeliver.encode({ ...event, id, size, error: CS_OK, fragmentLength: fragment.length }, bytes);
      bytes.set(fragment, partialDeliver.size);
      return bytes;
    }
  }
}

/** Decodes an event; message and fragment are views into the frame. Throws CS_ERR_MESSAGE_ERROR. */
export function decodeEvent(bytes: Uint8Array): CpgWireEvent {
  check('decodeEvent', 'bytes', bytes, uint8Array);
  const { id } = frameHeader(bytes);
  switch (id) {
    case EventId.confchg: {
      const { group, memberCount, joinedCount, leftCount } = confchg.decode(bytes);
      const all = decodeAddresses(bytes, confchg.size, memberCount + leftCount + joinedCount);
      const members = all.slice(0, memberCount);
      const left = all.slice(memberCount, memberCount + leftCount);
      const joined = all.slice(memberCount + leftCount);
      return { type: 'confchg', group, members, left, joined };
    }
    case EventId.deliver: {
      const { group, messageLength, nodeId, pid } = deliver.decode(bytes);
      return { type: 'deliver', group, nodeId, pid, message: deliver.tail(bytes, messageLength) };
    }
    case EventId.totemConfchg: {
      const { ringNodeId, ringSeq, memberCount } = totemConfchg.decode(bytes);
      const list = totemConfchg.tail(bytes, (memberCount + 1) * NODE_ID_BYTES);
      const members = Array.from({ length: memberCount }, (_, index) =>
        list.readUInt32LE(index * NODE_ID_BYTES),
      );
      return { type: 'totemConfchg', ringId: { nodeId: ringNodeId, seq: ringSeq }, members };
    }
    case EventId.partialDeliver: {
      const { group, messageLength, fragmentLength, nodeId, pid, fragmentType } =
        partialDeliver.decode(bytes);
      const fragment = partialDeliver.tail(bytes, fragmentLength);
      return { type: 'partialDeliver', group, messageLength, nodeId, pid, fragmentType, fragment };
    }
    default:
      throw malformed(`an event with id ${id}`, '4, 5, 13 or 17');
  }
}

/** The fields of each event by id. */
export const EVENT_SPANS: Readonly<Record<number, () => FieldSpan[]>> = {
  [EventId.confchg]: () => confchg.spans,
  [EventId.deliver]: () => deliver.spans,
  [EventId.totemConfchg]: () => totemConfchg.spans,
  [EventId.partialDeliver]: () => partialDeliver.spans,
};
