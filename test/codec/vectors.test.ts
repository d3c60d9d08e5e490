/** Every frame libcpg and the daemon exchanged in the recordings: decoded to what C read, encoded back to the same bytes. */
import type { CpgRequest, CpgResponse, CpgWireEvent } from '../../src/codec';
import { loadLayout } from '../support/fixtures';
import { CODECS, encodeAs, expectedValue, meaningfulBytes, recordedFrames } from './frames';

const frames = recordedFrames();

/** Compares big byte fields natively: walking them one by one takes seconds. */
function expectSameValue(actual: object, expected: object): void {
  const flat = (value: object): [object, Buffer[]] => {
    const bytes: Buffer[] = [];
    const rest = Object.fromEntries(
      Object.entries(value).map(([key, item]: [string, unknown]) => {
        if (!ArrayBuffer.isView(item)) return [key, item];
        bytes.push(Buffer.from(item.buffer, item.byteOffset, item.byteLength));
        return [key, `${item.byteLength} bytes`];
      }),
    );
    return [rest, bytes];
  };
  const [actualRest, actualBytes] = flat(actual);
  const [expectedRest, expectedBytes] = flat(expected);
  expect(actualRest).toEqual(expectedRest);
  expect(actualBytes.map((bytes, index) => Buffer.compare(bytes, expectedBytes[index]!))).toEqual(
    expectedBytes.map(() => 0),
  );
}

describe('recorded frames', () => {
  test.each(frames)('$title', (frame) => {
    const { decode } = CODECS[frame.dir];
    const value = decode(frame.bytes);
    expectSameValue(value, expectedValue(frame));

    const encoded = encodeAs(frame.dir, value);
    const mask = meaningfulBytes(frame);
    const expected = Buffer.from(frame.bytes);
    for (let offset = 0; offset < expected.length; offset++) if (mask[offset] === 0) expected[offset] = 0;
    // The one field C leaves unset and we do not: the error of events that have none.
    if (frame.values.error === undefined && frame.dir === 'event') {
      expect(encoded.readInt32LE(16)).toBe(1);
      encoded.writeInt32LE(0, 16);
    }
    expect(encoded.length).toBe(expected.length);
    expect(firstDifference(encoded, expected)).toBe(-1);
  });
});

function firstDifference(a: Buffer, b: Buffer): number {
  if (a.equals(b)) return -1;
  let offset = 0;
  while (a[offset] === b[offset]) offset++;
  return offset;
}

describe('the recordings are a useful test', () => {
  const kinds = new Set(frames.map(({ dir, name }) => `${dir} ${name}`));
  const facts = loadLayout();

  test.each([
    ...Object.keys(facts.requests).map((name) => `request ${name}`),
    ...Object.keys(facts.responses).map((name) => `response ${name}`),
    ...Object.keys(facts.events).map((name) => `event ${name}`),
    'handshake-request cpg',
    'handshake-response cpg',
  ])('they have %s', (kind) => {
    expect(kinds).toContain(kind);
  });

  test('their padding is not all zero, so that ignoring it is tested', () => {
    const garbage = frames.filter((frame) => {
      const mask = meaningfulBytes(frame);
      return frame.bytes.some((byte, offset) => mask[offset] === 0 && byte !== 0);
    });
    expect(new Set(garbage.map(({ dir }) => dir))).toEqual(new Set(['request', 'response', 'event']));
  });

  test('they have errors, empty and largest messages, and all kinds of fragments', () => {
    const values = frames.map((frame) => frame.values);
    expect(values.some(({ error }) => error === 27)).toBe(true);
    expect(values.some(({ msglen }) => msglen === 0)).toBe(true);
    expect(values.some(({ msglen }) => msglen === 1024 * 1024 - 1024)).toBe(true);
    const types = frames.filter(({ name }) => name === 'partial_deliver').map((frame) => frame.values.type);
    expect(new Set(types)).toEqual(new Set([1, 2, 3]));
  });
});

describe('a frame inside a larger piece of memory', () => {
  const small = frames.filter(({ bytes }) => bytes.length < 16 * 1024);

  test('is decoded in place, even if it is not a Buffer', () => {
    for (const frame of small) {
      const memory = new Uint8Array(frame.bytes.length + 12).fill(0xee);
      memory.set(frame.bytes, 7);
      const view = memory.subarray(7, 7 + frame.bytes.length);
      const decoded = CODECS[frame.dir].decode(view) as CpgRequest | CpgResponse | CpgWireEvent;
      expectSameValue(decoded, expectedValue(frame));
    }
  });
});
