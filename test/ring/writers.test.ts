/** The embedded server's sides of the rings, against a client of libqb that shares no code with them (fake-ring.ts). */
import { EventWriter } from '../../src/ring/event-writer';
import { CHUNK_HEADER_BYTES, chunkWords, WORD_BYTES, writeChunkHeader } from '../../src/ring/layout';
import { RequestReader } from '../../src/ring/request-reader';
import { ResponseWriter } from '../../src/ring/response-writer';
import { thrownBy } from '../support/errors';
import { difference, pattern, RingPair, STORAGES } from './ring-fixture';

const WORDS = 40;
const LARGEST = WORDS * 4 - 12;
/** With chunks that end before, at and after the end of the ring. */
const PLACES = [0, 17, WORDS - 3, WORDS - 2, WORDS - 1];

/** Contiguous chunks. */
function laidOut(frames: readonly Buffer[]): Buffer {
  const chunks = frames.map((frame) => {
    const chunk = Buffer.alloc(chunkWords(frame.length) * WORD_BYTES);
    writeChunkHeader(chunk, 0, frame.length);
    frame.copy(chunk, CHUNK_HEADER_BYTES);
    return chunk;
  });
  return Buffer.concat(chunks);
}

describe.each(STORAGES)('in a small ring, %s', (_storage, store) => {
  let pair: RingPair;

  beforeAll(() => {
    pair = new RingPair('event', WORDS, store);
  });
  afterAll(() => pair.close());

  const taken = (): Buffer[] => {
    const frames: Buffer[] = [];
    for (let frame = pair.theirs.take(); frame !== undefined; frame = pair.theirs.take()) frames.push(frame);
    return frames;
  };

  test('batches of events arrive whole', () => {
    for (const at of PLACES) {
      for (let length = 0; length <= 40; length++) {
        pair.reset(at);
        const frames = [pattern(length, 1), pattern(40 - length, 2), pattern(1, 3), pattern(length % 9, 4)];
        const memory = laidOut(frames);
        const writer = new EventWriter(pair.ours);
        writer.findRoom();
        expect(writer.stage(memory, 0, memory.length)).toBe(memory.length);
        expect(pair.theirs.take()).toBeUndefined();
        expect(writer.post()).toBe(frames.length);
        expect(difference(taken(), frames)).toBe('');
      }
    }
  });

  test('it stages as many events as libqb would have room for', () => {
    for (const at of PLACES) {
      for (let length = 0; length <= LARGEST; length++) {
        pair.reset(at);
        let fits = 0;
        while (pair.theirs.put(pattern(length, fits))) fits++;
        pair.reset(at);
        const frames = Array.from({ length: fits + 1 }, (_, index) => pattern(length, index));
        const memory = laidOut(frames);
        const chunkBytes = memory.length / frames.length;
        const writer = new EventWriter(pair.ours);
        writer.findRoom();
        const staged = writer.stage(memory, 0, memory.length);
        expect(staged / chunkBytes).toBe(fits);
        expect(writer.stage(memory, staged, memory.length)).toBe(staged);
        writer.post();
        expect(difference(taken(), frames.slice(0, fits))).toBe('');
        writer.findRoom();
        expect(writer.stage(memory, staged, memory.length)).toBe(memory.length);
      }
    }
  });

  test('a client sees no count before the chunks and the pointer', () => {
    pair.reset(WORDS - 3);
    const frames = [pattern(30, 1), pattern(20, 2)];
    const memory = laidOut(frames);
    const writer = new EventWriter(pair.ours);
    writer.findRoom();
    const steps = pair.afterEachWrite(
      () => {
        writer.stage(memory, 0, memory.length);
        writer.post();
      },
      () => [pair.theirs.writePointer === WORDS - 3 ? 'before' : 'after', pair.theirs.semaphore],
    );
    expect(steps).toEqual([
      ['before', 0],
      ['before', 0],
      ['after', 0],
      ['after', 2],
    ]);
    expect(difference(taken(), frames)).toBe('');
  });

  test('replies of every length arrive whole', () => {
    for (const at of PLACES) {
      for (let length = 0; length <= LARGEST; length++) {
        pair.reset(at);
        new ResponseWriter(pair.ours).write(pattern(length, at));
        expect(difference(taken(), [pattern(length, at)])).toBe('');
      }
    }
  });

  test('a reply without room is CS_ERR_NO_SPACE and changes nothing', () => {
    pair.reset(7);
    const writer = new ResponseWriter(pair.ours);
    writer.write(pattern(60, 1));
    const before = pair.theirs.contents();
    expect(thrownBy(() => writer.write(pattern(LARGEST - 60, 2))).code).toBe('CS_ERR_NO_SPACE');
    expect(pair.theirs.contents().equals(before)).toBe(true);
    expect(difference(taken(), [pattern(60, 1)])).toBe('');
  });

  test('flow control is seen by the client, and requests are read by their bytes', () => {
    pair.reset(11);
    const reader = new RequestReader(pair.ours);
    reader.hold(true);
    expect(pair.theirs.flowControl).toBe(1);
    reader.hold(false);
    expect(pair.theirs.flowControl).toBe(0);
    pair.theirs.put(pattern(24, 1));
    reader.credit(1);
    const frames: Buffer[] = [];
    reader.consume(Infinity, (frame) => frames.push(Buffer.from(frame)) > 0);
    reader.reclaim();
    expect(difference(frames, [pattern(24, 1)])).toBe('');
    expect(pair.theirs.readPointer).toBe(pair.theirs.writePointer);
  });

  test('requests without their bytes are found whatever the semaphore says', () => {
    for (const at of PLACES) {
      pair.reset(at);
      const reader = new RequestReader(pair.ours);
      expect(reader.peek()).toBe(false);
      const frames = [pattern(24, 1), pattern(7, 2), pattern(60, 3)];
      for (const frame of frames) pair.theirs.put(frame);
      pair.theirs.semaphore = 1; // of the last batch only
      expect(reader.peek()).toBe(true);
      const read: Buffer[] = [];
      reader.consume(Infinity, (frame) => read.push(Buffer.from(frame)) > 0);
      expect(difference(read, frames)).toBe('');
      expect(reader.peek()).toBe(false);
      // Their space is theirs until the bytes come.
      reader.reclaim();
      expect(pair.theirs.readPointer).toBe(at);
      reader.credit(frames.length);
      reader.reclaim();
      expect(pair.theirs.readPointer).toBe(pair.theirs.writePointer);
    }
  });

  test('a chunk that leads beyond write_pt is refused', () => {
    pair.reset(0);
    pair.theirs.put(pattern(24, 1));
    pair.theirs.setWord(0, 60);
    const reader = new RequestReader(pair.ours);
    expect(thrownBy(() => reader.peek()).code).toBe('CS_ERR_MESSAGE_ERROR');
  });
});
