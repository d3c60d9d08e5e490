/** We write, the daemon reads: every way to stage a frame, at every position of the ring. */
import fc from 'fast-check';
import { RequestWriter } from '../../src/ring/request-writer';
import { assertProperty } from '../support/property';
import { COMMITTED } from '../support/fake-ring';
import { difference, pattern, RingPair, STORAGES } from './ring-fixture';

const EMPTY = Buffer.alloc(0);
/** The length and the magic before each frame. */
const HEADROOM = 8;

type Stage = (ring: RequestWriter, frame: Buffer) => boolean;

/** From a head and parts, as messages are. */
const inParts: Stage = (ring, frame) => {
  const head = Math.min(frame.length, 7);
  const middle = head + Math.floor((frame.length - head) / 2);
  const parts = [frame.subarray(head, middle), new Uint8Array(0), frame.subarray(middle)];
  return ring.stage(frame.subarray(0, head), parts, frame.length);
};

const whole: Stage = (ring, frame) => ring.stage(frame, [], frame.length);

const prepared: Stage = (ring, frame) => {
  const memory = Buffer.alloc(HEADROOM + Math.ceil(frame.length / 4) * 4, 0xcc);
  frame.copy(memory, HEADROOM);
  return ring.stagePrepared(memory, frame.length);
};

/** Stages, posts, and lets the daemon consume everything. */
function transfer(pair: RingPair, ring: RequestWriter, frames: readonly Buffer[], stage: Stage): string {
  const { theirs } = pair;
  const { writePointer } = theirs;
  for (const frame of frames) if (!stage(ring, frame)) return `no room for ${frame.length} bytes`;
  if (theirs.semaphore !== 0 || theirs.writePointer !== writePointer) return 'visible before post()';
  if (ring.stagedChunks !== frames.length) return `${ring.stagedChunks} staged`;
  if (ring.submitState() !== 'ready') return 'not ready';
  if (ring.post() !== frames.length) return 'post() counts otherwise';
  if (theirs.semaphore !== frames.length) return `semaphore ${theirs.semaphore}`;
  const taken = frames.map(() => theirs.take());
  if (theirs.take() !== undefined) return 'too many';
  if (theirs.readPointer !== theirs.writePointer) return 'pointers apart after everything was taken';
  return difference(taken, frames);
}

