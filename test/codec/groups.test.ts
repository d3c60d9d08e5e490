/** Group names are bytes; text is only for display. */
import fc from 'fast-check';
import { groupBytes, groupText, MAX_GROUP_NAME_BYTES } from '../../src/codec';
import { thrownBy } from '../support/errors';
import { assertProperty } from '../support/property';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('from user input', () => {
  test.each([
    ['a', [0x61]],
    ['größe', [0x67, 0x72, 0xc3, 0xb6, 0xc3, 0x9f, 0x65]],
    ['ends\0', [0x65, 0x6e, 0x64, 0x73, 0]],
    ['\0', [0]],
    ['\ufeffbom', [0xef, 0xbb, 0xbf, 0x62, 0x6f, 0x6d]],
  ])('the text %j', (text, expected) => {
    expect([...groupBytes(text)]).toEqual(expected);
  });

  test('bytes stay unchanged, and are copied', () => {
    const given = bytes(0xff, 0xfe, 0x80, 0);
    const taken = groupBytes(given);
    given.fill(1);
    expect([...taken]).toEqual([0xff, 0xfe, 0x80, 0]);
  });

  test('the limit is 128 bytes, not characters', () => {
    expect(groupBytes('x'.repeat(128))).toHaveLength(MAX_GROUP_NAME_BYTES);
    expect(groupBytes(new Uint8Array(128))).toHaveLength(128);
    expect(groupBytes('ö'.repeat(64))).toHaveLength(128);
    expect(thrownBy(() => groupBytes('ö'.repeat(65))).code).toBe('CS_ERR_NAME_TOO_LONG');
    expect(thrownBy(() => groupBytes('x'.repeat(129))).code).toBe('CS_ERR_NAME_TOO_LONG');
    expect(thrownBy(() => groupBytes(new Uint8Array(129))).code).toBe('CS_ERR_NAME_TOO_LONG');
  });

  test('an empty name is refused', () => {
    expect(thrownBy(() => groupBytes('')).code).toBe('CS_ERR_INVALID_PARAM');
    expect(thrownBy(() => groupBytes(bytes())).code).toBe('CS_ERR_INVALID_PARAM');
  });
});

describe('for display', () => {
  test.each([
    ['text', 'größe'],
    ['with a NUL at the end', 'ends\0'],
    ['with a NUL inside', 'a\0b'],
    ['with a byte order mark', '\ufeffbom'],
    ['outside the basic plane', '𝄞'],
  ])('%s', (_, text) => {
    expect(groupText(Buffer.from(text, 'utf8'))).toBe(text);
  });

  test.each([
    ['a byte that never occurs', bytes(0xff)],
    ['a sequence cut short', bytes(0x61, 0xc3)],
    ['an overlong form', bytes(0xc0, 0x80)],
    ['a surrogate', bytes(0xed, 0xa0, 0x80)],
  ])('not UTF-8: %s', (_, name) => {
    const shown = groupText(name);
    expect(shown).toBeInstanceOf(Uint8Array);
    expect(Buffer.compare(shown as Uint8Array, name)).toBe(0);
  });

  test('returned bytes are a copy', () => {
    const frame = bytes(0xff, 0xfe);
    const shown = groupText(frame) as Uint8Array;
    frame.fill(0);
    expect([...shown]).toEqual([0xff, 0xfe]);
  });

  test('any displayed name converts back to the same bytes', async () => {
    await assertProperty(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 128 }), (name) => {
        expect(Buffer.compare(groupBytes(groupText(name)), name)).toBe(0);
      }),
    );
  });
});
