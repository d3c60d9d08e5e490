/** Group names: bytes on the wire, text for people where the bytes allow it. */
import { isUtf8 } from 'node:buffer';
import { check, invalid, kind, uint8Array, type Kind } from '../arguments';
import { CpgError } from '../errors';
import { MAX_GROUP_NAME_BYTES } from './limits';

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** A group as a user names it; how long it is, groupBytes() sees. */
export const GROUP: Kind<string | Uint8Array> = kind(
  `the name of a group: 1 to ${MAX_GROUP_NAME_BYTES} bytes, as text or as a Uint8Array`,
  (value) => typeof value === 'string' || uint8Array.accepts(value),
);

/**
 * The bytes of a group name, checked: empty is CS_ERR_INVALID_PARAM, over 128 bytes CS_ERR_NAME_TOO_LONG. `call` is what
 * was called with it.
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
  // Asked first: a decoder that throws takes many times as long.
  return isUtf8(name) ? decoder.decode(name) : undefined;
}

/** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
export function groupText(name: Uint8Array): string | Uint8Array {
  return utf8(check('groupText', 'name', name, uint8Array)) ?? Uint8Array.from(name);
}
