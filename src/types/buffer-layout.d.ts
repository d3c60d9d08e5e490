/** The part of buffer-layout (which ships no types) that the codec uses. */
declare module 'buffer-layout' {
  export class Layout<T = unknown> {
    constructor(span: number, property?: string);
    readonly span: number;
    readonly property: string | undefined;
    decode(bytes: Uint8Array, offset?: number): T;
    encode(value: T, bytes: Uint8Array, offset?: number): number;
    getSpan(bytes?: Uint8Array, offset?: number): number;
  }
  export class Structure<T = unknown> extends Layout<T> {
    readonly fields: readonly Layout[];
    offsetOf(property: string): number | undefined;
  }
  export function struct<T>(fields: readonly Layout[], property?: string): Structure<T>;
  export function u32(property?: string): Layout<number>;
  export function s32(property?: string): Layout<number>;
  export function blob(length: number, property?: string): Layout<Uint8Array>;
}
