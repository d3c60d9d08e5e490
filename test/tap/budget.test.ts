/** What keeps a tap in the background: its share of a CPU, and samples of what is too fast. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Budget } from '../../src/tap/live/budget';
import { Followed, READING_ORDER } from '../../src/tap/live/followed';
import { CONNECTION, makeConnection, numberedFrame, type RingWriter } from './support';

describe('a budget', () => {
  test('work takes the share and no more, on average', () => {
    const budget = new Budget(0.25);
    let [nowMs, workedMs] = [0, 0];
    while (nowMs < 60_000) {
      if (budget.restMs(nowMs) > 0) {
        nowMs += budget.restMs(nowMs);
      } else {
        nowMs += 5;
        workedMs += 5;
        budget.charge(5, nowMs);
      }
    }
    expect(workedMs / nowMs).toBeGreaterThan(0.25);
    expect(workedMs / nowMs).toBeLessThan(0.26);
  });

  test('implausibly long work is not charged in full', () => {
    const budget = new Budget(0.25);
    budget.charge(60_000, 60_000);
    expect(budget.restMs(60_000)).toBe(0);
    expect(budget.restFor(10)).toBe(30);
  });
});

describe('a connection', () => {
  let root: string;
  let writer: RingWriter;
  let followed: Followed;
  let nowMs: number;
  let sent: number;
  let captured: number;
  let missed: number;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'cpg-followed-'));
    const { directory, rings } = makeConnection(root, { words: 65_536 });
    writer = rings.event;
    [nowMs, sent, captured, missed] = [0, 0, 0, 0];
    followed = new Followed(root, basename(directory), CONNECTION, true, nowMs);
  });
  afterEach(() => {
    followed.close();
    rmSync(root, { recursive: true });
  });

  const read = (): void => {
    for (const { snapshot } of followed.read(false)) {
      captured += snapshot.chunks.length;
      missed += snapshot.missed;
    }
  };
  /** Writes at a rate; sampled every 10 ms, and read then, or less often when samples are enough. */
  const run = (perMs: number, forMs: number): void => {
    for (const endMs = nowMs + forMs; nowMs < endMs;) {
      nowMs += 10;
      for (let count = 0; count < 10 * perMs; count++) writer.put(numberedFrame(sent++, 24));
      for (const ring of READING_ORDER) followed.sample(ring, nowMs);
      followed.judge(nowMs);
      if (!followed.sampled || nowMs % 100 === 0) read();
    }
  };

  test('below the limit is read in full', () => {
    run(40, 400);
    expect({ sampled: followed.sampled, captured, missed }).toEqual({
      sampled: false,
      captured: sent,
      missed: 0,
    });
  });

  test('a burst is no flood', () => {
    run(100, 40);
    expect(followed.undecided).toBe(true);
    run(0, 200);
    expect({ sampled: followed.sampled, captured, missed }).toEqual({
      sampled: false,
      captured: sent,
      missed: 0,
    });
  });

  test('a flood is sampled: each message is captured or counted as missed, until it is slower', () => {
    run(100, 500);
    expect(followed.sampled).toBe(true);
    expect(captured).toBeLessThan(0.5 * sent);
    expect(captured + missed).toBe(sent);
    run(50, 300);
    expect(followed.sampled).toBe(true);
    run(20, 700);
    expect(followed.sampled).toBe(false);
    const missedBefore = missed;
    run(20, 200);
    expect(missed).toBe(missedBefore);
    expect(captured + missed).toBe(sent);
  });
});