describe.each(STORAGES)('a small ring, %s', (_storage, store) => {
  const WORDS = 40;
  const LARGEST = WORDS * 4 - 12;
  let pair: RingPair;

  beforeAll(() => {
    pair = new RingPair('request', WORDS, store);
  });
  afterAll(() => pair.close());

  const starts = Array.from({ length: WORDS }, (_, index) => index);

  test.each([
    ['whole', whole],
    ['in parts', inParts],
    ['prepared', prepared],
  ])('one frame %s: every length at every word', (_, stage) => {
    for (const at of starts) {
      for (let length = 0; length <= LARGEST; length++) {
        pair.reset(at);
        const result = transfer(pair, new RequestWriter(pair.ours), [pattern(length, at)], stage);
        if (result !== '') throw new Error(`${length} bytes at word ${at}: ${result}`);
      }
    }
  });

  test('batches of several frames, staged in different ways, at every word', () => {
    const stages = [whole, inParts, prepared];
    for (const at of starts) {
      for (let length = 0; length <= 30; length++) {
        pair.reset(at);
        const frames = [pattern(length, 1), pattern(30 - length, 2), pattern(3, 3), pattern(length % 7, 4)];
        let turn = at;
        const mixed: Stage = (ring, frame) => stages[turn++ % stages.length]!(ring, frame);
        const result = transfer(pair, new RequestWriter(pair.ours), frames, mixed);
        if (result !== '') throw new Error(`${length} bytes at word ${at}: ${result}`);
      }
    }
  });

  test('many times around one ring', async () => {
    await assertProperty(
      fc.property(
        fc.nat(WORDS - 1),
        fc.array(fc.array(fc.tuple(fc.nat(25), fc.nat(2)), { minLength: 1, maxLength: 3 }), {
          maxLength: 20,
        }),
        (at, rounds) => {
          pair.reset(at);
          const ring = new RequestWriter(pair.ours);
          for (const [index, round] of rounds.entries()) {
            let turn = 0;
            const mixed: Stage = (target, frame) => {
              const stage = [whole, inParts, prepared][round[turn++]![1]]!;
              return stage(target, frame);
            };
            const frames = round.map(([length], place) => pattern(length, index * 3 + place));
            expect(transfer(pair, ring, frames, mixed)).toBe('');
          }
        },
      ),
    );
  });

  test('the required room is as in libqb: the frame and 12 bytes', () => {
    for (const at of starts) {
      for (const before of [0, 1, 4, 17, 60, 100]) {
        for (const frame of [0, 1, 2, 3, 4, 5, 31, 32, 33, LARGEST - 40, LARGEST]) {
          pair.reset(at);
          const ring = new RequestWriter(pair.ours);
          expect(whole(ring, pattern(before, 1))).toBe(true);
          ring.post();
          // Now the daemon's own formula counts, with its pointers.
          const { free } = pair.theirs;
          expect([at, before, frame, whole(ring, pattern(frame, 2))]).toEqual([
            at,
            before,
            frame,
            frame + 12 <= free,
          ]);
        }
      }
    }
  });

  test('an empty ring holds its size minus 12 bytes, and no more', () => {
    for (const at of starts) {
      for (const stage of [whole, inParts, prepared]) {
        pair.reset(at);
        const ring = new RequestWriter(pair.ours);
        expect(stage(ring, pattern(LARGEST + 1, at))).toBe(false);
        expect(ring.stagedChunks).toBe(0);
        expect(transfer(pair, ring, [pattern(LARGEST, at)], stage)).toBe('');
      }
    }
  });

  test('a full ring refuses, loses nothing, and accepts again after the daemon took some', () => {
    for (const at of starts) {
      pair.reset(at);
      const ring = new RequestWriter(pair.ours);
      const frames: Buffer[] = [];
      for (;;) {
        const frame = pattern(9, frames.length);
        if (!inParts(ring, frame)) break;
        frames.push(frame);
      }
      expect(frames.length).toBeGreaterThan(3);
      ring.post();
      expect(inParts(ring, pattern(9, 99))).toBe(false);
      const first = pair.theirs.take();
      const late = pattern(9, 99);
      expect(inParts(ring, late)).toBe(true);
      // The chunks that are left must be counted down before more can be posted.
      expect(ring.submitState()).toBe('busy');
      const rest = frames.slice(1).map(() => pair.theirs.take());
      expect(difference([first, ...rest], frames)).toBe('');
      expect(ring.submitState()).toBe('ready');
      ring.post();
      expect(difference([pair.theirs.take()], [late])).toBe('');
    }
  });

  test('staging does not change posted chunks', () => {
    for (const at of starts) {
      pair.reset(at);
      const ring = new RequestWriter(pair.ours);
      const posted = [pattern(5, 1), pattern(6, 2)];
      for (const frame of posted) whole(ring, frame);
      ring.post();
      const staged = [pattern(20, 3), pattern(11, 4)];
      whole(ring, staged[0]!);
      prepared(ring, staged[1]!);
      expect(difference([pair.theirs.take(), pair.theirs.take()], posted)).toBe('');
      expect(pair.theirs.take()).toBeUndefined();
      ring.post();
      expect(difference([pair.theirs.take(), pair.theirs.take()], staged)).toBe('');
    }
  });

  test('nothing may be posted while the semaphore is not 0 or flow control is on', () => {
    pair.reset(3);
    const ring = new RequestWriter(pair.ours);
    whole(ring, pattern(4, 1));
    whole(ring, pattern(4, 2));
    expect(ring.submitState()).toBe('ready');
    ring.post();
    expect(ring.submitState()).toBe('busy');
    pair.theirs.take();
    expect(ring.submitState()).toBe('busy');
    pair.theirs.take();
    expect(ring.submitState()).toBe('ready');
    for (const flowControl of [1, 2]) {
      pair.theirs.flowControl = flowControl;
      expect(ring.submitState()).toBe('flowControlled');
      expect(ring.flowControl()).toBe(true);
    }
    pair.theirs.flowControl = 0;
    expect(ring.submitState()).toBe('ready');
    expect(ring.flowControl()).toBe(false);
  });

  test('the chunks are written first, then the pointer, then the semaphore', () => {
    pair.reset(38);
    const ring = new RequestWriter(pair.ours);
    whole(ring, pattern(30, 1));
    const { theirs } = pair;
    const seen = pair.afterEachWrite(
      () => ring.post(),
      () => ({
        chunk: theirs.word(38) === 30 && theirs.word(39) === COMMITTED,
        pointer: theirs.writePointer !== 38,
        semaphore: theirs.semaphore,
      }),
    );
    expect(seen.length).toBeGreaterThanOrEqual(3);
    for (const { chunk, pointer, semaphore } of seen) {
      if (pointer) expect(chunk).toBe(true);
      if (semaphore !== 0) expect(pointer).toBe(true);
    }
    expect(seen.at(-1)).toEqual({ chunk: true, pointer: true, semaphore: 1 });
    theirs.take();
  });
});

