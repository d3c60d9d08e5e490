/**
 * The field types of the protocol, as buffer-layout tables.
 *
 * corosync declares every member of its messages with 8-byte alignment, so a uint32 takes an 8-byte cell whose other
 * half is padding:
 *
 *     | value (4) | padding (4) |
 *
 * The daemon leaves stack contents in the padding; we write zeros and never read it.
 * A field is a list of layouts (the value, then the unnamed padding), and a message is their concatenation.
 */
import { blob, Layout, s32, struct, u32, type Structure } from 'buffer-layout';
import * as kinds from '../arguments';
import { check, kind, type Kind } from '../arguments';
import { CpgError } from '../errors';
import { MAX_GROUP_NAME_BYTES } from './limits';
import { counted } from '../text';

/** Layouts of buffer-layout. It has no types of its own, and our declarations must not depend on any. */
export type Field = readonly { readonly span: number }[];

const PADDING_BYTES = 4;
/** A length cell, then the bytes. */
export const CPG_NAME_BYTES = 8 + MAX_GROUP_NAME_BYTES;

/** A uint64, as bigint (buffer-layout's own is a lossy number). */
class Uint64 extends Layout<bigint> {
  constructor(property: string) {
    super(8, property);
  }
  override decode(bytes: Uint8Array, offset = 0): bigint {
    return asBuffer(bytes).readBigUInt64LE(offset);
  }
  override encode(value: bigint, bytes: Uint8Array, offset = 0): number {
    return asBuffer(bytes).writeBigUInt64LE(value, offset) - offset;
  }
}

/** `mar_cpg_name_t`: length uint32 @0, value char[128] @8; 136 bytes. Bytes, not text; no terminator. */
class CpgName extends Layout<Uint8Array> {
  constructor(property: string) {
    super(CPG_NAME_BYTES, property);
  }
  override decode(bytes: Uint8Array, offset = 0): Uint8Array {
    const length = asBuffer(bytes).readUInt32LE(offset);
    if (length > MAX_GROUP_NAME_BYTES) {
      throw malformed(`a group name of ${length} bytes`, `at most ${MAX_GROUP_NAME_BYTES}`);
    }
    return bytes.slice(offset + 8, offset + 8 + length);
  }
  override encode(value: Uint8Array, bytes: Uint8Array, offset = 0): number {
    if (value.length > MAX_GROUP_NAME_BYTES) {
      throw new CpgError('CS_ERR_NAME_TOO_LONG', `a group name of ${value.length} bytes`);
    }
    asBuffer(bytes).writeUInt32LE(value.length, offset);
    bytes.set(value, offset + 8);
    return this.span;
  }
}

/** A char array with a NUL-terminated string. */
class CString extends Layout<string> {
  override decode(bytes: Uint8Array, offset = 0): string {
    const field = asBuffer(bytes).subarray(offset, offset + this.span);
    const end = field.indexOf(0);
    if (end === -1) throw malformed(`a string without an end in ${this.span} bytes`, 'a terminating NUL');
    return field.toString('utf8', 0, end);
  }
  override encode(value: string, bytes: Uint8Array, offset = 0): number {
    bytes.set(Buffer.from(value, 'utf8'), offset);
    return this.span;
  }
}

const INT32 = kinds.whole(-(2 ** 31), 2 ** 31 - 1);
const UINT64 = kind<bigint>(
  'a bigint from 0 to 2n ** 64n - 1n',
  (value) => typeof value === 'bigint' && value === BigInt.asUintN(64, value),
);
/** The kinds of field values, checked on encoding: a layout would write NaN, text or undefined as 0. */
const kindOf = new WeakMap<object, Kind<unknown>>();

function holding(layout: Layout, held: Kind<unknown>): Layout {
  kindOf.set(layout, held);
  return layout;
}

