/** Following a ring: nothing missed, nothing invented, and what is lost is known. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chunkWords } from '../../src/ring/layout';
import { RingFollower, type RingSnapshot } from '../../src/tap/live/ring-follower';
import { numberedFrame, RingWriter } from './support';

const WORDS = 4096;

describe('a follower', () => {
  let directory: string;
  let ring: RingWriter;
  let follower: RingFollower;
  let nowMs = 0;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'cpg-tap-'));
    ring = new RingWriter(join(directory, 'qb-event-cpg'), WORDS);
    nowMs = 0;
  });
  afterEach(() => {
    follower.close();
    ring.close();
    rmSync(directory, { recursive: true });
  });

  const open = (): void => {
    follower = RingFollower.open(join(directory, 'qb-event-cpg'));
  };
  /** Copies of the frames, and what was missed before them. */
  const seen = (look: RingSnapshot): { frames: Buffer[]; missed: number } => ({
    frames: Array.from({ length: look.chunks.length }, (_, index) => Buffer.from(look.chunks.frame(index))),
    missed: look.missed,
  });
  const look = (afterMs = 1, newest = 1): ReturnType<typeof seen> => {
    follower.sample((nowMs += afterMs));
    return seen(follower.read(newest));
  };
  const numbers = (frames: readonly Buffer[]): number[] => frames.map((bytes) => bytes.readUInt32LE(16));

  test('sees each chunk once and in order, whatever its size, round after round', () => {
    open();
    follower.begin(0);
    const sent: Buffer[] = [];
    const got: Buffer[] = [];
    let seed = 12345;
    const random = (below: number): number => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % below;
    while (sent.length < 5000) {
      for (let burst = random(6); burst > 0; burst--) {
        const next = numberedFrame(sent.length, 24 + random(700));
        if (ring.free < next.length / 4 + 4) break;
        ring.put(next);
        sent.push(next);
      }
      const before = random(2) === 0;
      const drain = (): void => {
        while (ring.read !== ring.write && random(5) > 0) ring.take();
      };
      // The reader may be there before us: then the chunks are consumed when we see them.
      if (before) drain();
      const { frames, missed } = look();
      expect(missed).toBe(0);
      got.push(...frames);
      if (!before) drain();
    }
    got.push(...look().frames);
    expect(numbers(got)).toEqual(numbers(sent));
    expect(Buffer.concat(got).equals(Buffer.concat(sent))).toBe(true);
  });

  test('recovers older frames in the ring, consumed or not', () => {
    for (let number = 0; number < 10; number++) ring.put(numberedFrame(number, 100));
    for (let count = 0; count < 6; count++) ring.take();
    open();
    const before = follower.begin(0);
    expect(numbers(seen(before).frames)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(numbers(seen(before).frames).map((_, index) => before.chunks.isConsumed(index))).toEqual([
      ...Array<boolean>(6).fill(true),
      ...Array<boolean>(4).fill(false),
    ]);
    ring.put(numberedFrame(10, 100));
    expect(numbers(look().frames)).toEqual([10]);
  });

  test('recovers a whole ring that has gone round many times', () => {
    for (let number = 0; number < 3000; number++) {
      ring.put(numberedFrame(number, 60 + (number % 50)));
      ring.take();
    }
    open();
    const found = numbers(seen(follower.begin(0)).frames);
    // All but the one that is overwritten in part.
    expect(found.length).toBeGreaterThan(160);
    expect(found).toEqual(Array.from({ length: found.length }, (_, index) => 3000 - found.length + index));
  });

  test('waits for a chunk that is not committed yet', () => {
    open();
    follower.begin(0);
    const first = numberedFrame(1, 80);
    ring.allocate(first);
    expect(look().frames).toEqual([]);
    const at = ring.write;
    ring.publish(first.length);
    expect(look().frames).toEqual([]);
    ring.write = at;
    ring.commit(first.length);
    expect(numbers(look().frames)).toEqual([1]);
  });

  test('detects a lap, takes the remaining frames and counts the missed ones', () => {
    open();
    follower.begin(0);
    for (let number = 0; number < 20; number++) {
      ring.put(numberedFrame(number, 100));
      ring.take();
    }
    expect(numbers(look().frames)).toHaveLength(20);
    for (let number = 20; number < 270; number++) {
      ring.put(numberedFrame(number, 100));
      ring.take();
    }
    const { frames, missed } = look();
    const found = numbers(frames);
    expect(found.at(-1)).toBe(269);
    expect(found).toEqual(Array.from({ length: found.length }, (_, index) => 270 - found.length + index));
    const lost = 250 - found.length;
    expect(missed).toBeGreaterThan(0);
    expect(Math.abs(missed - lost)).toBeLessThanOrEqual(2);
    // And goes on as if nothing had been.
    ring.put(numberedFrame(270, 100));
    expect(look()).toMatchObject({ missed: 0 });
  });

  test('a ring that is filled to the last word in one go is no lap', () => {
    open();
    follower.begin(0);
    let number = 0;
    const got: number[] = [];
    for (let round = 0; round < 200; round++) {
      const size = 24 + ((round * 37) % 400);
      while (ring.free >= numberedFrame(0, size).length / 4 + 2) ring.put(numberedFrame(number++, size));
      const { frames, missed } = look();
      expect(missed).toBe(0);
      got.push(...numbers(frames));
      while (ring.read !== ring.write) ring.take();
    }
    expect(got).toEqual(Array.from({ length: number }, (_, index) => index));
  });

  test('the time since the last look tells how often the writer went round', () => {
    open();
    follower.begin(0);
    let number = 0;
    const send = (count: number): void => {
      for (let index = 0; index < count; index++) {
        ring.put(numberedFrame(number++, 100));
        ring.take();
      }
    };
    for (let round = 0; round < 30; round++) {
      send(20);
      look();
    }
    send(2000);
    const { frames, missed } = look(100);
    expect(frames.length + missed).toBeGreaterThan(1700);
    expect(frames.length + missed).toBeLessThan(2300);
  });

  test('samples between reads make the count exact, even for laps that leave the ring unchanged', () => {
    open();
    follower.begin(0);
    const same = numberedFrame(1, 120);
    const send = (count: number): void => {
      for (let index = 0; index < count; index++) {
        ring.put(same);
        ring.take();
      }
    };
    const perRound = WORDS / chunkWords(same.length);
    expect(Number.isInteger(perRound)).toBe(true);
    send(perRound / 2);
    look(5);
    for (let index = 0; index < 6; index++) {
      send(perRound / 2);
      follower.sample((nowMs += 5));
    }
    const { frames, missed } = look(5);
    expect(frames.length + missed).toBe(3 * perRound);
  });

  test('frames overwritten in a new ring before it was opened count as missed', () => {
    for (let number = 0; number < 300; number++) {
      ring.put(numberedFrame(number, 120));
      ring.take();
    }
    open();
    const { frames, missed } = seen(follower.begin(0));
    expect(numbers(frames).at(-1)).toBe(299);
    // At least: nobody knows how many rounds it was before.
    expect(missed).toBeGreaterThan(0);
    expect(frames.length + missed).toBeLessThanOrEqual(301);
  });

  test.each([
    ['that is overtaken again and again', 300],
    ['that is not overtaken', 100],
  ])('of a ring %s only the newest part is taken when no more is wanted', (_, count) => {
    open();
    follower.begin(0);
    // How long they are has to be known, to say how many were missed.
    ring.put(numberedFrame(0, 120));
    expect(look(1)).toMatchObject({ missed: 0, frames: { length: 1 } });
    for (let number = 1; number <= count; number++) {
      ring.put(numberedFrame(number, 120));
      ring.take();
      follower.sample((nowMs += 0.1));
    }
    const { frames, missed } = look(1, 1 / 4);
    expect(numbers(frames).at(-1)).toBe(count);
    expect(frames.length).toBeLessThan(WORDS / 4 / 30);
    expect(frames.length + missed).toBe(count);
    ring.put(numberedFrame(1000, 120));
    expect(numbers(look(1).frames)).toEqual([1000]);
  });

  test('the guard distinguishes a repeated message from a lap', () => {
    open();
    follower.begin(0);
    const same = numberedFrame(1, 120);
    let count = 0;
    for (let index = 0; index < 1000; index++) {
      ring.put(same);
      ring.take();
      const { frames, missed } = look();
      expect(missed).toBe(0);
      count += frames.length;
    }
    expect(count).toBe(1000);
  });

  test.each([
    ['pointers outside', () => ring.setPointer(WORDS + 5)],
    [
      'a file that was cut',
      () => {
        ring.truncate(100);
        ring.setPointer(2000);
      },
    ],
  ])('%s are an error', (_, damage) => {
    open();
    follower.begin(0);
    damage();
    expect(() => look()).toThrow(/malformed/);
  });

  test('bytes that are no chunks are given up and counted, and the follower goes on', () => {
    open();
    follower.begin(0);
    ring.setPointer(300);
    let missed = 0;
    for (let count = 0; count < 6; count++) missed += look().missed;
    ring.write = 300;
    ring.put(numberedFrame(7, 50));
    const last = look();
    expect(numbers(last.frames)).toEqual([7]);
    expect(missed + last.missed).toBeGreaterThan(0);
  });
});
