/** One ring in a directory of its own, seen from both sides. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ring } from '../../src/transport/ring';
import { FakeRing } from '../support/fake-ring';

export class RingPair {
  readonly directory = mkdtempSync(join(tmpdir(), 'ring-'));
  /** The daemon's side. */
  readonly theirs: FakeRing;
  readonly ours: Ring;

  constructor(name: string, words: number) {
    const stem = join(this.directory, `qb-${name}-cpg`);
    this.theirs = new FakeRing(stem, words);
    this.ours = Ring.open(stem, process.geteuid?.());
  }

  /** Empty, and the next chunk begins at word `at`. */
  reset(at: number): void {
    this.theirs.reset(at);
    this.ours.readPointers();
  }

  close(): void {
    this.ours.close();
    this.theirs.close();
    rmSync(this.directory, { recursive: true });
  }
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
