/** Polling per turn of the event loop, then with growing timers, and only while needed. */
import { setImmediate as turn } from 'node:timers/promises';
import { Poller } from '../../src/transport/poller';

jest.mock('../../src/clock', () => jest.requireActual<object>('../support/fake-clock'));

const TURNS = 3;
const MAX_PAUSE_MS = 8;

/** A poller whose check the test controls; by default "not yet". */
class Asked {
  count = 0;
  answer: (asked: number) => boolean = () => false;
  readonly poller = new Poller(() => this.answer(++this.count), { turns: TURNS, maxPauseMs: MAX_PAUSE_MS });

  /** Runs the turns of the event loop before the poller uses timers. */
  async turns(): Promise<void> {
    for (let index = 0; index < TURNS + 2; index++) await turn();
  }
}

describe('a poller', () => {
  let asked: Asked;

  beforeEach(() => {
    asked = new Asked();
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'clearImmediate', 'nextTick', 'queueMicrotask'] });
  });
  afterEach(() => {
    asked.poller.stop();
    expect(jest.getTimerCount()).toBe(0);
    jest.useRealTimers();
  });

  test('does nothing before it is started', async () => {
    await asked.turns();
    expect(asked.count).toBe(0);
    expect(asked.poller.running).toBe(false);
  });

  test('checks on the next turn, not immediately', async () => {
    asked.poller.start();
    expect(asked.count).toBe(0);
    expect(asked.poller.running).toBe(true);
    await turn();
    expect(asked.count).toBe(1);
  });

  test('is done with the first success', async () => {
    asked.answer = (count) => count === 2;
    asked.poller.start();
    await asked.turns();
    expect(asked.count).toBe(2);
    expect(asked.poller.running).toBe(false);
  });

  test('uses timers after its turns: 1, 2, 4, 8, 8 ... ms', async () => {
    asked.poller.start();
    await asked.turns();
    expect(asked.count).toBe(TURNS);
    for (const pauseMs of [1, 2, 4, 8, 8, 8]) {
      const before = asked.count;
      if (pauseMs > 1) jest.advanceTimersByTime(pauseMs - 1);
      expect(asked.count).toBe(before);
      jest.advanceTimersByTime(pauseMs > 1 ? 1 : pauseMs);
      expect(asked.count).toBe(before + 1);
    }
  });

  test('restarts with short intervals if started while it waits', async () => {
    asked.poller.start();
    await asked.turns();
    jest.advanceTimersByTime(1 + 2 + 4);
    const before = asked.count;
    asked.poller.start();
    expect(jest.getTimerCount()).toBe(0);
    await asked.turns();
    expect(asked.count).toBe(before + TURNS);
    jest.advanceTimersByTime(1);
    expect(asked.count).toBe(before + TURNS + 1);
  });

  test('started twice, it checks once per turn', async () => {
    asked.poller.start();
    asked.poller.start();
    await turn();
    expect(asked.count).toBe(1);
  });

  test('stops after stop(), whether it waits for a turn or for a timer', async () => {
    asked.poller.start();
    asked.poller.stop();
    await asked.turns();
    expect(asked.count).toBe(0);
    asked.poller.start();
    await asked.turns();
    asked.poller.stop();
    jest.advanceTimersByTime(100);
    expect(asked.count).toBe(TURNS);
    expect(asked.poller.running).toBe(false);
  });

  test('a start() inside a successful check is not lost', async () => {
    asked.answer = (count) => {
      if (count === 1) asked.poller.start();
      return true;
    };
    asked.poller.start();
    await asked.turns();
    expect(asked.count).toBe(2);
    expect(asked.poller.running).toBe(false);
  });

  test('a stop() inside the check ends it', async () => {
    asked.answer = () => {
      asked.poller.stop();
      return true;
    };
    asked.poller.start();
    await asked.turns();
    jest.advanceTimersByTime(100);
    expect(asked.count).toBe(1);
  });
});
