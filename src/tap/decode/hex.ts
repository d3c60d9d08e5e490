/** A frame as hex, one line per field with its offset and name. */
import { check } from '../../arguments';
import type { FieldSpan } from '../../codec/fields';
import { EVENT_SPANS } from '../../codec/events';
import { REQUEST_SPANS } from '../../codec/requests';
import { RESPONSE_SPANS } from '../../codec/responses';
import type { TapFrame } from '../frames';
import { counted } from '../../text';
import { MESSAGE, payloadOf, type TapMessage } from './messages';

const BYTES_A_LINE = 16;
/** Maximum number of lines per field. */
const MAX_LINES = 16;
const REQUEST_HEADER: FieldSpan[] = [
  { name: 'id', offset: 0, length: 4 },
  { name: 'size', offset: 8, length: 4 },
];
const RESPONSE_HEADER: FieldSpan[] = [...REQUEST_HEADER, { name: 'error', offset: 16, length: 4 }];
const ADDRESS_BYTES = 24;

/** A frame's bytes in hex, one or more lines per field. Throws CS_ERR_INVALID_PARAM. */
export function hexLines(message: TapMessage): string[] {
  const { bytes } = check('hexLines', 'message', message, MESSAGE).frame;
  const lines: string[] = [];
  let at = 0;
  for (const { name, offset, length } of [
    ...spansOf(message),
    { name: '', offset: bytes.length, length: 0 },
  ]) {
    if (offset > bytes.length) break;
    // Bytes outside all fields are padding, which the daemon leaves unset.
    if (offset > at) lines.push(...dump(bytes, at, offset, '-'));
    at = Math.min(offset + length, bytes.length);
    if (at > offset) lines.push(...dump(bytes, offset, at, name));
  }
  return lines;
}

function spansOf(message: TapMessage): FieldSpan[] {
  const { frame, content, id } = message;
  const spans = fixedSpans(frame, id);
  const end = spans.reduce((last, { offset, length }) => Math.max(last, offset + length), 0);
  const payload = payloadOf(content);
  if (payload !== undefined) {
    const name = content !== undefined && 'fragment' in content ? 'fragment' : 'message';
    return [...spans, { name, offset: frame.bytes.length - payload.length, length: payload.length }];
  }
  if (content?.type === 'totemConfchg') {
    return [
      ...spans,
      ...content.members.map((_, index) => ({ name: 'node', offset: end + 4 * index, length: 4 })),
    ];
  }
  if (content?.type === 'confchg') {
    const { members, left, joined } = content;
    const names = [...members.map(() => 'member'), ...left.map(() => 'left'), ...joined.map(() => 'joined')];
    return [...spans, ...addressSpans(names, end)];
  }
  if (content !== undefined && 'members' in content)
    return [
      ...spans,
      ...addressSpans(
        content.members.map(() => 'member'),
        end,
      ),
    ];
  return spans;
}

function fixedSpans({ connection, ring }: TapFrame, id: number): FieldSpan[] {
  const header = ring === 'request' ? REQUEST_HEADER : RESPONSE_HEADER;
  if (connection.service !== 'cpg') return header;
  const tables = { request: REQUEST_SPANS, response: RESPONSE_SPANS, event: EVENT_SPANS };
  return tables[ring][id]?.() ?? header;
}

/** Each address in cells of 8 bytes; the last field before it ends in the middle of its cell. */
function addressSpans(names: readonly string[], end: number): FieldSpan[] {
  const start = Math.ceil(end / 8) * 8;
  return names.flatMap((name, index) =>
    ['nodeid', 'pid', 'reason'].map((field, cell) => {
      return { name: `${name} ${field}`, offset: start + index * ADDRESS_BYTES + cell * 8, length: 4 };
    }),
  );
}

function dump(bytes: Uint8Array, from: number, to: number, name: string): string[] {
  const lines: string[] = [];
  for (let at = from; at < to; at += BYTES_A_LINE) {
    if (lines.length === MAX_LINES) {
      lines.push(`    ${' '.repeat(6)}  ... ${counted(to - at, 'more byte')}`);
      break;
    }
    const part = bytes.subarray(at, Math.min(at + BYTES_A_LINE, to));
    const hex = Array.from(part, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = Array.from(part, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
    ).join('');
    const label = at === from ? name : '';
    lines.push(
      `    ${String(at).padStart(6)}  ${hex.padEnd(BYTES_A_LINE * 3 - 1)}  ${text.padEnd(BYTES_A_LINE)}  ${label}`.trimEnd(),
    );
  }
  return lines;
}
