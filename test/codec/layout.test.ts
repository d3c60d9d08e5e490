/**
 * Every size, offset and number of fixtures/layout.json, which a C compiler wrote, against ours.
 *
 * Offsets are tested by what they do: a value put into one field must appear at the offset C gives, and
 * nowhere else; and read back from there.
 */
import {
  AUTHENTICATE,
  ConnectionType,
  decodeEvent,
  decodeHandshakeRequest,
  decodeHandshakeResponse,
  decodeRequest,
  decodeResponse,
  DELIVER,
  DELIVER_INITIAL_TOTEM_CONF,
  encodeEvent,
  encodeHandshakeRequest,
  encodeHandshakeResponse,
  encodePartialMcastHeader,
  encodeRequest,
  encodeResponse,
  EventId,
  Guarantee,
  HANDSHAKE_REQUEST_BYTES,
  HANDSHAKE_RESPONSE_BYTES,
  IterationType,
  MAX_GROUP_NAME_BYTES,
  MCAST_HEADER_BYTES,
  MEMBERSHIP_SLOTS,
  PARTIAL_MCAST_HEADER_BYTES,
  Reason,
  RequestId,
  RESPONSE_BYTES,
  RESPONSE_ID_OF,
  ResponseId,
  writeMcastHeader,
} from '../../src/codec';
import type { ResponseType } from '../../src/codec';
import { ADDRESS_BYTES } from '../../src/codec/addresses';
import { requestHeader, responseHeader } from '../../src/codec/header';
import { codeOf, CpgError, CS_OK, errnoOf, type CpgErrorCode } from '../../src/errors';
import { loadLayout, type Field, type Layout } from '../support/fixtures';

const facts = loadLayout();

/** Our name of a message or field, for the C one. */
const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

const NAME = facts.parts['name']!;
const ADDRESS = facts.parts['address']!;
const RING_ID = facts.parts['ring_id']!;

/** Unlike any other value in the frames, and each byte of it different. */
const MARK = 0x1b2c3d4e;
const MARK_64 = 0x1122334455667788n;
const NO_GROUP = new Uint8Array();

/** Asserts that `marked` is `plain` with `value` in the field, and nothing else changed. */
function expectOnlyAt(plain: Buffer, marked: Buffer, { offset, size }: Field, value: bigint): void {
  expect(marked.length).toBe(plain.length);
  const expected = Buffer.from(plain);
  if (size === 4) expected.writeUInt32LE(Number(value), offset);
  else expected.writeBigUInt64LE(value, offset);
  expect(marked.equals(expected)).toBe(true);
  expect(expected.equals(plain)).toBe(false);
}

/** The same for a group name: its length and then its bytes. */
function expectNameAt(plain: Buffer, marked: Buffer, offset: number, name: Uint8Array): void {
  const expected = Buffer.from(plain);
  expected.writeUInt32LE(name.length, offset + NAME.fields['length']!.offset);
  expected.set(name, offset + NAME.fields['value']!.offset);
  expect(marked.equals(expected)).toBe(true);
}

const FULL_NAME = Uint8Array.from({ length: MAX_GROUP_NAME_BYTES }, (_, index) => index + 1);

function field(layout: Layout, name: string): Field {
  const found = layout.fields[name];
  if (found === undefined) throw new Error(`layout.json has no field ${name}`);
  return found;
}

describe('headers', () => {
  test('have the sizes and offsets of libqb', () => {
    const request = facts.installed['qb_ipc_request_header']!;
    const response = facts.installed['qb_ipc_response_header']!;
    expect(requestHeader.size).toBe(request.size);
    expect(responseHeader.size).toBe(response.size);
    for (const name of ['id', 'size'] as const) {
      expect(requestHeader.offsetOf(name)).toBe(field(request, name).offset);
      expect(responseHeader.offsetOf(name)).toBe(field(response, name).offset);
    }
    expect(responseHeader.offsetOf('error')).toBe(field(response, 'error').offset);
  });
});

describe('parts', () => {
  test('a group name has room for all its bytes', () => {
    expect(field(NAME, 'value').size).toBe(MAX_GROUP_NAME_BYTES);
  });

  test('an address is as large as in C', () => {
    expect(ADDRESS_BYTES).toBe(ADDRESS.size);
  });
});

