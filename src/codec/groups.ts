/** Group names: bytes on the wire, text for people where the bytes allow it. */
import { isUtf8 } from 'node:buffer';
import { CpgError } from '../errors';
import { MAX_GROUP_NAME_BYTES } from './limits';

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The bytes of a group name, checked: empty is CS_ERR_INVALID_PARAM, over 128 bytes CS_ERR_NAME_TOO_LONG. */
export function groupBytes(group: string | Uint8Array): Uint8Array {
  if (typeof group !== 'string' && !((group as unknown) instanceof Uint8Array)) {
    throw new CpgError('CS_ERR_INVALID_PARAM', 'a group name that is neither text nor bytes');
  }
  const bytes = typeof group === 'string' ? Buffer.from(group, 'utf8') : Uint8Array.from(group);
  if (bytes.length === 0) {
    throw new CpgError('CS_ERR_INVALID_PARAM', 'an empty group name', {
      remedy: 'name a group of 1 to 128 bytes',
    });
  }
  if (bytes.length > MAX_GROUP_NAME_BYTES) {
    throw new CpgError('CS_ERR_NAME_TOO_LONG', `a group name of ${bytes.length} bytes`);
  }
  return bytes;
}

/** Text when the bytes are valid UTF-8. */
export function utf8(bytes: Uint8Array): string | undefined {
  // Asked first: a decoder that throws takes many times as long.
  return isUtf8(bytes) ? decoder.decode(bytes) : undefined;
}

/** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
export function groupText(bytes: Uint8Array): string | Uint8Array {
  return utf8(bytes) ?? Uint8Array.from(bytes);
}
