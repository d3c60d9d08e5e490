/** One ring in a directory of its own, seen from both sides. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openRing } from '../../src/ring/files';
import { mappedStorage } from '../../src/ring/mapped-storage';
import type { Ring } from '../../src/ring/ring';
import { storeInFiles, type OpenStorage, type RingStorage } from '../../src/ring/storage';
import { FakeRing } from '../support/fake-ring';

/** The ways our side reaches its bytes. */
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

  /** What `look` says after each single write of our side while `work` is done. */
  afterEachWrite<T>(work: () => void, look: () => T): T[] {
    const seen: T[] = [];
    this.#onWrite = () => seen.push(look());
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

/** The same storage, which tells when it was written to. */
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

/** Bytes that differ from frame to frame and from place to place. */
export function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let index = 0; index < length; index++) bytes[index] = (seed * 37 + index * 11 + (index >> 8)) & 0xff;
  return bytes;
}

/** The first of `actual` that is not as `expected`, as a text for the test's message; '' when all are. */
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
