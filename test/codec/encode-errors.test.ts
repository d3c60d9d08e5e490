/** Encoding rejects values that no frame can hold. */
import {
  encodeEvent,
  encodeHandshakeRequest,
  encodeHandshakeResponse,
  encodePartialMcastHeader,
  encodeRequest,
  encodeResponse,
  MEMBERSHIP_SLOTS,
} from '../../src/codec';
import { thrownBy } from '../support/errors';

const group = Buffer.from('g');
const message = Buffer.alloc(0);
const tooLong = Buffer.alloc(129);

describe('group names of 129 bytes are CS_ERR_NAME_TOO_LONG', () => {
  test.each([
    ['join', () => encodeRequest({ type: 'join', group: tooLong, pid: 1, flags: 0 })],
    ['leave', () => encodeRequest({ type: 'leave', group: tooLong, pid: 1 })],
    ['membershipGet', () => encodeRequest({ type: 'membershipGet', group: tooLong })],
    [
      'iterationInitialize',
      () => encodeRequest({ type: 'iterationInitialize', group: tooLong, iterationType: 2 }),
    ],
    [
      'iterationNext',
      () => encodeResponse({ type: 'iterationNext', error: 1, group: tooLong, nodeId: 1, pid: 1 }),
    ],
    ['deliver', () => encodeEvent({ type: 'deliver', group: tooLong, nodeId: 1, pid: 1, message })],
    ['confchg', () => encodeEvent({ type: 'confchg', group: tooLong, members: [], left: [], joined: [] })],
  ])('%s', (_, encode) => {
    expect(thrownBy(encode).code).toBe('CS_ERR_NAME_TOO_LONG');
  });

  test('128 bytes are fine', () => {
    const full = Buffer.alloc(128, 0xff);
    expect(encodeRequest({ type: 'join', group: full, pid: 1, flags: 0 }).subarray(24, 152)).toEqual(full);
  });
});

describe.each([-1, 2 ** 32, 2 ** 53])('the number %d in a 32-bit field', (number) => {
  const fragmentHeader = { guarantee: 2, messageLength: 1, fragmentLength: 1, fragmentType: 1 };
  const address = { nodeId: 1, pid: 1, reason: 0 };
  const confchg = { type: 'confchg' as const, group, members: [], left: [], joined: [] };

  test.each([
    ['pid of join', () => encodeRequest({ type: 'join', group, pid: number, flags: 0 })],
    ['flags of join', () => encodeRequest({ type: 'join', group, pid: 1, flags: number })],
    ['pid of leave', () => encodeRequest({ type: 'leave', group, pid: number })],
    ['guarantee of mcast', () => encodeRequest({ type: 'mcast', guarantee: number, message })],
    ['iterationType', () => encodeRequest({ type: 'iterationInitialize', group, iterationType: number })],
    [
      'messageLength of a fragment',
      () => encodePartialMcastHeader({ ...fragmentHeader, messageLength: number }),
    ],
    ['fragmentType', () => encodePartialMcastHeader({ ...fragmentHeader, fragmentType: number })],
    ['nodeId of localGet', () => encodeResponse({ type: 'localGet', error: 1, nodeId: number })],
    [
      'reason of a member',
      () => encodeResponse({ type: 'membershipGet', error: 1, members: [{ ...address, reason: number }] }),
    ],
    ['nodeId of deliver', () => encodeEvent({ type: 'deliver', group, nodeId: number, pid: 1, message })],
    ['pid of a joined member', () => encodeEvent({ ...confchg, joined: [{ ...address, pid: number }] })],
    [
      'nodeId of a ring member',
      () => encodeEvent({ type: 'totemConfchg', ringId: { nodeId: 1, seq: 1n }, members: [number] }),
    ],
    ['maxMessageSize', () => encodeHandshakeRequest({ maxMessageSize: number })],
  ])('%s is CS_ERR_INVALID_PARAM', (_, encode) => {
    expect(thrownBy(encode).code).toBe('CS_ERR_INVALID_PARAM');
  });
});

describe('others', () => {
  test.each([-1n, 2n ** 64n])('the number %d in a 64-bit field', (handle) => {
    expect(thrownBy(() => encodeRequest({ type: 'iterationNext', handle })).code).toBe(
      'CS_ERR_INVALID_PARAM',
    );
  });

  test.each([-(2 ** 31) - 1, 2 ** 31])('the error %d', (error) => {
    expect(thrownBy(() => encodeResponse({ type: 'join', error })).code).toBe('CS_ERR_INVALID_PARAM');
  });

  test('more members than a reply has slots', () => {
    const members = Array.from({ length: MEMBERSHIP_SLOTS + 1 }, () => ({ nodeId: 1, pid: 1, reason: 0 }));
    const { code } = thrownBy(() => encodeResponse({ type: 'membershipGet', error: 1, members }));
    expect(code).toBe('CS_ERR_INVALID_PARAM');
  });

  test.each([
    ['does not fit with its NUL', 'x'.repeat(4096)],
    ['contains a NUL', 'a\0b'],
  ])('a ring name that %s', (_, request) => {
    const answer = {
      error: 0,
      connectionType: 1,
      maxMessageSize: 1,
      connection: 0n,
      response: '',
      event: '',
    };
    const { code } = thrownBy(() => encodeHandshakeResponse({ ...answer, request }));
    expect(code).toBe('CS_ERR_INVALID_PARAM');
  });
});
