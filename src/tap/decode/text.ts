/** Readable text for bytes, times and reasons. */
import { utf8 } from '../../codec/groups';
import { counted, visible } from '../../text';

export { groupLabel } from '../../codec/groups';
export { counted, visible } from '../../text';

/** At most the first `max` bytes, without a part of a letter at the end. */
export function cut(bytes: Uint8Array, max: number): Uint8Array {
  if (bytes.length <= max) return bytes;
  let end = max;
  // A letter has up to four bytes; all but the first begin with the bits 10.
  while (end > max - 3 && (bytes[end]! & 0xc0) === 0x80) end--;
  return (bytes[end]! & 0xc0) === 0x80 ? bytes.subarray(0, max) : bytes.subarray(0, end);
}

/** A message as visible text, or the hex of its beginning. */
export function messageLabel(message: Uint8Array, maxBytes = 64): string {
  const text = utf8(message);
  if (text !== undefined) return visible(text);
  const hex = Buffer.from(message.subarray(0, maxBytes)).toString('hex');
  return `0x${hex}${message.length > maxBytes ? `... (${counted(message.length, 'byte')})` : ''}`;
}

/** cpg_reason_t in words. */
export function reasonLabel(reason: number): string {
  return REASONS[reason] ?? `reason ${reason}`;
}

const REASONS = ['undefined', 'join', 'leave', 'node down', 'node up', 'process down'];

let lastTime: { ns: bigint; label: string } | undefined;

/** Time of day to the microsecond, from nanoseconds since 1970. */
export function timeLabel(timeNs: bigint): string {
  // Messages of one round have the same time, and formatting it costs more than the rest of a line.
  if (lastTime?.ns !== timeNs) lastTime = { ns: timeNs, label: timeOfDay(timeNs) };
  return lastTime.label;
}

function timeOfDay(timeNs: bigint): string {
  const date = new Date(Number(timeNs / 1_000_000n));
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) =>
    String(part).padStart(2, '0'),
  );
  return `${parts.join(':')}.${String((timeNs / 1000n) % 1_000_000n).padStart(6, '0')}`;
}

/** `1.250 ms`. */
export function durationLabel(ns: bigint): string {
  return `${(Number(ns) / 1e6).toFixed(3)} ms`;
}
