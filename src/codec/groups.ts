/** Group names: bytes on the wire, text for people if the bytes are valid UTF-8. */
import { isUtf8 } from 'node:buffer';
import { check, invalid, kind, string, uint8Array, type Kind } from '../arguments';
import { CpgError } from '../errors';
import { replaceUnsafe } from '../text';
import { MAX_GROUP_NAME_BYTES } from './limits';

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** A group name from a user; groupBytes() checks its length. */
export const GROUP: Kind<string | Uint8Array> = kind(
  `the name of a group: 1 to ${MAX_GROUP_NAME_BYTES} bytes, as text or as a Uint8Array`,
  (value) => typeof value === 'string' || uint8Array.accepts(value),
);

/**
 * The bytes of a group name. Throws CS_ERR_INVALID_PARAM if empty, CS_ERR_NAME_TOO_LONG if over 128 bytes; `call` names
 * the caller in the error.
 */
export function groupBytes(group: string | Uint8Array, call = 'groupBytes'): Uint8Array {
  check(call, 'group', group, GROUP);
  const name = typeof group === 'string' ? Buffer.from(group, 'utf8') : Uint8Array.from(group);
  if (name.length === 0) throw invalid(call, 'group', group, GROUP.expected);
  if (name.length > MAX_GROUP_NAME_BYTES) {
    throw new CpgError('CS_ERR_NAME_TOO_LONG', `${call}: a group name of ${name.length} bytes`);
  }
  return name;
}

/** Text when the bytes are valid UTF-8. */
export function utf8(name: Uint8Array): string | undefined {
  // Check first: a decoder that throws takes many times as long.
  return isUtf8(name) ? decoder.decode(name) : undefined;
}

/** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
export function groupText(name: Uint8Array): string | Uint8Array {
  return utf8(check('groupText', 'name', name, uint8Array)) ?? Uint8Array.from(name);
}

// ---- group names as people read and write them -------------------------------------------------------------

/**
 * A group name as one line of visible text, which parseGroup() reads back: \0, \n, \r, \t, \xNN for other invisible
 * bytes, \\ for a backslash; 0x... if the bytes are not UTF-8.
 */
export function groupLabel(group: string | Uint8Array): string {
  check('groupLabel', 'group', group, GROUP);
  const text = typeof group === 'string' ? group : utf8(group);
  if (text === undefined) return `0x${Buffer.from(group).toString('hex')}`;
  return replaceUnsafe(text.replaceAll('\\', '\\\\'), escapeBytes)
    .replaceAll('\ufffd', escapeBytes)
    .replace(/^0x/, '\\x30x');
}

const PIECE = /\\x(?<hex>[0-9a-fA-F]{2})|\\(?<named>[0nrt\\])|(?<plain>[^\\]+)|(?<wrong>\\.?)/gsu;
const NAMED: Readonly<Record<string, string>> = { '0': '\0', n: '\n', r: '\r', t: '\t', '\\': '\\' };

/** The bytes of a group name in the format of groupLabel(). Throws CS_ERR_INVALID_PARAM for any other text. */
export function parseGroup(label: string): Uint8Array {
  check('parseGroup', 'label', label, string);
  if (label.startsWith('0x')) {
    const digits = label.slice(2);
    if (/^(?:[0-9a-fA-F]{2})+$/.test(digits)) return Uint8Array.from(Buffer.from(digits, 'hex'));
    throw notAGroup(
      `'${label}' is not a group name in hex`,
      'give two hex digits a byte; a name that begins with 0x is written \\x30x...',
    );
  }
  const pieces: Buffer[] = [];
  for (const { groups: { hex, named, plain, wrong } = {} } of label.matchAll(PIECE)) {
    if (wrong !== undefined) {
      throw notAGroup(
        `'${wrong}' in the group name '${label}' means nothing`,
        'write \\0, \\n, \\r, \\t, \\xNN for a byte, and \\\\ for a backslash',
      );
    }
    pieces.push(hex === undefined ? Buffer.from(plain ?? NAMED[named!]!) : Buffer.from(hex, 'hex'));
  }
  return Uint8Array.from(Buffer.concat(pieces));
}

/**
 * Whether `wanted` means `group`: equal except for trailing NULs. C programs such as Pacemaker often send the
 * terminator too.
 */
export function meansGroup(wanted: Uint8Array, group: string | Uint8Array): boolean {
  const name = typeof group === 'string' ? Buffer.from(group) : group;
  if (name.length < wanted.length) return false;
  return (
    wanted.every((byte, index) => byte === name[index]) &&
    name.subarray(wanted.length).every((byte) => byte === 0)
  );
}

function escapeBytes(character: string): string {
  return Buffer.from(character).toString('hex').replace(/../g, '\\x$&');
}

function notAGroup(what: string, remedy: string): CpgError {
  return new CpgError('CS_ERR_INVALID_PARAM', what, { reason: 'bad-argument', remedy });
}
