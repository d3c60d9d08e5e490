/** Decoding is total: any input yields either a value or CS_ERR_MESSAGE_ERROR. */
import fc from 'fast-check';
import { checkDeliver, DELIVER } from '../../src/codec';
import { isCpgError } from '../../src/errors';
import type { FrameDirection } from '../support/fixtures';
import { assertProperty } from '../support/property';
import { event, handshakeRequest, handshakeResponse, plausibleFrame, request, response } from './arbitraries';
import { CODECS, encodeAs, recordedFrames } from './frames';

const directions = Object.keys(CODECS) as FrameDirection[];

/** True if the bytes were decoded, false if they were rejected properly. */
function decodes(dir: FrameDirection, bytes: Uint8Array): boolean {
  try {
    CODECS[dir].decode(bytes);
    return true;
  } catch (error) {
    if (isCpgError(error) && error.code === 'CS_ERR_MESSAGE_ERROR') return false;
    throw new Error(`${dir}: ${Buffer.from(bytes).toString('hex')}`, { cause: error });
  }
}

describe('arbitrary bytes', () => {
  test.each(directions)('as %s', async (dir) => {
    await assertProperty(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => void decodes(dir, bytes)),
      { numRuns: 1000 },
    );
  });

  test.each(directions)('after a plausible header, as %s', async (dir) => {
    let decoded = 0;
    let refused = 0;
    await assertProperty(
      fc.property(plausibleFrame, (bytes) => {
        if (decodes(dir, bytes)) decoded++;
        else refused++;
      }),
      { numRuns: 3000 },
    );
    // Otherwise the frames were not plausible, and the test useless.
    expect(decoded).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(0);
  });

  test('as a deliver frame on the hot path', async () => {
    await assertProperty(
      fc.property(fc.oneof(plausibleFrame, fc.uint8Array({ maxLength: 300 })), (bytes) => {
        const frame = Buffer.from(bytes);
        try {
          checkDeliver(frame);
        } catch (error) {
          expect(error).toMatchObject({ code: 'CS_ERR_MESSAGE_ERROR' });
          return;
        }
        // What it lets pass can be read in place.
        expect(frame.length).toBeGreaterThanOrEqual(DELIVER.headerBytes);
        const nameLength = frame.readUInt32LE(DELIVER.groupLength);
        expect(nameLength).toBeLessThanOrEqual(128);
        expect(frame.readUInt32LE(DELIVER.messageLength)).toBe(frame.length - DELIVER.headerBytes);
      }),
      { numRuns: 1000 },
    );
  });
});

/** One frame of each kind and size, small enough to be cut everywhere. */
const samples = [
  ...new Map(
    recordedFrames()
      .filter(({ bytes }) => bytes.length <= 512)
      .map((frame) => [`${frame.dir} ${frame.name} ${frame.bytes.length} ${frame.values.error}`, frame]),
  ).values(),
];

