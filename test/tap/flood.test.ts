/** When a connection is flooded: decided from what was written, never by slowing anybody down. */
import { RING_NAMES, type RingName } from '../../src/tap/connections';
import { FloodWatch, type FloodState, type WatchedRing } from '../../src/tap/flood';
import { CONNECTION } from './support';

const RING_FRAMES = 4500;
const SAMPLE_MS = 8;

/** Rings into which a number of frames a millisecond is written, and a tap that samples them. */
class Writer {
  nowMs = 1000;
  ratePerMs = 0;
  /** Of the usual one. */
  frameSize = 1;
  readonly rings: Record<RingName, WatchedRing>;
  readonly flood: FloodWatch;
  #rounds = 0;
  #readRounds = 0;
  #sureMs = 0;
  #sureRounds = 0;

  constructor(ratePerMs = 0, fresh = false) {
    this.ratePerMs = ratePerMs;
    // As a follower does, which knows how large frames are now, not how many there were.
    const progress = (rounds: number, ms: number) => ({ rounds, frames: rounds / this.#frameRounds, ms });
    // A getter each, as a follower has.
    const ring = Object.defineProperties({} as WatchedRing, {
      written: { get: () => progress(this.#sureRounds, this.#sureMs) },
      unread: { get: () => progress(this.#rounds - this.#readRounds, 0) },
      rate: { get: () => progress(this.ratePerMs * this.#frameRounds, 1) },
    });
    this.rings = Object.fromEntries(RING_NAMES.map((name) => [name, ring])) as Record<RingName, WatchedRing>;
    this.flood = new FloodWatch(CONNECTION, this.rings, this.nowMs, fresh);
  }

  get #frameRounds(): number {
    return this.frameSize / RING_FRAMES;
  }

  /** Goes on for so long; `sure` when every sample of it was in time. Reads whenever a tap would. */
  run(ms: number, { sure = true, lagging = false } = {}): FloodState {
    const endMs = this.nowMs + ms;
    let state = this.flood.state;
    while (this.nowMs < endMs) {
      const stepMs = Math.min(SAMPLE_MS, endMs - this.nowMs);
      this.nowMs += stepMs;
      const rounds = this.ratePerMs * stepMs * this.#frameRounds;
      this.#rounds += rounds;
      if (sure) {
        this.#sureMs += stepMs;
        this.#sureRounds += rounds;
      }
      state = this.flood.judge(this.nowMs, lagging);
      if (state === 'none' || this.flood.pressing) this.#readRounds = this.#rounds;
    }
    return state;
  }
}

test('a quiet connection is none, whatever its messages', () => {
  const writer = new Writer();
  writer.ratePerMs = 5;
  expect(writer.run(3000)).toBe('none');
  expect(writer.flood.newest).toBe(1);
});

test('a flood is suspected at first sight, and one when it wrote enough', () => {
  const writer = new Writer();
  writer.ratePerMs = 2;
  writer.run(1000);
  writer.ratePerMs = 60;
  expect(writer.run(SAMPLE_MS)).toBe('suspected');
  // 12,000 messages.
  expect(writer.run(184)).toBe('suspected');
  expect(writer.run(24)).toBe('flooded');
  expect(writer.flood.newest).toBeLessThan(1);
});

test('a flood that is not much of one takes longer to be known', () => {
  const writer = new Writer();
  writer.run(1000);
  writer.ratePerMs = 32;
  expect(writer.run(SAMPLE_MS)).toBe('suspected');
  expect(writer.run(376)).toBe('suspected');
  expect(writer.run(32)).toBe('flooded');
});

test('a flood that begins slowly is not taken for none', () => {
  const writer = new Writer();
  writer.ratePerMs = 15;
  expect(writer.run(100)).toBe('suspected');
  writer.ratePerMs = 80;
  const states = Array.from({ length: 20 }, () => writer.run(SAMPLE_MS));
  expect(new Set(states)).toEqual(new Set(['suspected', 'flooded']));
});

test.each(['after a quiet time', 'of a new connection'])('a sudden flood %s is known sooner', (when) => {
  const fresh = when === 'of a new connection';
  const writer = new Writer(0, fresh);
  if (!fresh) writer.run(1200);
  writer.ratePerMs = 45;
  expect(writer.run(SAMPLE_MS)).toBe('suspected');
  expect(writer.run(88)).toBe('suspected');
  expect(writer.run(16)).toBe('flooded');
});

test('who begins and makes up for a delay is no sudden flood', () => {
  const writer = new Writer(0, true);
  writer.ratePerMs = 80;
  writer.run(24);
  writer.ratePerMs = 20;
  expect(writer.run(400)).toBe('none');
});

test('a sudden flood that was hardly seen is not known yet', () => {
  const writer = new Writer(0, true);
  writer.ratePerMs = 45;
  writer.run(40);
  expect(writer.run(80, { sure: false })).toBe('suspected');
  expect(writer.run(24)).toBe('flooded');
});

test('what is clearly a flood needs less time', () => {
  const writer = new Writer();
  writer.ratePerMs = 150;
  writer.run(SAMPLE_MS);
  expect(writer.run(48)).toBe('flooded');
});

test('a connection that is flooded when the tap comes is suspected at once', () => {
  expect(new Writer(60).flood.state).toBe('suspected');
});

test('20,000 messages a second are none, and asked about again only after a while, not for so long', () => {
  const writer = new Writer();
  writer.ratePerMs = 20;
  expect(writer.run(SAMPLE_MS)).toBe('suspected');
  expect(writer.run(144)).toBe('suspected');
  expect(writer.flood.goesFirst).toBe(true);
  expect(writer.run(SAMPLE_MS)).toBe('none');
  expect(writer.run(990)).toBe('none');
  expect(writer.run(24)).toBe('suspected');
  expect(writer.flood.goesFirst).toBe(false);
  expect(writer.run(48)).toBe('none');
});

test('who cannot keep up asks again sooner', () => {
  const writer = new Writer();
  writer.ratePerMs = 20;
  writer.run(SAMPLE_MS + 152, { lagging: true });
  expect(writer.run(240, { lagging: true })).toBe('none');
  expect(writer.run(24, { lagging: true })).toBe('suspected');
});

test.each([100, 200])('who makes up for a pause of %d ms is none', (pauseMs) => {
  const writer = new Writer();
  writer.ratePerMs = 20;
  writer.run(2000);
  writer.ratePerMs = 0;
  writer.run(pauseMs);
  writer.ratePerMs = 60;
  expect(writer.run(pauseMs / 2)).not.toBe('flooded');
  writer.ratePerMs = 20;
  expect(writer.run(400)).toBe('none');
});

test('nothing of a suspect is lost: it is read before its ring comes round', () => {
  const writer = new Writer();
  writer.ratePerMs = 100;
  let most = 0;
  while (writer.run(SAMPLE_MS) !== 'flooded') most = Math.max(most, writer.rings.event.unread.rounds);
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThan(0.75);
});

test('one lap makes a suspect, not a flood', () => {
  const writer = new Writer();
  writer.flood.lapped(writer.nowMs);
  expect(writer.flood.state).toBe('suspected');
  expect(writer.run(152)).toBe('none');
});

test('a flood is over when it was slow for a good while, not for a moment', () => {
  const writer = new Writer();
  writer.ratePerMs = 100;
  expect(writer.run(500)).toBe('flooded');
  writer.ratePerMs = 10;
  expect(writer.run(300)).toBe('flooded');
  writer.ratePerMs = 100;
  expect(writer.run(300)).toBe('flooded');
  writer.ratePerMs = 10;
  expect(writer.run(450)).toBe('flooded');
  expect(writer.run(250)).toBe('none');
});

test('after a flood, what came with it is not held against anybody', () => {
  const writer = new Writer();
  writer.ratePerMs = 100;
  expect(writer.run(1000)).toBe('flooded');
  writer.ratePerMs = 20;
  while (writer.run(SAMPLE_MS) === 'flooded');
  const states = Array.from({ length: 400 }, () => writer.run(SAMPLE_MS));
  expect(states).not.toContain('flooded');
  expect(states).toContain('none');
});

test('messages that become shorter are no flood', () => {
  const writer = new Writer();
  writer.ratePerMs = 1;
  writer.run(10_000);
  // Less than the limit, but many times more than before for what was written so far.
  writer.frameSize = 1 / 8;
  writer.ratePerMs = 15;
  const states = Array.from({ length: 100 }, () => writer.run(SAMPLE_MS));
  expect(states).toContain('suspected');
  expect(states).not.toContain('flooded');
});

test('who hardly got a processor decides by what is known of late', () => {
  const fast = new Writer();
  fast.ratePerMs = 60;
  expect(fast.run(500, { sure: false })).toBe('flooded');
  const slow = new Writer();
  slow.ratePerMs = 20;
  expect(slow.run(SAMPLE_MS + 300, { sure: false })).toBe('suspected');
  expect(slow.run(120, { sure: false })).toBe('none');
});

test('at the end all is to be read', () => {
  const writer = new Writer();
  writer.ratePerMs = 100;
  writer.run(500);
  writer.flood.end();
  expect(writer.run(SAMPLE_MS)).toBe('none');
  expect(writer.flood.newest).toBe(1);
});
