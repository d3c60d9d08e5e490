/**
 * Group names inside the server are text with one character for each byte (latin1), so that they can be
 * compared and used as keys whatever bytes they hold.
 */
export function groupKey(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

export function groupBytesOf(key: string): Buffer {
  return Buffer.from(key, 'latin1');
}