describe('handshake', () => {
  const request = facts.parts['handshake_request']!;
  const response = facts.parts['handshake_response']!;
  const answer = {
    error: 0,
    connectionType: 0,
    maxMessageSize: 1,
    connection: 0n,
    request: '',
    response: '',
    event: '',
  };

  test('sizes', () => {
    expect(HANDSHAKE_REQUEST_BYTES).toBe(request.size);
    expect(HANDSHAKE_RESPONSE_BYTES).toBe(response.size);
    expect(encodeHandshakeRequest({ maxMessageSize: 0 })).toHaveLength(request.size);
    expect(encodeHandshakeResponse(answer)).toHaveLength(response.size);
  });

  test('the request', () => {
    const plain = encodeHandshakeRequest({ maxMessageSize: 0 });
    const marked = encodeHandshakeRequest({ maxMessageSize: MARK });
    expectOnlyAt(plain, marked, field(request, 'max_msg_size'), BigInt(MARK));
    expect(decodeHandshakeRequest(marked)).toEqual({ maxMessageSize: MARK });
    expect(plain.readInt32LE(field(request, 'header.id').offset)).toBe(AUTHENTICATE);
    expect(plain.readInt32LE(field(request, 'header.size').offset)).toBe(request.size);
  });

  test.each([
    ['error', 'header.error', MARK],
    ['connectionType', 'connection_type', 1],
    ['maxMessageSize', 'max_msg_size', 0x00123456],
  ] as const)('the field %s of the answer', (ours, theirs, value) => {
    const marked = encodeHandshakeResponse({ ...answer, [ours]: value });
    const plain = Buffer.from(marked);
    plain.writeUInt32LE(answer[ours], field(response, theirs).offset);
    expect(plain.equals(encodeHandshakeResponse(answer))).toBe(true);
    expect(decodeHandshakeResponse(marked)[ours]).toBe(value);
  });

  test('the 64-bit field of the answer', () => {
    const marked = encodeHandshakeResponse({ ...answer, connection: MARK_64 });
    expectOnlyAt(encodeHandshakeResponse(answer), marked, field(response, 'connection'), MARK_64);
    expect(decodeHandshakeResponse(marked).connection).toBe(MARK_64);
  });

  test.each(['request', 'response', 'event'] as const)('the ring name %s of the answer', (name) => {
    const { offset, size } = field(response, name);
    // The longest that fits with its NUL, so that the end of the field is tested as well.
    const text = 'x'.repeat(size - 1);
    const marked = encodeHandshakeResponse({ ...answer, [name]: text });
    const expected = encodeHandshakeResponse(answer);
    expected.fill('x', offset, offset + size - 1);
    expect(marked.equals(expected)).toBe(true);
    expect(decodeHandshakeResponse(marked)[name]).toBe(text);
  });
});

