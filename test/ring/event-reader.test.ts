/** The daemon writes events and announces each by a byte; we read no more than was announced. */
import fc from 'fast-check';
import { EventReader } from '../../src/ring/event-reader';
import { thrownBy } from '../support/errors';
import { BEING_WRITTEN } from '../support/fake-ring';
import { assertProperty } from '../support/property';
import { difference, pattern, RingPair, STORAGES } from './ring-fixture';

const WORDS = 40;
const LARGEST = WORDS * 4 - 12;

/** Consumes, and copies the frames, which are only valid during the call. */
function consume(ring: EventReader, limit = Infinity): Buffer[] {
  const frames: Buffer[] = [];
  const count = ring.consume(limit, (frame) => {
    frames.push(Buffer.from(frame));
    return true;
  });
  expect(count).toBe(frames.length);
  ring.reclaim();
  return frames;
}

describe.each(STORAGES)('a small ring, %s', (_storage, store) => {
  let pair: RingPair;

  beforeAll(() => {
    pair = new RingPair('event', WORDS, store);
  });
  afterAll(() => pair.close());

  function put(...frames: Buffer[]): void {
    for (const frame of frames) expect(pair.theirs.put(frame)).toBe(true);
  }

  test('every length at every word', () => {
    for (let at = 0; at < WORDS; at++) {
      for (let length = 0; length <= LARGEST; length++) {
        pair.reset(at);
        const frame = pattern(length, at);
        pair.theirs.put(frame);
        const ring = new EventReader(pair.ours);
        ring.credit(1);
        let result = 'nothing came';
        ring.consume(1, (seen) => {
          result = difference([seen], [frame]);
          return true;
        });
        if (result !== '') throw new Error(`${length} bytes at word ${at}: ${result}`);
        ring.reclaim();
        if (pair.theirs.semaphore !== 0 || pair.theirs.readPointer !== pair.theirs.writePointer) {
          throw new Error(`${length} bytes at word ${at}: not given back`);
        }
      }
    }
  });

  test('batches at every word', () => {
    for (let at = 0; at < WORDS; at++) {
      for (let length = 0; length <= 40; length++) {
        pair.reset(at);
        const frames = [pattern(length, 1), pattern(40 - length, 2), pattern(1, 3), pattern(length % 9, 4)];
        put(...frames);
        const ring = new EventReader(pair.ours);
        ring.credit(frames.length);
        expect(difference(consume(ring), frames)).toBe('');
        expect(ring.available).toBe(0);
      }
    }
  });

  test('a limit below the announced number leaves the rest for later', () => {
    for (let at = 0; at < WORDS; at++) {
      pair.reset(at);
      const frames = [pattern(20, 1), pattern(21, 2), pattern(22, 3)];
      put(...frames);
      const ring = new EventReader(pair.ours);
      ring.credit(3);
      expect(difference(consume(ring, 1), frames.slice(0, 1))).toBe('');
      expect(ring.available).toBe(2);
      expect(difference(consume(ring, 2), frames.slice(1))).toBe('');
      expect(ring.available).toBe(0);
      expect(consume(ring)).toEqual([]);
    }
  });

  test('no more than announced is consumed, whatever is in the ring', () => {
    pair.reset(30);
    const frames = [pattern(20, 1), pattern(21, 2), pattern(22, 3)];
    put(...frames);
    const ring = new EventReader(pair.ours);
    expect(consume(ring)).toEqual([]);
    expect(pair.theirs.readPointer).toBe(30);
    ring.credit(2);
    expect(difference(consume(ring), frames.slice(0, 2))).toBe('');
    expect(consume(ring)).toEqual([]);
    ring.credit(1);
    expect(difference(consume(ring), frames.slice(2))).toBe('');
  });

  test('an event that is added while others are read is not lost', () => {
    pair.reset(36);
    put(pattern(10, 1));
    const ring = new EventReader(pair.ours);
    ring.credit(1);
    const late = pattern(11, 2);
    ring.consume(Infinity, () => {
      put(late);
      return true;
    });
    ring.credit(1);
    expect(difference(consume(ring), [late])).toBe('');
  });

  test('returning false stops after that frame', () => {
    pair.reset(38);
    const frames = [pattern(10, 1), pattern(11, 2), pattern(12, 3)];
    put(...frames);
    const ring = new EventReader(pair.ours);
    ring.credit(3);
    expect(ring.consume(Infinity, () => false)).toBe(1);
    expect(difference(consume(ring), frames.slice(1))).toBe('');
  });

  test('an event is consumed even if its handler throws: the next one follows, none comes twice', () => {
    for (let at = 0; at < WORDS; at++) {
      pair.reset(at);
      const frames = [pattern(10, 1), pattern(11, 2), pattern(12, 3)];
      put(...frames);
      const ring = new EventReader(pair.ours);
      ring.credit(3);
      let seen = 0;
      expect(() =>
        ring.consume(Infinity, () => {
          if (++seen === 2) throw new Error('of the test');
          return true;
        }),
      ).toThrow('of the test');
      expect(ring.available).toBe(1);
      expect(difference(consume(ring), frames.slice(2))).toBe('');
      expect(pair.theirs.readPointer).toBe(pair.theirs.writePointer);
    }
  });

  test('after a handler closes the ring, no handler is called and nothing is written', () => {
    const own = new RingPair('event', WORDS, store);
    try {
      own.theirs.put(pattern(10, 1));
      own.theirs.put(pattern(11, 2));
      const ring = new EventReader(own.ours);
      ring.credit(2);
      const calls = ring.consume(Infinity, () => {
        own.ours.close();
        return true;
      });
      expect(calls).toBe(1);
      // The chunk that was handed out had been given back before, because it is much of so small a ring.
      const [readPointer, semaphore] = [own.theirs.readPointer, own.theirs.semaphore];
      expect([readPointer, semaphore]).toEqual([5, 0]);
      ring.reclaim();
      expect([own.theirs.readPointer, own.theirs.semaphore]).toEqual([readPointer, semaphore]);
    } finally {
      own.close();
    }
  });

  test('handlers may read other rings', () => {
    const other = new RingPair('event', 64, store);
    try {
      pair.reset(39);
      const frames = [pattern(30, 1), pattern(31, 2)];
      put(...frames);
      const inner = [pattern(100, 3), pattern(99, 4)];
      for (const frame of inner) other.theirs.put(frame);
      const ring = new EventReader(pair.ours);
      const nested = new EventReader(other.ours);
      ring.credit(2);
      nested.credit(2);
      const seen: Buffer[] = [];
      const seenInside: Buffer[] = [];
      ring.consume(Infinity, (frame) => {
        seenInside.push(...consume(nested, 1));
        seen.push(Buffer.from(frame));
        return true;
      });
      expect(difference(seen, frames)).toBe('');
      expect(difference(seenInside, inner)).toBe('');
    } finally {
      other.close();
    }
  });

  test('the semaphore is written before the pointer: the daemon never takes an empty ring for full', () => {
    const { theirs } = pair;
    for (const count of [1, 2, 3]) {
      pair.reset(37);
      for (let index = 0; index < count; index++) put(pattern(10, index));
      const ring = new EventReader(pair.ours);
      ring.credit(count);
      const seen = pair.afterEachWrite(
        () => {
          ring.consume(Infinity, () => true);
          ring.reclaim();
        },
        () => (theirs.readPointer === theirs.writePointer && theirs.semaphore > 0 ? 'full' : 'fine'),
      );
      expect(seen.length).toBeGreaterThanOrEqual(2);
      expect(seen).not.toContain('full');
      expect(theirs.semaphore).toBe(0);
      expect(theirs.free).toBe(WORDS * 4);
    }
  });

  test('the semaphore does not grow while events are read in part', () => {
    pair.reset(0);
    const ring = new EventReader(pair.ours);
    let next = 0;
    let read = 0;
    for (let round = 0; round < 200; round++) {
      while (pair.theirs.put(pattern(8, next))) {
        next++;
        ring.credit(1);
      }
      expect(difference(consume(ring, 2), [pattern(8, read), pattern(8, read + 1)])).toBe('');
      read += 2;
      expect(pair.theirs.semaphore).toBe(0);
    }
  });

  test('any mixture of puts, announcements and limits keeps order and content', async () => {
    await assertProperty(
      fc.property(
        fc.nat(WORDS - 1),
        fc.array(fc.tuple(fc.array(fc.nat(50), { maxLength: 4 }), fc.nat(3), fc.nat(4)), { maxLength: 20 }),
        (at, rounds) => {
          pair.reset(at);
          const ring = new EventReader(pair.ours);
          const expected: Buffer[] = [];
          const seen: Buffer[] = [];
          let unannounced = 0;
          for (const [lengths, announce, limit] of rounds) {
            for (const length of lengths) {
              const frame = pattern(length, expected.length);
              if (!pair.theirs.put(frame)) continue;
              expected.push(frame);
              unannounced++;
            }
            const bytes = Math.min(announce, unannounced);
            unannounced -= bytes;
            ring.credit(bytes);
            seen.push(...consume(ring, limit));
          }
          ring.credit(unannounced);
          seen.push(...consume(ring));
          expect(difference(seen, expected)).toBe('');
        },
      ),
      { numRuns: 200 },
    );
  });

  describe('peeking before the bytes come', () => {
    test('finds events, delivers each once, and reclaims no space before its byte', () => {
      for (let at = 0; at < WORDS; at++) {
        pair.reset(at);
        const ring = new EventReader(pair.ours);
        expect(ring.peek()).toBe(false);
        const frames = [pattern(20, 1), pattern(21, 2)];
        put(...frames);
        expect(ring.available).toBe(0);
        expect(ring.peek()).toBe(true);
        expect(ring.available).toBe(2);
        expect(difference(consume(ring), frames)).toBe('');
        expect(ring.peek()).toBe(false);
        expect([pair.theirs.readPointer, pair.theirs.semaphore]).toEqual([at, 2]);
        ring.credit(1);
        ring.reclaim();
        expect(ring.available).toBe(0);
        expect(pair.theirs.readPointer).toBe(at);
        ring.credit(1);
        ring.reclaim();
        expect(ring.available).toBe(0);
        expect(pair.theirs.readPointer).toBe(pair.theirs.writePointer);
        expect(pair.theirs.semaphore).toBe(0);
      }
    });

    test('any mixture of puts, bytes, peeks and reclaims keeps order and content', async () => {
      const action = fc.oneof(
        fc.record({ put: fc.nat(30) }),
        fc.record({ announce: fc.nat(3) }),
        fc.record({ look: fc.nat(4) }),
        fc.constant({ reclaim: true }),
      );
      await assertProperty(
        fc.property(fc.nat(WORDS - 1), fc.array(action, { maxLength: 60 }), (at, actions) => {
          pair.reset(at);
          const ring = new EventReader(pair.ours);
          const expected: Buffer[] = [];
          const seen: Buffer[] = [];
          let unannounced = 0;
          const take = (limit: number): void => {
            ring.consume(limit, (frame) => {
              seen.push(Buffer.from(frame));
              return true;
            });
          };
          for (const step of actions) {
            if ('put' in step) {
              const frame = pattern(step.put, expected.length);
              if (!pair.theirs.put(frame)) continue;
              expected.push(frame);
              unannounced++;
            } else if ('announce' in step) {
              const bytes = Math.min(step.announce, unannounced);
              unannounced -= bytes;
              ring.credit(bytes);
              take(2);
            } else if ('look' in step) {
              if (ring.peek()) take(step.look);
            } else {
              ring.reclaim();
            }
          }
          ring.credit(unannounced);
          take(Infinity);
          expect(difference(seen, expected)).toBe('');
          ring.reclaim();
          expect(pair.theirs.free).toBe(WORDS * 4);
        }),
        { numRuns: 500 },
      );
    });
  });

  describe('an invalid ring is CS_ERR_MESSAGE_ERROR', () => {
    test.each([
      ['an announced event that is not there', (): void => undefined],
      ['bad magic', (): void => pair.theirs.stage(pattern(8, 1), 0x12345678)],
      ['a chunk still being written', (): void => pair.theirs.stage(pattern(8, 1), BEING_WRITTEN)],
      ['a length one beyond what was written', (): void => damagedLength(9)],
      ['an enormous length', (): void => damagedLength(0xffffffff)],
      ['a write pointer outside', (): void => void (pair.theirs.writePointer = WORDS)],
      ['a read pointer outside', (): void => void (pair.theirs.readPointer = 0x80000000)],
      ['half a chunk header', (): void => void (pair.theirs.writePointer = 36)],
    ])('%s', (_, damage) => {
      pair.reset(35);
      damage();
      const ring = new EventReader(pair.ours);
      ring.credit(1);
      let calls = 0;
      const { code } = thrownBy(() =>
        ring.consume(1, () => {
          calls++;
          return true;
        }),
      );
      expect(code).toBe('CS_ERR_MESSAGE_ERROR');
      expect(calls).toBe(0);
    });

    function damagedLength(length: number): void {
      pair.theirs.stage(pattern(8, 1));
      pair.theirs.setWord(35, length);
    }

    test('valid events before an invalid one are delivered', () => {
      pair.reset(35);
      const good = pattern(8, 1);
      put(good);
      pair.theirs.stage(pattern(8, 2), 0);
      const ring = new EventReader(pair.ours);
      ring.credit(2);
      const seen: Buffer[] = [];
      const { code } = thrownBy(() =>
        ring.consume(2, (frame) => {
          seen.push(Buffer.from(frame));
          return true;
        }),
      );
      expect(code).toBe('CS_ERR_MESSAGE_ERROR');
      expect(difference(seen, [good])).toBe('');
    });
  });
});

