/** Group names as people read and write them. */
import fc from 'fast-check';
import { groupLabel, parseGroup } from '../../src/codec';
import { meansGroup } from '../../src/codec/groups';
import { thrownBy } from '../support/errors';
import { assertProperty } from '../support/property';

test.each<[string | number[], string]>([
  ['orders', 'orders'],
  ['grüße 🙂', 'grüße 🙂'],
  ['crmd\0', 'crmd\\0'],
  ['a\x001', 'a\\01'],
  ['a\nb\rc\td', 'a\\nb\\rc\\td'],
  ['\u001b[31m\u007f', '\\x1b[31m\\x7f'],
  ['C:\\0', 'C:\\\\0'],
  // Controls and marks beyond ASCII, byte by byte.
  ['\u009b\u202e\ufeff', '\\xc2\\x9b\\xe2\\x80\\xae\\xef\\xbb\\xbf'],
  ['0x41', '\\x30x41'],
  ['a0x41', 'a0x41'],
  ['0X41', '0X41'],
  [[0xff, 0x00], '0xff00'],
])('%j is printed as %s, and read back', (name, label) => {
  const bytes = Buffer.from(name as string);
  expect(groupLabel(bytes)).toBe(label);
  expect(Buffer.from(parseGroup(label))).toEqual(bytes);
});

test.each([
  ['0x63746C00', 'ctl\0'],
  ['\\x63tl\\x00', 'ctl\0'],
  ['\\xC3\\xbc', 'ü'],
  ['raw\0', 'raw\0'],
  ['', ''],
])('%j can be written as well', (label, name) => {
  expect(Buffer.from(parseGroup(label)).toString()).toBe(name);
});

test.each([
  ['a\\q', /^'\\q' in the group name 'a\\q' means nothing: CS_ERR_INVALID_PARAM \(7\): write \\0/],
  ['a\\', /^'\\' in the group name/],
  ['\\x1', /^'\\x' in the group name/],
  ['\\X41', /^'\\X' in the group name/],
  ['\\🙂', /^'\\🙂' in the group name/u],
  ['0x', /^'0x' is not a group name in hex/],
  ['0x123', /two hex digits a byte; a name that begins with 0x is written \\x30x/],
  ['0xyz', /is not a group name in hex/],
])('%j is refused', (label, message) => {
  const error = thrownBy(() => parseGroup(label));
  expect(error.code).toBe('CS_ERR_INVALID_PARAM');
  expect(error.message).toMatch(message);
});

test('any bytes survive the round trip, and their label is one safe line', () =>
  assertProperty(
    fc.property(
      fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 128 }),
        fc.string({ unit: 'binary', minLength: 1 }).map((text) => Uint8Array.from(Buffer.from(text))),
        fc
          .string({ unit: fc.constantFrom('\\', '0', 'x', 'n', '\0', '4', '\u202e') })
          .map((text) => Buffer.from(text)),
      ),
      (bytes) => {
        const label = groupLabel(bytes);
        expect(label).not.toMatch(/[\p{Cc}\u2028-\u202e]/u);
        expect(Buffer.from(parseGroup(label))).toEqual(Buffer.from(bytes));
      },
    ),
  ));

test('a wanted name also matches with trailing NULs', () => {
  const means = (wanted: string, group: string): boolean => meansGroup(Buffer.from(wanted), group);
  expect(means('crmd', 'crmd')).toBe(true);
  expect(means('crmd', 'crmd\0')).toBe(true);
  expect(means('crmd', 'crmd\0\0')).toBe(true);
  expect(means('crmd\0', 'crmd')).toBe(false);
  expect(means('crmd', 'crmd2')).toBe(false);
  expect(means('crmd', 'crmd\0x')).toBe(false);
});