export const uint32 = (property: string): Field => [...packedUint32(property), blob(PADDING_BYTES)];
export const int32 = (property: string): Field => [holding(s32(property), INT32), blob(PADDING_BYTES)];
export const uint64 = (property: string): Field => [holding(new Uint64(property), UINT64)];
export const cpgName = (property: string): Field => [holding(new CpgName(property), kinds.uint8Array)];
export const cString = (span: number, property: string): Field => [
  holding(
    new CString(span, property),
    kind(
      `a string of less than ${span} bytes and without NUL`,
      (value) => typeof value === 'string' && Buffer.byteLength(value) < span && !value.includes('\0'),
    ),
  ),
];
/** A field to ignore. */
export const unset = (span: number): Field => [blob(span)];
/** Fields packed without the usual padding. */
export const packedUint32 = (property: string): Field => [holding(u32(property), kinds.uint32)];

/** The position of a field in a message. */
export interface FieldSpan {
  name: string;
  offset: number;
  length: number;
}

/** A fixed-size part of a message: bytes <-> value, with every length checked. */
export class Table<T extends object> {
  readonly #layout: Structure<T>;
  readonly #kinds: readonly (readonly [name: keyof T & string, Kind<unknown>])[];
  /** The size of the part in bytes. */
  readonly size: number;

  constructor(
    readonly name: string,
    ...fields: Field[]
  ) {
    this.#layout = struct<T>(fields.flat() as unknown as Layout[]);
    this.size = this.#layout.span;
    this.#kinds = this.#layout.fields.flatMap((field) => {
      const held = kindOf.get(field);
      return held === undefined ? [] : [[field.property as keyof T & string, held] as const];
    });
  }

  /** Its fields in order, without padding, for displaying bytes. */
  get spans(): FieldSpan[] {
    let offset = 0;
    return this.#layout.fields.flatMap(({ property, span }) => {
      const start = offset;
      offset += span;
      return property === undefined ? [] : [{ name: property, offset: start, length: span }];
    });
  }

  /** The offset of a field: hot paths read and write there without creating objects. */
  offsetOf(property: keyof T & string): number {
    const offset = this.#layout.offsetOf(property);
    if (offset === undefined) throw new Error(`${this.name} has no field ${property}`);
    return offset;
  }

  decode(bytes: Uint8Array, offset = 0): T {
    if (bytes.length - offset < this.size) {
      throw malformed(`${this.name} of ${counted(bytes.length - offset, 'byte')}`, `at least ${this.size}`);
    }
    return this.#layout.decode(asBuffer(bytes), offset);
  }

  /** Decodes a message that consists of this part only. */
  decodeWhole(bytes: Uint8Array): T {
    if (bytes.length !== this.size)
      throw malformed(`${this.name} of ${counted(bytes.length, 'byte')}`, `${this.size}`);
    return this.decode(bytes);
  }

  /** A view of the variable part after this one; the message must state its length correctly. */
  tail(bytes: Uint8Array, length: number): Buffer {
    const present = bytes.length - this.size;
    if (length !== present) {
      throw malformed(`${this.name} that says ${counted(length, 'byte')} and carries ${present}`, 'the same');
    }
    return asBuffer(bytes).subarray(this.size);
  }

  /** Encodes a frame of this part, followed by `body` if given. */
  frame(value: T, body?: Uint8Array): Buffer {
    const bytes = Buffer.alloc(this.size + (body?.length ?? 0));
    this.encode(value, bytes);
    if (body !== undefined) bytes.set(body, this.size);
    return bytes;
  }

  /**
   * Writes `value` into memory whose padding is already zero, and returns the size of the part. Throws
   * CS_ERR_INVALID_PARAM for an invalid field.
   */
  encode(value: T, bytes: Uint8Array, offset = 0): number {
    check(this.name, 'value', value, kinds.plainObject);
    for (const [name, held] of this.#kinds) check(this.name, name, value[name], held);
    this.#layout.encode(value, asBuffer(bytes), offset);
    return this.size;
  }
}

/** The codec's only error for bytes. */
export function malformed(found: string, expected: string): CpgError {
  return new CpgError('CS_ERR_MESSAGE_ERROR', `malformed message: ${found} (expected ${expected})`);
}

/** The same memory as a Buffer, whose number readers are the fastest in Node. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
