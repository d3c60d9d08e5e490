/**
 * Group names inside the server are text with one character per byte (latin1), so that any bytes can be compared and
 * used as keys.
 */
export function groupKey(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

export function groupBytesOf(key: string): Buffer {
  return Buffer.from(key, 'latin1');
}
