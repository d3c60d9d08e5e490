/** What waits between reading and handing out. */
import { Backlog, type RoundResult } from '../../src/tap/live/backlog';
import { ChunkRun } from '../../src/tap/live/chunks';
import type { RingName } from '../../src/tap/connections';
import { CHUNK_HEADER_BYTES, Magic } from '../../src/ring/layout';
import { CONNECTION, numberedFrame } from './support';

/** Frames as they stand in a ring. */
function chunks(numbers: readonly number[], bytes = 64): ChunkRun {
  const memory = Buffer.alloc(numbers.length * (CHUNK_HEADER_BYTES + bytes));
  const starts = numbers.map((number, index) => {
    const at = index * (CHUNK_HEADER_BYTES + bytes);
    memory.writeUInt32LE(bytes, at);
    memory.writeUInt32LE(Magic.COMMITTED, at + 4);
    numberedFrame(number, bytes).copy(memory, at + CHUNK_HEADER_BYTES);
    return at / 4;
  });
  return new ChunkRun(memory, starts);
}

function result(more: Partial<RoundResult> = {}): RoundResult {
  const nothing = { opened: [], closed: [], refused: [], unreportedMissed: 0, deltas: new Map() };
  return { timeNs: 1n, ...nothing, first: false, last: false, ...more };
}

function deltas(ring: RingName, run: ChunkRun, missed = 0): RoundResult['deltas'] {
  return new Map([[CONNECTION, [{ ring, snapshot: { chunks: run, missed }, old: false }]]]);
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

test('rounds in which nothing was found do not wait, except the first', () => {
  const backlog = new Backlog();
  backlog.add(result());
  expect(backlog.empty).toBe(true);
  backlog.add(result({ first: true }));
  expect(backlog.empty).toBe(false);
  expect(backlog.take()).toMatchObject({ frames: [], opened: [], closed: [] });
  expect(backlog.empty).toBe(true);
  expect(backlog.take()).toBeUndefined();
});

test('after waiting frames one quiet round is enough', () => {
  const backlog = new Backlog();
  backlog.add(result({ deltas: deltas('event', chunks([1])) }));
  for (let round = 0; round < 10; round++) backlog.add(result());
  expect(backlog.take()?.frames).toHaveLength(1);
  expect(backlog.take()).toBeUndefined();
  expect(backlog.empty).toBe(true);
});

test('a large round is handed out in pieces, between its beginnings and its ends', () => {
  const backlog = new Backlog();
  backlog.add(
    result({
      opened: [CONNECTION],
      closed: [CONNECTION],
      unreportedMissed: 3,
      deltas: deltas('event', chunks(upTo(150)), 7),
    }),
  );
  const pieces = [backlog.take()!, backlog.take()!, backlog.take()!];
  expect(backlog.empty).toBe(true);
  const frames = pieces.flatMap((piece) => piece.frames);
  expect(frames.map(({ bytes }) => Buffer.from(bytes).readUInt32LE(16))).toEqual(upTo(150));
  expect(frames.map(({ missed }) => missed)).toEqual([7, ...Array<number>(149).fill(0)]);
  expect(pieces.map(({ opened }) => opened.length)).toEqual([1, 0, 0]);
  expect(pieces.map(({ closed }) => closed.length)).toEqual([0, 0, 1]);
  expect(pieces.map(({ unreportedMissed }) => unreportedMissed)).toEqual([0, 0, 3]);
});

test('it says when it is full, and when it is not any more', () => {
  const backlog = new Backlog();
  const megabyte = 1024 * 1024;
  let rounds = 0;
  while (!backlog.full && rounds < 1000) {
    backlog.add(result({ deltas: deltas('event', chunks([rounds], megabyte)) }));
    rounds++;
  }
  expect(rounds).toBe(64);
  backlog.take();
  expect(backlog.full).toBe(false);
});

test('dropping one connection keeps its first frames and those of other connections', () => {
  const backlog = new Backlog();
  const other = { ...CONNECTION, id: 2 };
  backlog.add(result({ deltas: deltas('request', chunks(upTo(600))) }));
  backlog.add(
    result({
      deltas: new Map([
        ...deltas('event', chunks(upTo(100)), 5),
        [other, [{ ring: 'event', snapshot: { chunks: chunks([1]), missed: 0 }, old: false }]],
      ]),
    }),
  );
  expect(backlog.drop(CONNECTION)).toEqual({ request: 500, response: 0, event: 105 });
  const frames = [];
  while (!backlog.empty) frames.push(...(backlog.take()?.frames ?? []));
  expect(frames.filter(({ connection }) => connection === CONNECTION)).toHaveLength(100);
  expect(frames.filter(({ connection }) => connection === other)).toHaveLength(1);
});

test('a drop includes the rest of a round that is being yielded', () => {
  const backlog = new Backlog();
  backlog.add(result({ deltas: deltas('request', chunks(upTo(600)), 3) }));
  const yielded = backlog.take()!.frames.length;
  expect(backlog.drop(CONNECTION)).toEqual({ request: 600 - yielded - 100, response: 0, event: 0 });
  expect(backlog.drop(CONNECTION)).toEqual({ request: 0, response: 0, event: 0 });
  let kept = 0;
  while (!backlog.empty) kept += backlog.take()?.frames.length ?? 0;
  expect(kept).toBe(100);
});