describe('requests', () => {
  const join = { type: 'join', group: NO_GROUP, pid: 0, flags: 0 } as const;
  const leave = { type: 'leave', group: NO_GROUP, pid: 0 } as const;
  const mcast = { type: 'mcast', guarantee: 0, message: NO_GROUP } as const;
  const membershipGet = { type: 'membershipGet', group: NO_GROUP } as const;
  const iterationInitialize = { type: 'iterationInitialize', group: NO_GROUP, iterationType: 0 } as const;
  const iterationNext = { type: 'iterationNext', handle: 0n } as const;
  const iterationFinalize = { type: 'iterationFinalize', handle: 0n } as const;
  const partialMcast = {
    type: 'partialMcast',
    guarantee: 0,
    messageLength: 0,
    fragmentType: 0,
    fragment: NO_GROUP,
  } as const;
  const all = [
    join,
    leave,
    mcast,
    membershipGet,
    { type: 'localGet' },
    iterationInitialize,
    iterationNext,
    iterationFinalize,
    { type: 'finalize' },
    partialMcast,
  ] as const;

  test('every message of layout.json is here', () => {
    expect(all.map(({ type }) => type).sort()).toEqual(Object.keys(facts.requests).map(camel).sort());
  });

  test.each(Object.keys(facts.requests))('%s has the size and the id of C', (name) => {
    const frame = encodeRequest(all.find(({ type }) => type === camel(name))!);
    expect(frame).toHaveLength(facts.requests[name]!.size);
    expect(frame.readInt32LE(0)).toBe(facts.request_ids[name]);
    expect(frame.readInt32LE(8)).toBe(frame.length);
    // Everything behind the header is zero now, so whatever the next tests set is all there is.
    expect(frame.subarray(12).every((byte) => byte === 0)).toBe(true);
    expect(RequestId[camel(name) as keyof typeof RequestId]).toBe(facts.request_ids[name]);
  });

  test.each([
    { request: join, ours: 'pid', theirs: 'pid' },
    { request: join, ours: 'flags', theirs: 'flags' },
    { request: leave, ours: 'pid', theirs: 'pid' },
    { request: mcast, ours: 'guarantee', theirs: 'guarantee' },
    { request: iterationInitialize, ours: 'iterationType', theirs: 'type' },
    { request: partialMcast, ours: 'guarantee', theirs: 'guarantee' },
    { request: partialMcast, ours: 'messageLength', theirs: 'msglen' },
    { request: partialMcast, ours: 'fragmentType', theirs: 'type' },
  ] as const)('$request.type: $ours', ({ request, ours, theirs }) => {
    const message = Object.entries(facts.requests).find(([name]) => camel(name) === request.type)![1];
    const marked = encodeRequest({ ...request, [ours]: MARK });
    expectOnlyAt(encodeRequest(request), marked, field(message, theirs), BigInt(MARK));
    expect(decodeRequest(marked)).toMatchObject({ [ours]: MARK });
  });

  test.each([
    { request: iterationNext, name: 'iteration_next' },
    { request: iterationFinalize, name: 'iteration_finalize' },
  ] as const)('the handle of $name', ({ request, name }) => {
    const marked = encodeRequest({ ...request, handle: MARK_64 });
    expectOnlyAt(encodeRequest(request), marked, field(facts.requests[name]!, 'handle'), MARK_64);
    expect(decodeRequest(marked)).toMatchObject({ handle: MARK_64 });
  });

  test.each([
    { request: join, name: 'join' },
    { request: leave, name: 'leave' },
    { request: membershipGet, name: 'membership_get' },
    {
      request: { ...iterationInitialize, iterationType: IterationType.ONE_GROUP },
      name: 'iteration_initialize',
    },
  ] as const)('the group of $name', ({ request, name }) => {
    const marked = encodeRequest({ ...request, group: FULL_NAME });
    expectNameAt(encodeRequest(request), marked, field(facts.requests[name]!, 'name').offset, FULL_NAME);
    expect(decodeRequest(marked)).toMatchObject({ group: FULL_NAME });
  });

  const body = Uint8Array.from([1, 2, 3, 4, 5]);

  test('the message of mcast and its length', () => {
    const layout = facts.requests['mcast']!;
    const frame = encodeRequest({ ...mcast, message: body });
    expect(MCAST_HEADER_BYTES).toBe(layout.size);
    expect(frame.readUInt32LE(field(layout, 'msglen').offset)).toBe(body.length);
    expect(frame.readInt32LE(8)).toBe(layout.size + body.length);
    expect(frame.subarray(field(layout, 'message').offset)).toEqual(Buffer.from(body));
  });

  test('the header that is written on the hot path is the same', () => {
    const target = Buffer.alloc(MCAST_HEADER_BYTES + 6, 0xff);
    writeMcastHeader(target, 6, Guarantee.SAFE, body.length);
    const frame = encodeRequest({ ...mcast, guarantee: Guarantee.SAFE, message: body });
    expect(target.subarray(6).equals(frame.subarray(0, MCAST_HEADER_BYTES))).toBe(true);
    expect(target.subarray(0, 6)).toEqual(Buffer.alloc(6, 0xff));
  });

  test('the fragment of partialMcast and its length', () => {
    const layout = facts.requests['partial_mcast']!;
    const frame = encodeRequest({ ...partialMcast, fragment: body });
    expect(PARTIAL_MCAST_HEADER_BYTES).toBe(layout.size);
    expect(frame.readUInt32LE(field(layout, 'fraglen').offset)).toBe(body.length);
    expect(frame.readInt32LE(8)).toBe(layout.size + body.length);
    expect(frame.subarray(field(layout, 'data').offset)).toEqual(Buffer.from(body));
    const { guarantee, messageLength, fragmentType } = partialMcast;
    const head = encodePartialMcastHeader({ guarantee, messageLength, fragmentType, fragmentLength: 5 });
    expect(head.equals(frame.subarray(0, layout.size))).toBe(true);
  });
});