// In a mapping the process would end with SIGBUS.
test.each(['header', 'data'] as const)('a %s file cut short is CS_ERR_MESSAGE_ERROR', (what) => {
  const cut = new RingPair('event', WORDS);
  try {
    cut.theirs.put(pattern(60, 1));
    cut.theirs.truncate(what, what === 'header' ? 4 : 20);
    const ring = new EventReader(cut.ours);
    ring.credit(1);
    expect(thrownBy(() => ring.consume(1, () => true)).code).toBe('CS_ERR_MESSAGE_ERROR');
  } finally {
    cut.close();
  }
});

describe.each(STORAGES)('a large ring, which is read in windows, %s', (_storage, store) => {
  // At first 512 bytes are read for each event that is wanted, later what they took; never more than 128 KiB.
  const LARGE_WORDS = 60_000;
  let pair: RingPair;

  beforeAll(() => {
    pair = new RingPair('event', LARGE_WORDS, store);
  });
  afterAll(() => pair.close());

  test.each([
    ['one long event', [70_000]],
    ['one that no window holds', [150_000]],
    ['a short one before a long one', [10, 60_000, 10, 60_000]],
    ['a short one before one that no window holds', [10, 150_000, 10, 20]],
    ['one that no window holds before a long one', [150_000, 60_000, 10]],
    ['long ones only', [20_000, 25_000, 30_000, 30_000, 30_000, 30_000, 30_000]],
    ['ones of middle size', Array.from({ length: 25 }, (_, index) => 4000 + 250 * index)],
    ['one that ends where the window ends', [4096 - 8]],
    ['one that ends a word behind the window', [4096 - 4]],
    ['a header that is cut by the window', [8192 - 8 - 4 - 8, 100, 1, 2]],
  ])('%s, wherever it begins', (_, lengths) => {
    const frames = lengths.map((length, index) => pattern(length, index));
    const starts = [
      0,
      1,
      2,
      1000,
      30_000,
      59_000,
      ...Array.from({ length: 12 }, (__, i) => LARGE_WORDS - 12 + i),
    ];
    for (const at of starts) {
      pair.reset(at);
      for (const frame of frames) expect(pair.theirs.put(frame)).toBe(true);
      const ring = new EventReader(pair.ours);
      ring.credit(frames.length);
      expect(difference(consume(ring), frames)).toBe('');
      expect(pair.theirs.semaphore).toBe(0);
    }
  });

  test('every distance of a chunk from the end of its window', () => {
    // With two events wanted the window has 8192 bytes; the first event moves the second one across its end.
    for (let length = 8192 - 8 - 40; length <= 8192 + 8; length++) {
      pair.reset(17);
      const frames = [pattern(length, 1), pattern(29, 2)];
      for (const frame of frames) pair.theirs.put(frame);
      const ring = new EventReader(pair.ours);
      ring.credit(2);
      expect(difference(consume(ring), frames)).toBe('');
    }
  });

  test('a window that stops early does not lose its position', () => {
    pair.reset(LARGE_WORDS - 5);
    const frames = Array.from({ length: 50 }, (_, index) => pattern(index * 25, index));
    for (const frame of frames) pair.theirs.put(frame);
    const ring = new EventReader(pair.ours);
    ring.credit(frames.length);
    const seen: Buffer[] = [];
    while (ring.available > 0) seen.push(...consume(ring, 3));
    expect(difference(seen, frames)).toBe('');
  });

  test('frames stay unchanged, and few of them share memory', () => {
    const LENGTH = 5000;
    pair.reset(LARGE_WORDS - 10);
    const ring = new EventReader(pair.ours);
    const frames = Array.from({ length: 20 }, (_, index) => pattern(LENGTH, index));
    const kept: Buffer[] = [];
    for (let round = 0; round < 3; round++) {
      for (const frame of frames) expect(pair.theirs.put(frame)).toBe(true);
      ring.credit(frames.length);
      ring.consume(Infinity, (frame) => {
        kept.push(frame);
        return true;
      });
      ring.reclaim();
    }
    expect(difference(kept, [...frames, ...frames, ...frames])).toBe('');
    for (const { buffer } of kept) expect(buffer.byteLength).toBeLessThanOrEqual(32 * 1024);
  });

  test('a short frame never keeps the memory of long ones', () => {
    pair.reset(0);
    const ring = new EventReader(pair.ours);
    const kept: Buffer[] = [];
    for (let round = 0; round < 2; round++) {
      for (const length of [70_000, 100, 70_000, 100]) pair.theirs.put(pattern(length, 1));
      ring.credit(4);
      ring.consume(Infinity, (frame) => {
        if (frame.length === 100) kept.push(frame);
        return true;
      });
      ring.reclaim();
    }
    expect(kept).toHaveLength(4);
    for (const { buffer } of kept) expect(buffer.byteLength).toBeLessThan(72_000);
  });

  test('a transfer cannot detach frames that share memory', () => {
    pair.reset(0);
    const ring = new EventReader(pair.ours);
    const frames = [pattern(5000, 1), pattern(5000, 2), pattern(5000, 3)];
    const kept: Buffer[] = [];
    for (let round = 0; round < 2; round++) {
      for (const frame of frames) pair.theirs.put(frame);
      ring.credit(frames.length);
      ring.consume(Infinity, (frame) => kept.push(frame) > 0);
      ring.reclaim();
    }
    for (const { buffer } of kept) {
      try {
        structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
      } catch {
        // Refused, or copied: that depends on the Node.
      }
    }
    expect(difference(kept, [...frames, ...frames])).toBe('');
  });

  test('a borrowed frame is detached afterwards', () => {
    const lengths = [10, 17_000, 20, 140_000, 30];
    pair.reset(LARGE_WORDS - 10);
    const frames = lengths.map((length, index) => pattern(length, index));
    for (const frame of frames) expect(pair.theirs.put(frame)).toBe(true);
    const ring = new EventReader(pair.ours, { lend: true });
    for (let round = 0; round < 3; round++) {
      const kept: Buffer[] = [];
      const copies: Buffer[] = [];
      ring.credit(frames.length);
      ring.consume(Infinity, (frame) => {
        kept.push(frame);
        copies.push(Buffer.from(frame));
        return true;
      });
      expect(difference(copies, frames)).toBe('');
      expect(kept.map(({ length }) => length)).toEqual(lengths.map(() => 0));
      ring.reclaim();
      for (const frame of frames) expect(pair.theirs.put(frame)).toBe(true);
    }
  });
});
