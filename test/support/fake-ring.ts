/**
 * The daemon's side of a libqb ring, for tests. Written from docs/protocol.md with numbers of its own and
 * without a look at src/transport: a mistake made on both sides would not be found.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';

const HEADER_SIZE = 8252;
const AT_WRITE = 0;
const AT_READ = 4;
const AT_WORDS = 8;
const AT_HEADER_PATH = 12;
const AT_DATA_PATH = 4108;
const AT_REFERENCES = 8204;
const AT_SEMAPHORE = 8208;
const AT_FLOW_CONTROL = 8240;

export const COMMITTED = 0xa1a1a1a1;
export const BEING_WRITTEN = 0xa110ced0;
export const CONSUMED = 0xd0d0d0d0;

export class FakeRing {
  readonly stem: string;
  readonly words: number;
  readonly #header: number;
  readonly #data: number;

  /** Makes both files; pointers start at word `at`. */
  constructor(stem: string, words: number, at = 0) {
    this.stem = stem;
    this.words = words;
    this.#header = openSync(`${stem}-header`, 'wx+', 0o600);
    this.#data = openSync(`${stem}-data`, 'wx+', 0o600);
    ftruncateSync(this.#header, HEADER_SIZE);
    ftruncateSync(this.#data, words * 4);
    this.#put(AT_WORDS, words);
    writeSync(this.#header, `${stem}-header`, AT_HEADER_PATH);
    writeSync(this.#header, `${stem}-data`, AT_DATA_PATH);
    this.#put(AT_REFERENCES, 1);
    this.reset(at);
  }

  /** An empty ring whose next chunk begins at word `at`; what was in it is overwritten with rubbish. */
  reset(at: number): void {
    const rubbish = Buffer.alloc(this.words * 4, 0xb7);
    writeSync(this.#data, rubbish, 0, rubbish.length, 0);
    this.writePointer = at;
    this.readPointer = at;
    this.semaphore = 0;
  }

  get writePointer(): number {
    return this.#get(AT_WRITE);
  }
  set writePointer(value: number) {
    this.#put(AT_WRITE, value);
  }
  get readPointer(): number {
    return this.#get(AT_READ);
  }
  set readPointer(value: number) {
    this.#put(AT_READ, value);
  }
  get semaphore(): number {
    return this.#get(AT_SEMAPHORE);
  }
  set semaphore(value: number) {
    this.#put(AT_SEMAPHORE, value);
  }
  get flowControl(): number {
    return this.#get(AT_FLOW_CONTROL);
  }
  set flowControl(value: number) {
    this.#put(AT_FLOW_CONTROL, value);
  }
  get references(): number {
    return this.#get(AT_REFERENCES);
  }
  set references(value: number) {
    this.#put(AT_REFERENCES, value);
  }
  set wordSize(value: number) {
    this.#put(AT_WORDS, value);
  }

  /** The rule of libqb, in bytes. */
  get free(): number {
    const { writePointer: write, readPointer: read, words } = this;
    if (write > read) return (read - write + words - 1) * 4;
    if (write < read) return (read - write - 1) * 4;
    return this.semaphore === 0 ? words * 4 : 0;
  }

  /** Takes a chunk as a daemon does; undefined when the semaphore says that there is none. */
  take(): Buffer | undefined {
    const count = this.semaphore;
    if (count === 0) return undefined;
    this.semaphore = count - 1;
    const at = this.readPointer;
    const magic = this.word(at + 1);
    if (magic !== COMMITTED) throw new Error(`chunk at ${at} has the magic 0x${magic.toString(16)}`);
    const length = this.word(at);
    const payload = this.#read(at + 2, length);
    this.setWord(at, 0);
    this.setWord(at + 1, CONSUMED);
    this.readPointer = (at + 2 + Math.ceil(length / 4)) % this.words;
    return payload;
  }

  /** Writes a chunk as a daemon does; false when there is no room. */
  put(payload: Uint8Array): boolean {
    if (this.free < payload.length + 12) return false;
    this.stage(payload);
    this.semaphore = this.semaphore + 1;
    return true;
  }

  /** put() without its last step. */
  stage(payload: Uint8Array, magic = COMMITTED): void {
    const at = this.writePointer;
    this.setWord(at, 0);
    this.setWord(at + 1, BEING_WRITTEN);
    this.#write(at + 2, payload);
    this.setWord(at, payload.length);
    this.writePointer = (at + 2 + Math.ceil(payload.length / 4)) % this.words;
    this.setWord(at + 1, magic);
  }

  word(index: number): number {
    return this.#read(index, 4).readUInt32LE(0);
  }

  setWord(index: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value, 0);
    this.#write(index, bytes);
  }

  /** All of the circle, as it is. */
  contents(): Buffer {
    return this.#read(0, this.words * 4);
  }

  truncate(what: 'header' | 'data', size: number): void {
    ftruncateSync(what === 'header' ? this.#header : this.#data, size);
  }

  close(): void {
    closeSync(this.#header);
    closeSync(this.#data);
  }

  #read(word: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    const start = (word % this.words) * 4;
    const first = Math.min(length, this.words * 4 - start);
    readSync(this.#data, bytes, 0, first, start);
    if (first < length) readSync(this.#data, bytes, first, length - first, 0);
    return bytes;
  }

  #write(word: number, bytes: Uint8Array): void {
    const start = (word % this.words) * 4;
    const first = Math.min(bytes.length, this.words * 4 - start);
    if (first > 0) writeSync(this.#data, bytes, 0, first, start);
    if (first < bytes.length) writeSync(this.#data, bytes, first, bytes.length - first, 0);
  }

  #get(offset: number): number {
    const bytes = Buffer.alloc(4);
    readSync(this.#header, bytes, 0, 4, offset);
    return bytes.readUInt32LE(0);
  }

  #put(offset: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value, 0);
    writeSync(this.#header, bytes, 0, 4, offset);
  }
}