describe('responses', () => {
  const names = Object.keys(facts.responses);

  test.each(names)('%s has the size and the id of C', (name) => {
    const type = camel(name) as ResponseType;
    const frame = encodeResponse({ type, error: 2 });
    expect(RESPONSE_BYTES[type]).toBe(facts.responses[name]!.size);
    expect(frame).toHaveLength(facts.responses[name]!.size);
    expect(frame.readInt32LE(0)).toBe(facts.response_ids[name]);
    expect(frame.readInt32LE(8)).toBe(frame.length);
    expect(frame.readInt32LE(16)).toBe(2);
    expect(frame.subarray(20).every((byte) => byte === 0)).toBe(true);
    expect(ResponseId[type]).toBe(facts.response_ids[name]);
  });

  test.each(names)('%s answers the request of that name', (name) => {
    expect(RESPONSE_ID_OF[facts.request_ids[name]!]).toBe(facts.response_ids[name]);
  });

  test('mcast has no reply', () => {
    expect(RESPONSE_ID_OF[RequestId.mcast]).toBeUndefined();
  });

  test('membershipGet: count and slots', () => {
    const layout = facts.responses['membership_get']!;
    expect(MEMBERSHIP_SLOTS * ADDRESS.size).toBe(field(layout, 'members').size);
    const members = Array.from({ length: MEMBERSHIP_SLOTS }, (_, index) => ({
      nodeId: MARK + index,
      pid: MARK + 1000 + index,
      reason: MARK + 2000 + index,
    }));
    const frame = encodeResponse({ type: 'membershipGet', error: CS_OK, members });
    expect(frame).toHaveLength(layout.size);
    expect(frame.readUInt32LE(field(layout, 'count').offset)).toBe(MEMBERSHIP_SLOTS);
    expectAddresses(frame, field(layout, 'members').offset, members);
    expect(decodeResponse(frame)).toEqual({ type: 'membershipGet', error: CS_OK, members });
  });

  test('localGet: nodeid', () => {
    const frame = encodeResponse({ type: 'localGet', error: CS_OK, nodeId: MARK });
    const plain = encodeResponse({ type: 'localGet', error: CS_OK, nodeId: 0 });
    expectOnlyAt(plain, frame, field(facts.responses['local_get']!, 'nodeid'), BigInt(MARK));
    expect(decodeResponse(frame)).toMatchObject({ nodeId: MARK });
  });

  test('iterationInitialize: handle', () => {
    const frame = encodeResponse({ type: 'iterationInitialize', error: CS_OK, handle: MARK_64 });
    const plain = encodeResponse({ type: 'iterationInitialize', error: CS_OK, handle: 0n });
    expectOnlyAt(plain, frame, field(facts.responses['iteration_initialize']!, 'handle'), MARK_64);
    expect(decodeResponse(frame)).toMatchObject({ handle: MARK_64 });
  });

  test('iterationNext: group, nodeid, pid', () => {
    const layout = facts.responses['iteration_next']!;
    const row = { type: 'iterationNext', error: CS_OK, group: NO_GROUP, nodeId: 0, pid: 0 } as const;
    const plain = encodeResponse(row);
    const nodeId = field(layout, 'description.nodeid');
    const pid = field(layout, 'description.pid');
    expectOnlyAt(plain, encodeResponse({ ...row, nodeId: MARK }), nodeId, BigInt(MARK));
    expectOnlyAt(plain, encodeResponse({ ...row, pid: MARK }), pid, BigInt(MARK));
    const named = encodeResponse({ ...row, group: FULL_NAME });
    expectNameAt(plain, named, field(layout, 'description.name').offset, FULL_NAME);
    expect(decodeResponse(named)).toEqual({ ...row, group: FULL_NAME });
  });
});

function expectAddresses(
  frame: Buffer,
  offset: number,
  list: readonly { nodeId: number; pid: number; reason: number }[],
): void {
  const read = list.map((_, index) => {
    const at = offset + index * ADDRESS.size;
    return {
      nodeId: frame.readUInt32LE(at + field(ADDRESS, 'nodeid').offset),
      pid: frame.readUInt32LE(at + field(ADDRESS, 'pid').offset),
      reason: frame.readUInt32LE(at + field(ADDRESS, 'reason').offset),
    };
  });
  expect(read).toEqual(list);
}

