/** One ring in its own directory, from both sides. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openRing } from '../../src/ring/files';
import { mappedStorage } from '../../src/ring/mapped-storage';
import type { Ring } from '../../src/ring/ring';
import { storeInFiles, type OpenStorage, type RingStorage } from '../../src/ring/storage';
import { FakeRing } from '../support/fake-ring';

/** The storages of our side. */
export const STORAGES: readonly (readonly [string, OpenStorage])[] = [
  ['through files', storeInFiles],
  ['mapped', mappedStorage()],
];

export class RingPair {
  readonly directory = mkdtempSync(join(tmpdir(), 'ring-'));
  /** The daemon's side. */
  readonly theirs: FakeRing;
  readonly ours: Ring;
  #onWrite: () => void = () => undefined;

  constructor(name: string, words: number, store: OpenStorage = storeInFiles) {
    const stem = join(this.directory, `qb-${name}-cpg`);
    this.theirs = new FakeRing(stem, words);
    this.ours = openRing(stem, process.geteuid?.(), (files) => watched(store(files), () => this.#onWrite()));
  }

  /** Empty, and the next chunk begins at word `at`. */
  reset(at: number): void {
    this.theirs.reset(at);
    this.ours.readPointers();
  }

  /** The results of `observe` after each single write of our side during `work`. */
  afterEachWrite<T>(work: () => void, observe: () => T): T[] {
    const seen: T[] = [];
    this.#onWrite = () => seen.push(observe());
    try {
      work();
    } finally {
      this.#onWrite = () => undefined;
    }
    return seen;
  }

  close(): void {
    this.ours.close();
    this.theirs.close();
    rmSync(this.directory, { recursive: true });
  }
}

/** The same storage, with a callback for each write. */
function watched(storage: RingStorage, onWrite: () => void): RingStorage {
  const telling =
    <Args extends unknown[]>(write: (...args: Args) => void) =>
    (...args: Args): void => {
      write(...args);
      onWrite();
    };
  return {
    readHeader: (...args) => storage.readHeader(...args),
    read: (...args) => storage.read(...args),
    writeHeader: telling((...args: Parameters<RingStorage['writeHeader']>) => storage.writeHeader(...args)),
    write: telling((...args: Parameters<RingStorage['write']>) => storage.write(...args)),
    writeParts: telling((...args: Parameters<RingStorage['writeParts']>) => storage.writeParts(...args)),
    close: () => storage.close(),
  };
}

/** Bytes that differ between frames and positions. */
export function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let index = 0; index < length; index++) bytes[index] = (seed * 37 + index * 11 + (index >> 8)) & 0xff;
  return bytes;
}

/** Describes the first difference from `expected` for the test's message; '' if there is none. */
export function difference(
  actual: readonly (Uint8Array | undefined)[],
  expected: readonly Uint8Array[],
): string {
  if (actual.length !== expected.length) return `${actual.length} frames instead of ${expected.length}`;
  for (let index = 0; index < expected.length; index++) {
    const frame = actual[index];
    if (frame === undefined || Buffer.compare(frame, expected[index]!) !== 0) {
      return `frame ${index} of ${expected[index]!.length} bytes came as ${frame?.length ?? 'nothing'}`;
    }
  }
  return '';
}
