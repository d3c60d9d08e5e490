/** The daemon writes replies, we read them: by the semaphore, never by the magic. */
import { ResponseReader } from '../../src/ring/response-reader';
import { thrownBy } from '../support/errors';
import { BEING_WRITTEN } from '../support/fake-ring';
import { difference, pattern, RingPair, STORAGES } from './ring-fixture';

const WORDS = 40;
const LARGEST = WORDS * 4 - 12;

describe.each(STORAGES)('%s', (_storage, store) => {
  let pair: RingPair;
  let ring: ResponseReader;

  beforeAll(() => {
    pair = new RingPair('response', WORDS, store);
    ring = new ResponseReader(pair.ours);
  });
  afterAll(() => pair.close());

  test('every length at every word', () => {
    for (let at = 0; at < WORDS; at++) {
      for (let length = 0; length <= LARGEST; length++) {
        pair.reset(at);
        const frame = pattern(length, at);
        expect(pair.theirs.put(frame)).toBe(true);
        const result = difference([ring.take()], [frame]);
        if (result !== '') throw new Error(`${length} bytes at word ${at}: ${result}`);
        if (pair.theirs.semaphore !== 0 || pair.theirs.readPointer !== pair.theirs.writePointer) {
          throw new Error(`${length} bytes at word ${at}: not given back`);
        }
      }
    }
  });

  test('one after the other, many times around the ring', () => {
    pair.reset(39);
    for (let index = 0; index < 500; index++) {
      const frame = pattern(index % (LARGEST + 1), index);
      expect(ring.take()).toBeUndefined();
      expect(pair.theirs.put(frame)).toBe(true);
      expect(difference([ring.take()], [frame])).toBe('');
    }
  });

  test('the frame is ours to keep', () => {
    pair.reset(0);
    const frame = pattern(20, 1);
    pair.theirs.put(frame);
    const taken = ring.take();
    for (let index = 0; index < 4; index++) {
      pair.theirs.put(pattern(100, 7 + index));
      ring.take();
    }
    expect(difference([taken], [frame])).toBe('');
  });

  test('nothing is taken while the semaphore is 0, although the chunk is committed', () => {
    pair.reset(12);
    const frame = pattern(24, 1);
    pair.theirs.stage(frame);
    const before = pair.theirs.contents();
    expect(ring.take()).toBeUndefined();
    expect(pair.theirs.readPointer).toBe(12);
    expect(pair.theirs.contents().equals(before)).toBe(true);
    pair.theirs.semaphore = 1;
    expect(difference([ring.take()], [frame])).toBe('');
    expect(ring.take()).toBeUndefined();
  });

  test('the semaphore is 0 again before the pointer says empty', () => {
    pair.reset(0);
    pair.theirs.put(pattern(24, 1));
    const { theirs } = pair;
    const seen = pair.afterEachWrite(
      () => ring.take(),
      // What the daemon would make of it at this moment: equal pointers with a count are "full".
      () => (theirs.readPointer === theirs.writePointer && theirs.semaphore > 0 ? 'full' : 'fine'),
    );
    expect(seen.length).toBeGreaterThanOrEqual(2);
    expect(seen).not.toContain('full');
  });

  describe('an invalid ring is CS_ERR_MESSAGE_ERROR', () => {
    test.each([
      ['bad magic', (): void => pair.theirs.stage(pattern(8, 1), 0x12345678)],
      ['a chunk still being written', (): void => pair.theirs.stage(pattern(8, 1), BEING_WRITTEN)],
      [
        'a length beyond what was written',
        (): void => {
          pair.theirs.stage(pattern(8, 1));
          pair.theirs.setWord(5, 9);
        },
      ],
      [
        'an enormous length',
        (): void => {
          pair.theirs.stage(pattern(8, 1));
          pair.theirs.setWord(5, 0xffffffff);
        },
      ],
      ['an empty ring', (): void => undefined],
      ['a write pointer outside', (): void => void (pair.theirs.writePointer = WORDS)],
      ['a read pointer outside', (): void => void (pair.theirs.readPointer = 0xffffffff)],
    ])('%s', (_, damage) => {
      pair.reset(5);
      damage();
      pair.theirs.semaphore = 1;
      const allocate = jest.spyOn(Buffer, 'allocUnsafe');
      try {
        expect(thrownBy(() => ring.take()).code).toBe('CS_ERR_MESSAGE_ERROR');
        expect(allocate).not.toHaveBeenCalled();
      } finally {
        allocate.mockRestore();
      }
    });
  });
});

// In a mapping the process would end with SIGBUS.
test.each(['header', 'data'] as const)('a %s file cut short is CS_ERR_MESSAGE_ERROR', (what) => {
  const cut = new RingPair('response', WORDS);
  try {
    cut.theirs.put(pattern(20, 1));
    cut.theirs.truncate(what, what === 'header' ? 8000 : 12);
    expect(thrownBy(() => new ResponseReader(cut.ours).take()).code).toBe('CS_ERR_MESSAGE_ERROR');
  } finally {
    cut.close();
  }
});
