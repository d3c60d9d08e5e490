/** Values as JSON: UTF-8 bytes as text, others as base64; 64-bit numbers exactly. */
import { utf8 } from '../../codec/groups';
import { visibleJson } from '../../text';

/** One JSON object on one line, safe for a terminal. */
export function jsonLine(value: object): string {
  const json = JSON.stringify(value, (_, field: unknown) =>
    typeof field === 'bigint' ? jsonBigint(field) : field,
  );
  return visibleJson(json);
}

/** `{ group }` or `{ groupBase64 }`. */
export function jsonGroup(group: string | Uint8Array): { group: string } | { groupBase64: string } {
  return typeof group === 'string' ? { group } : { groupBase64: Buffer.from(group).toString('base64') };
}

/** `{ message }` or `{ messageBase64 }`. */
export function jsonMessage(bytes: Uint8Array): { message: string } | { messageBase64: string } {
  const message = utf8(bytes);
  return message === undefined ? { messageBase64: Buffer.from(bytes).toString('base64') } : { message };
}

/** A number if JSON readers can represent it exactly, else its decimal digits as text. */
function jsonBigint(value: bigint): number | string {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString();
}