describe('events', () => {
  const deliver = { type: 'deliver', group: NO_GROUP, nodeId: 0, pid: 0, message: NO_GROUP } as const;
  const confchg = { type: 'confchg', group: NO_GROUP, members: [], left: [], joined: [] };
  const partialDeliver = {
    type: 'partialDeliver',
    group: NO_GROUP,
    messageLength: 0,
    nodeId: 0,
    pid: 0,
    fragmentType: 0,
    fragment: NO_GROUP,
  } as const;
  const totemConfchg = { type: 'totemConfchg' as const, ringId: { nodeId: 0, seq: 0n }, members: [] };

  test.each([
    ['confchg', encodeEvent({ ...confchg, type: 'confchg' })],
    ['deliver', encodeEvent(deliver)],
    ['partial_deliver', encodeEvent(partialDeliver)],
    // The daemon sizes this one as if the list began 4 bytes later; C pads the structure the same way.
    ['totem_confchg', encodeEvent(totemConfchg)],
  ] as const)('%s has the size and the id of C', (name, frame) => {
    expect(frame).toHaveLength(facts.events[name]!.size);
    expect(frame.readInt32LE(0)).toBe(facts.event_ids[name]);
    expect(frame.readInt32LE(8)).toBe(frame.length);
    expect(EventId[camel(name) as keyof typeof EventId]).toBe(facts.event_ids[name]);
  });

  test('every event of layout.json is here', () => {
    expect(Object.keys(EventId).sort()).toEqual(Object.keys(facts.events).map(camel).sort());
  });

  test.each([
    { event: deliver, ours: 'nodeId', theirs: 'nodeid' },
    { event: deliver, ours: 'pid', theirs: 'pid' },
    { event: partialDeliver, ours: 'messageLength', theirs: 'msglen' },
    { event: partialDeliver, ours: 'nodeId', theirs: 'nodeid' },
    { event: partialDeliver, ours: 'pid', theirs: 'pid' },
    { event: partialDeliver, ours: 'fragmentType', theirs: 'type' },
  ] as const)('$event.type: $ours', ({ event, ours, theirs }) => {
    const layout = facts.events[event.type === 'deliver' ? 'deliver' : 'partial_deliver']!;
    const marked = encodeEvent({ ...event, [ours]: MARK });
    expectOnlyAt(encodeEvent(event), marked, field(layout, theirs), BigInt(MARK));
    expect(decodeEvent(marked)).toMatchObject({ [ours]: MARK });
  });

  test.each([
    { event: deliver, name: 'deliver' },
    { event: partialDeliver, name: 'partial_deliver' },
    { event: { ...confchg, type: 'confchg' }, name: 'confchg' },
  ] as const)('the group of $name', ({ event, name }) => {
    const marked = encodeEvent({ ...event, group: FULL_NAME });
    expectNameAt(encodeEvent(event), marked, field(facts.events[name]!, 'name').offset, FULL_NAME);
    expect(decodeEvent(marked)).toMatchObject({ group: FULL_NAME });
  });

  const body = Buffer.from([9, 8, 7, 6, 5]);

  test('the message of deliver, its length, and the offsets of the hot path', () => {
    const layout = facts.events['deliver']!;
    const frame = encodeEvent({ ...deliver, message: body });
    expect(frame.readUInt32LE(field(layout, 'msglen').offset)).toBe(body.length);
    expect(frame.subarray(field(layout, 'message').offset)).toEqual(body);
    expect(DELIVER).toEqual({
      headerBytes: layout.size,
      groupLength: field(layout, 'name').offset + field(NAME, 'length').offset,
      groupValue: field(layout, 'name').offset + field(NAME, 'value').offset,
      messageLength: field(layout, 'msglen').offset,
      nodeId: field(layout, 'nodeid').offset,
      pid: field(layout, 'pid').offset,
    });
  });

  test('the fragment of partialDeliver and its length', () => {
    const layout = facts.events['partial_deliver']!;
    const frame = encodeEvent({ ...partialDeliver, fragment: body });
    expect(frame.readUInt32LE(field(layout, 'fraglen').offset)).toBe(body.length);
    expect(frame.subarray(field(layout, 'data').offset)).toEqual(body);
  });

  test('confchg: counts, and the lists in the order members, left, joined', () => {
    const layout = facts.events['confchg']!;
    const list = (from: number, length: number): { nodeId: number; pid: number; reason: number }[] =>
      Array.from({ length }, (_, index) => ({ nodeId: from + index, pid: from + 10, reason: from + 20 }));
    const lists = { members: list(100, 3), left: list(200, 2), joined: list(300, 1) };
    const frame = encodeEvent({ type: 'confchg', group: NO_GROUP, ...lists });
    expect(frame.readUInt32LE(field(layout, 'member_count').offset)).toBe(3);
    expect(frame.readUInt32LE(field(layout, 'left_count').offset)).toBe(2);
    expect(frame.readUInt32LE(field(layout, 'joined_count').offset)).toBe(1);
    const { offset } = field(layout, 'addresses');
    expect(frame).toHaveLength(offset + 6 * ADDRESS.size);
    expectAddresses(frame, offset, [...lists.members, ...lists.left, ...lists.joined]);
    expect(decodeEvent(frame)).toMatchObject(lists);
  });

  test('totemConfchg: ring, count, and the list right after it', () => {
    const layout = facts.events['totem_confchg']!;
    const plain = encodeEvent(totemConfchg);
    const marked = encodeEvent({ ...totemConfchg, ringId: { nodeId: MARK, seq: 0n } });
    expectOnlyAt(plain, marked, field(layout, 'ring_id.nodeid'), BigInt(MARK));
    const sequel = encodeEvent({ ...totemConfchg, ringId: { nodeId: 0, seq: MARK_64 } });
    expectOnlyAt(plain, sequel, field(layout, 'ring_id.seq'), MARK_64);
    const ringAt = field(layout, 'ring_id.nodeid').offset;
    expect(field(layout, 'ring_id.seq').offset - ringAt).toBe(field(RING_ID, 'seq').offset);

    const frame = encodeEvent({ ...totemConfchg, members: [MARK, 1, 2] });
    expect(frame.readUInt32LE(field(layout, 'member_count').offset)).toBe(3);
    const { offset } = field(layout, 'members');
    expect([0, 1, 2].map((index) => frame.readUInt32LE(offset + 4 * index))).toEqual([MARK, 1, 2]);
    expect(decodeEvent(frame)).toMatchObject({ members: [MARK, 1, 2] });
  });
});

