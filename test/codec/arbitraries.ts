/** Arbitrary values of every message, for property tests. */
import fc from 'fast-check';
import { MEMBERSHIP_SLOTS, RequestId, RESPONSE_ID_OF, ResponseId } from '../../src/codec';
import type {
  CpgAddress,
  CpgRequest,
  CpgResponse,
  CpgWireEvent,
  HandshakeRequest,
  HandshakeResponse,
  ResponseType,
} from '../../src/codec';

const uint32 = fc.nat(0xffffffff);
const uint64 = fc.bigInt(0n, 0xffffffffffffffffn);
const group = fc.uint8Array({ maxLength: 128 });
const body = fc.uint8Array({ maxLength: 300 });
const address: fc.Arbitrary<CpgAddress> = fc.record({ nodeId: uint32, pid: uint32, reason: uint32 });
const addresses = (maxLength: number): fc.Arbitrary<CpgAddress[]> => fc.array(address, { maxLength });
const type = <T extends string>(name: T): fc.Arbitrary<T> => fc.constant(name);

export const handshakeRequest: fc.Arbitrary<HandshakeRequest> = fc.record({ maxMessageSize: uint32 });

const path = fc
  .string({ unit: 'binary', maxLength: 200 })
  // A C string holds no NUL.
  .filter((text) => !text.includes('\0'));

export const handshakeResponse: fc.Arbitrary<HandshakeResponse> = fc.oneof(
  fc.record({
    error: fc.constant(0),
    connectionType: fc.constantFrom(0, 1),
    maxMessageSize: fc.integer({ min: 1, max: 16 * 1024 * 1024 }),
    connection: uint64,
    request: path,
    response: path,
    event: path,
  }),
  fc.record({
    error: fc.integer({ min: -4095, max: -1 }),
    connectionType: fc.constant(0),
    maxMessageSize: fc.constant(0),
    connection: fc.constant(0n),
    request: fc.constant(''),
    response: fc.constant(''),
    event: fc.constant(''),
  }),
);

export const request: fc.Arbitrary<CpgRequest> = fc.oneof(
  fc.record({ type: type('join'), group, pid: uint32, flags: uint32 }),
  fc.record({ type: type('leave'), group, pid: uint32 }),
  fc.record({ type: type('mcast'), guarantee: uint32, message: body }),
  fc.record({ type: type('membershipGet'), group }),
  fc.record({ type: type('localGet') }),
  // Only an iteration over one group has a name.
  fc.record({ type: type('iterationInitialize'), group, iterationType: fc.constant(2) }),
  fc.record({
    type: type('iterationInitialize'),
    group: fc.constant(new Uint8Array()),
    iterationType: uint32.filter((value) => value !== 2),
  }),
  fc.record({ type: type('iterationNext'), handle: uint64 }),
  fc.record({ type: type('iterationFinalize'), handle: uint64 }),
  fc.record({ type: type('finalize') }),
  fc.record({ type: fc.constantFrom('zeroCopyAlloc', 'zeroCopyFree', 'zeroCopyExecute'), body }),
  fc.record({
    type: type('partialMcast'),
    guarantee: uint32,
    messageLength: uint32,
    fragmentType: uint32,
    fragment: body,
  }),
);

const ok = fc.constant(1 as const);

export const response: fc.Arbitrary<CpgResponse> = fc.oneof(
  fc.record({
    type: fc.constantFrom(...(Object.keys(ResponseId) as ResponseType[])),
    error: fc.integer({ min: -0x80000000, max: 0x7fffffff }).filter((error) => error !== 1),
  }),
  fc.record({
    type: fc.constantFrom('join', 'leave', 'mcast', 'iterationFinalize', 'finalize', 'null', 'partialMcast'),
    error: ok,
  }),
  fc.record({ type: type('membershipGet'), error: ok, members: addresses(MEMBERSHIP_SLOTS) }),
  fc.record({ type: type('localGet'), error: ok, nodeId: uint32 }),
  fc.record({ type: type('iterationInitialize'), error: ok, handle: uint64 }),
  fc.record({ type: type('iterationNext'), error: ok, group, nodeId: uint32, pid: uint32 }),
);

export const event: fc.Arbitrary<CpgWireEvent> = fc.oneof(
  fc.record({
    type: type('confchg'),
    group,
    members: addresses(10),
    left: addresses(10),
    joined: addresses(10),
  }),
  fc.record({ type: type('deliver'), group, nodeId: uint32, pid: uint32, message: body }),
  fc.record({
    type: type('totemConfchg'),
    ringId: fc.record({ nodeId: uint32, seq: uint64 }),
    members: fc.array(uint32, { maxLength: 20 }),
  }),
  fc.record({
    type: type('partialDeliver'),
    group,
    messageLength: uint32,
    nodeId: uint32,
    pid: uint32,
    fragmentType: uint32,
    fragment: body,
  }),
);

const knownIds = [
  -1,
  ...Object.values(RequestId),
  ...Object.values(RESPONSE_ID_OF),
  ...Object.values(ResponseId),
  4,
  5,
  13,
  17,
];

/** Lengths of the messages with fixed sizes, and whatever else. */
const plausibleLength = fc.oneof(
  fc.constantFrom(16, 24, 32, 40, 48, 52, 56, 152, 160, 168, 184, 200, 208, 9248, 12328),
  fc.integer({ min: 16, max: 700 }),
);

/** Bytes with a header that tells their true size and a known id, so that what is behind it gets decoded. */
export const plausibleFrame: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.oneof(
      { weight: 19, arbitrary: fc.tuple(fc.constantFrom(...knownIds), plausibleLength) },
      // Both messages of the handshake have but one id and one size.
      { weight: 1, arbitrary: fc.constantFrom([-1, 24] as const, [-1, 12328] as const) },
    ),
    fc.constantFrom(0, 1, 6, -13),
    fc.array(fc.tuple(fc.nat(12328), fc.oneof(uint32, fc.nat(200))), { maxLength: 30 }),
  )
  .map(([[id, length], error, words]) => {
    const frame = Buffer.alloc(length);
    for (const [position, word] of words) {
      const offset = position - (position % 4);
      if (offset + 4 <= length) frame.writeUInt32LE(word, offset);
    }
    frame.writeInt32LE(id, 0);
    frame.writeInt32LE(length, 8);
    if (length >= 20) frame.writeInt32LE(error, 16);
    return frame;
  });
