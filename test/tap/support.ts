/** Frames without a daemon: recorded ones, and rings in files that a test writes as libqb would. */
import { closeSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { CHUNK_HEADER_BYTES, chunkWords, Magic, RING_HEADER_BYTES, RingHeader } from '../../src/ring/layout';
import type { RingName, TapConnection } from '../../src/tap/connections';
import type { TapFrame } from '../../src/tap/frames';
import { loadCapture } from '../support/fixtures';

export const CONNECTION: TapConnection = {
  id: 1,
  service: 'cpg',
  clientPid: 4711,
  serverPid: 815,
  clientName: 'client',
  serverName: 'corosync',
};

export function frame(ring: RingName, bytes: Uint8Array, more: Partial<TapFrame> = {}): TapFrame {
  return {
    connection: CONNECTION,
    ring,
    bytes,
    timeNs: 1_700_000_000_000_000_000n,
    old: false,
    consumed: false,
    missed: 0,
    ...more,
  };
}

/** Every recorded frame that went through a ring, a millisecond after the one before. */
export function recordedFrames(name: 'one-node' | 'three-nodes'): TapFrame[] {
  let timeNs = 1_700_000_000_000_000_000n;
  return loadCapture(name).flatMap(({ dir, bytes }) => {
    if (dir === 'handshake-request' || dir === 'handshake-response') return [];
    timeNs += 1_000_000n;
    return [frame(dir, bytes, { timeNs })];
  });
}

/** Writer and reader of a ring, step by step as libqb takes them. */
export class RingWriter {
  readonly #header: number;
  readonly #data: number;
  readonly words: number;
  write = 0;
  read = 0;

  constructor(stem: string, words: number) {
    this.words = words;
    this.#header = openSync(`${stem}-header`, 'w+');
    this.#data = openSync(`${stem}-data`, 'w+');
    ftruncateSync(this.#header, RING_HEADER_BYTES);
    ftruncateSync(this.#data, words * 4);
    this.#putHeader(RingHeader.wordSize, words);
  }

  /** A whole chunk, committed. */
  put(payload: Uint8Array): void {
    this.allocate(payload);
    this.commit(payload.length);
  }

  /** The chunk as it is while its writer is at work. */
  allocate(payload: Uint8Array): void {
    this.#putWord(this.write, 0);
    this.#putWord(this.write + 1, Magic.ALLOCATED);
    this.#putBytes(this.write + 2, payload);
  }

  commit(length: number): void {
    const at = this.write;
    this.publish(length);
    this.#putWord(at + 1, Magic.COMMITTED);
  }

  /** The first half of a commit: the length is there and write_pt has moved, the magic not yet. */
  publish(length: number): void {
    this.#putWord(this.write, length);
    this.write = (this.write + chunkWords(length)) % this.words;
    this.#putHeader(RingHeader.writePointer, this.write);
  }

  /** Consumes the oldest chunk: its length and magic are gone then. */
  take(): void {
    const length = this.#getWord(this.read);
    this.#putWord(this.read, 0);
    this.#putWord(this.read + 1, Magic.CONSUMED);
    this.read = (this.read + chunkWords(length)) % this.words;
    this.#putHeader(RingHeader.readPointer, this.read);
  }

  setPointer(write: number): void {
    this.#putHeader(RingHeader.writePointer, write);
  }

  truncate(bytes: number): void {
    ftruncateSync(this.#data, bytes);
  }

  /** Free words, with the margin libqb keeps. */
  get free(): number {
    const used = (this.write - this.read + this.words) % this.words;
    return this.words - used - 1 - CHUNK_HEADER_BYTES / 4;
  }

  close(): void {
    closeSync(this.#header);
    closeSync(this.#data);
  }

  #putHeader(offset: number, value: number): void {
    writeSync(this.#header, Uint32Array.of(value), 0, 4, offset);
  }

  #putWord(word: number, value: number): void {
    writeSync(this.#data, Uint32Array.of(value), 0, 4, (word % this.words) * 4);
  }

  #getWord(word: number): number {
    const bytes = Buffer.alloc(4);
    readSync(this.#data, bytes, 0, 4, (word % this.words) * 4);
    return bytes.readUInt32LE(0);
  }

  #putBytes(word: number, bytes: Uint8Array): void {
    const position = (word % this.words) * 4;
    const first = Math.min(bytes.length, this.words * 4 - position);
    writeSync(this.#data, bytes, 0, first, position);
    if (first < bytes.length) writeSync(this.#data, bytes, first, bytes.length - first, 0);
  }
}

/** The files of a connection below `root`. */
export function makeConnection(
  root: string,
  { serverPid = 815, clientPid = 4711, suffix = 'AbCdEf', service = 'cpg', words = 4096 } = {},
): { directory: string; rings: Record<RingName, RingWriter> } {
  const directory = join(root, `qb-${serverPid}-${clientPid}-27-${suffix}`);
  mkdirSync(directory);
  const ring = (name: RingName): RingWriter =>
    new RingWriter(join(directory, `qb-${name}-${service}`), words);
  return { directory, rings: { request: ring('request'), response: ring('response'), event: ring('event') } };
}

/** A frame with an IPC header and a number, so that each is told from the others. */
export function numberedFrame(number: number, size: number): Buffer {
  const bytes = Buffer.alloc(Math.max(24, size));
  bytes.writeInt32LE(2, 0);
  bytes.writeInt32LE(bytes.length, 8);
  bytes.writeUInt32LE(number, 16);
  for (let index = 20; index < bytes.length; index++) bytes[index] = (number * 7 + index) & 0xff;
  return bytes;
}