describe('numbers', () => {
  const { CS_OK: ok, ...errors } = facts.cs_error_t;

  test('CS_OK', () => {
    expect(CS_OK).toBe(ok);
  });

  test.each(Object.entries(errors))('%s is %i', (code, errno) => {
    expect(errnoOf(code as CpgErrorCode)).toBe(errno);
    expect(codeOf(errno)).toBe(code);
    expect(new CpgError(code as CpgErrorCode).errno).toBe(errno);
    expect(CpgError.fromReply(errno, 'a test').code).toBe(code);
  });

  test('an unknown number is CS_ERR_LIBRARY, and the text contains it', () => {
    const known = new Set(Object.values(facts.cs_error_t));
    for (const errno of [0, 29, 31, 99, 101, -1]) {
      expect(known.has(errno)).toBe(false);
      expect(codeOf(errno)).toBe('CS_ERR_LIBRARY');
      expect(CpgError.fromReply(errno, 'a test').message).toContain(`error ${errno}`);
    }
  });

  test('reasons', () => {
    expect(prefixed('CPG_REASON_', Reason)).toEqual(facts.cpg_reason_t);
  });

  test('guarantees', () => {
    expect(prefixed('CPG_TYPE_', Guarantee)).toEqual(facts.cpg_guarantee_t);
  });

  test('iteration types', () => {
    expect(prefixed('CPG_ITERATION_', IterationType)).toEqual(facts.cpg_iteration_type_t);
  });

  test('constants', () => {
    const { constants } = facts;
    expect(MAX_GROUP_NAME_BYTES).toBe(constants['CPG_MAX_NAME_LENGTH']);
    expect(DELIVER_INITIAL_TOTEM_CONF).toBe(constants['CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF']);
    expect(ConnectionType).toEqual({ SOCKET: constants['QB_IPC_SOCKET'], SHM: constants['QB_IPC_SHM'] });
    expect(AUTHENTICATE).toBe(constants['QB_IPC_MSG_AUTHENTICATE']);
  });

  function prefixed(prefix: string, table: Record<string, number>): Record<string, number> {
    return Object.fromEntries(Object.entries(table).map(([name, value]) => [prefix + name, value]));
  }
});