describe('damaged recorded frames', () => {
  test.each(samples)('$title, cut at every byte', ({ dir, bytes }) => {
    expect(decodes(dir, bytes)).toBe(true);
    for (let length = 0; length < bytes.length; length++) {
      expect(decodes(dir, bytes.subarray(0, length))).toBe(false);
    }
  });

  test.each(samples)('$title, cut at every byte with a header that agrees', ({ dir, bytes, values }) => {
    for (let length = 12; length < bytes.length; length++) {
      const cut = Buffer.from(bytes.subarray(0, length));
      cut.writeInt32LE(length, 8);
      const result = decodes(dir, cut);
      // An error needs no more than its header.
      if (dir === 'response' && length >= 24 && values.error !== 1) expect(result).toBe(true);
      // Bare replies of an unexpected size are taken as well, as libcpg does.
      else if (dir !== 'response') expect(result).toBe(false);
    }
  });

  test.each(samples)('$title, with a byte too much', ({ dir, bytes }) => {
    expect(decodes(dir, Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(false);
  });

  test.each(samples)('$title, each byte set to other values', ({ dir, bytes }) => {
    for (let offset = 0; offset < bytes.length; offset++) {
      const original = bytes[offset]!;
      for (const value of [0, 1, 0x7f, 0x80, 0xff, original ^ 1]) {
        bytes[offset] = value;
        decodes(dir, bytes);
      }
      bytes[offset] = original;
    }
  });

  test.each(samples)('$title, every 32-bit cell set to the extremes', ({ dir, bytes }) => {
    for (let offset = 0; offset + 4 <= bytes.length; offset += 4) {
      const original = bytes.readUInt32LE(offset);
      for (const value of [0xffffffff, 0x80000000, 0x7fffffff, 0x0aaaaaab, original + 1]) {
        bytes.writeUInt32LE(value % 2 ** 32, offset);
        decodes(dir, bytes);
      }
      bytes.writeUInt32LE(original, offset);
    }
  });

  test('the same on the two largest kinds: a handshake answer and a membership reply', () => {
    const big = ['handshake-response', 'response'] as const;
    for (const dir of big) {
      const { bytes } = recordedFrames().find((frame) => frame.dir === dir && frame.bytes.length > 9000)!;
      for (let length = 0; length < bytes.length; length += 41) {
        expect(decodes(dir, bytes.subarray(0, length))).toBe(false);
      }
      for (let offset = 0; offset + 4 <= bytes.length; offset += 4) {
        const original = bytes.readUInt32LE(offset);
        bytes.writeUInt32LE(0xffffffff, offset);
        decodes(dir, bytes);
        bytes.writeUInt32LE(original, offset);
      }
    }
  });
});

describe('wrong lengths', () => {
  const NAME_LENGTH = { request: 16, event: 24, response: 24 } as const;

  function sample(dir: FrameDirection, name: string): Buffer {
    return Buffer.from(
      recordedFrames().find(
        (frame) => frame.dir === dir && frame.name === name && [undefined, 0, 1].includes(frame.values.error),
      )!.bytes,
    );
  }

  test.each([
    ['request', 'join', NAME_LENGTH.request],
    ['request', 'leave', NAME_LENGTH.request],
    ['request', 'membership_get', NAME_LENGTH.request],
    ['response', 'iteration_next', NAME_LENGTH.response],
    ['event', 'confchg', NAME_LENGTH.event],
    ['event', 'deliver', NAME_LENGTH.event],
    ['event', 'partial_deliver', NAME_LENGTH.event],
  ] as const)('a group name of 129 bytes or more in %s %s', (dir, name, offset) => {
    const bytes = sample(dir, name);
    for (const length of [129, 0x80000000, 0xffffffff]) {
      bytes.writeUInt32LE(length, offset);
      expect(decodes(dir, bytes)).toBe(false);
    }
    bytes.writeUInt32LE(128, offset);
    expect(decodes(dir, bytes)).toBe(true);
  });

  // Each claims gigabytes: the decoder must reject it immediately, by the bytes present.
  test.each([
    ['request', 'mcast', 32],
    ['request', 'partial_mcast', 40],
    ['response', 'membership_get', 24],
    ['event', 'confchg', 160],
    ['event', 'confchg', 168],
    ['event', 'confchg', 176],
    ['event', 'deliver', 160],
    ['event', 'partial_deliver', 168],
    ['event', 'totem_confchg', 40],
  ] as const)('a count in %s %s at %i', (dir, name, offset) => {
    const bytes = sample(dir, name);
    const allocated = jest.spyOn(Buffer, 'alloc');
    const allocatedUnsafe = jest.spyOn(Buffer, 'allocUnsafe');
    const lists = jest.spyOn(Array, 'from');
    try {
      for (const count of [0xffffffff, 0x80000000, 0x10000000, bytes.readUInt32LE(offset) + 385]) {
        bytes.writeUInt32LE(count, offset);
        expect(decodes(dir, bytes)).toBe(false);
      }
      expect(allocated).not.toHaveBeenCalled();
      expect(allocatedUnsafe).not.toHaveBeenCalled();
      expect(lists).not.toHaveBeenCalled();
    } finally {
      jest.restoreAllMocks();
    }
  });

  test('a ring name without a terminator', () => {
    for (const offset of [40, 4136, 8232]) {
      const bytes = sample('handshake-response', 'cpg').fill('x', offset, offset + 4096);
      expect(decodes('handshake-response', bytes)).toBe(false);
    }
  });

  test('the rest of a refused handshake is ignored', () => {
    const bytes = sample('handshake-response', 'cpg').fill(0xff, 20);
    bytes.writeInt32LE(-13, 16);
    expect(CODECS['handshake-response'].decode(bytes)).toMatchObject({ error: -13, request: '' });
  });

  test.each([2, 7, -1, 0x7fffffff])('connection type %i', (connectionType) => {
    const bytes = sample('handshake-response', 'cpg');
    bytes.writeInt32LE(connectionType, 24);
    expect(decodes('handshake-response', bytes)).toBe(false);
  });

  test.each([0, 16 * 1024 * 1024 + 1, 0xffffffff])('a largest frame of %i bytes', (size) => {
    const bytes = sample('handshake-response', 'cpg');
    bytes.writeUInt32LE(size, 28);
    expect(decodes('handshake-response', bytes)).toBe(false);
  });

  test.each([13, 14, -1, -2, 0x7fffffff])('a request with id %i', (id) => {
    const bytes = sample('request', 'local_get');
    bytes.writeInt32LE(id, 0);
    expect(decodes('request', bytes)).toBe(false);
  });

  test.each([4, 5, 8, 13, 15, 17, 19, -1])('a reply with id %i', (id) => {
    const bytes = sample('response', 'join');
    bytes.writeInt32LE(id, 0);
    expect(decodes('response', bytes)).toBe(false);
  });

  test.each([0, 3, 6, 16, 18, -1])('an event with id %i', (id) => {
    const bytes = sample('event', 'deliver');
    bytes.writeInt32LE(id, 0);
    expect(decodes('event', bytes)).toBe(false);
  });
});

describe('round trips', () => {
  test.each([
    ['handshake-request', handshakeRequest],
    ['handshake-response', handshakeResponse],
    ['request', request],
    ['response', response],
    ['event', event],
  ] as const)('%s', async (dir, arbitrary) => {
    await assertProperty(
      fc.property(arbitrary as fc.Arbitrary<Parameters<typeof encodeAs>[1]>, (value) => {
        const bytes = encodeAs(dir, value);
        expect(bytes.readInt32LE(8)).toBe(bytes.length);
        expect(plain(CODECS[dir].decode(bytes))).toEqual(plain(value));
      }),
      { numRuns: 500 },
    );
  });

  /** Byte fields are views of one type or another. */
  function plain(value: object): object {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]: [string, unknown]) => [
        key,
        item instanceof Uint8Array || Buffer.isBuffer(item) ? Buffer.from(item).toString('hex') : item,
      ]),
    );
  }
});