describe.each(STORAGES)('a ring with room for directly written frames, %s', (_storage, store) => {
  // Frames of more than 16 KiB are not copied together before they are written.
  const WORDS = 6000;
  let pair: RingPair;

  beforeAll(() => {
    pair = new RingPair('request', WORDS, store);
  });
  afterAll(() => pair.close());

  test.each([
    ['whole', whole],
    ['in parts', inParts],
    ['prepared', prepared],
  ])('a large frame %s at every word', (_, stage) => {
    const frames = [16_380, 16_385, 17_002, 19_999].map((length) => pattern(length, length));
    pair.reset(0);
    for (let at = 0; at < WORDS; at++) {
      pair.theirs.writePointer = at;
      pair.theirs.readPointer = at;
      pair.ours.readPointers();
      const result = transfer(pair, new RequestWriter(pair.ours), [frames[at % frames.length]!], stage);
      if (result !== '') throw new Error(`at word ${at}: ${result}`);
    }
  });

  test('alternating small and large frames keep their order', () => {
    const lengths = [5, 17_000, 6, 0, 3_000];
    const frames = lengths.map((length, index) => pattern(length, index));
    pair.reset(0);
    for (let at = 0; at < WORDS; at += 7) {
      pair.theirs.writePointer = at;
      pair.theirs.readPointer = at;
      pair.ours.readPointers();
      const result = transfer(pair, new RequestWriter(pair.ours), frames, whole);
      if (result !== '') throw new Error(`at word ${at}: ${result}`);
    }
  });

  test('a message of more pieces than one system call writes', () => {
    pair.reset(5990);
    for (const at of [0, 5990]) {
      pair.reset(at);
      const ring = new RequestWriter(pair.ours);
      const frame = pattern(20_000, at);
      const parts = Array.from({ length: 5000 }, (_, index) => frame.subarray(index * 4, index * 4 + 4));
      expect(transfer(pair, ring, [frame], (target) => target.stage(EMPTY, parts, frame.length))).toBe('');
    }
  });
});

describe.each(STORAGES)(
  'a ring larger than the memory in which frames are gathered, %s',
  (_storage, store) => {
    test('more small frames than fit it, posted at once', () => {
      const pair = new RingPair('request', 60_000, store);
      try {
        for (const at of [0, 1, 33_333, 59_990, 59_998, 59_999]) {
          pair.reset(at);
          const frames = Array.from({ length: 1500 }, (_, index) => pattern(40 + (index % 90), index));
          expect(transfer(pair, new RequestWriter(pair.ours), frames, inParts)).toBe('');
        }
      } finally {
        pair.close();
      }
    });
  },
);
