/** How much of a sender's own messages is under way. */
import { Pace } from '../../src/session/pace';

const CAPACITY = 10_000;
const OVERHEAD = 192;

function fresh(): { pace: Pace; opened: jest.Mock } {
  const opened = jest.fn();
  return { pace: new Pace(CAPACITY, opened), opened };
}

/** Sends while it is allowed; how many that were. */
function fill(pace: Pace, length: number): number {
  let count = 0;
  while (count < 1000 && pace.allows(length)) {
    pace.sent(length);
    count++;
  }
  return count;
}

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

test.each([
  ['no more than the ring holds', 1000 - OVERHEAD, 10],
  ['of small messages twice as much', 500 - OVERHEAD, 40],
])('%s, and on when half of it has come back', (_, length, most) => {
  const { pace, opened } = fresh();
  expect(fill(pace, length)).toBe(most);
  for (let count = 0; count < most / 2 - 1; count++) pace.delivered(length);
  expect(opened).not.toHaveBeenCalled();
  pace.delivered(length);
  expect(opened).toHaveBeenCalledTimes(1);
  expect(fill(pace, length)).toBe(most / 2);
  pace.stop();
});

test.each([CAPACITY, 3 * CAPACITY])(
  'two messages of %i bytes go, however large; one more for each that came',
  (length) => {
    const { pace, opened } = fresh();
    expect(fill(pace, length)).toBe(2);
    pace.delivered(length);
    expect(opened).toHaveBeenCalledTimes(1);
    expect(fill(pace, length)).toBe(1);
    pace.stop();
  },
);

test('who does not get his messages back waits for a moment only', () => {
  const { pace, opened } = fresh();
  expect(fill(pace, 1000)).toBeGreaterThan(0);
  expect(pace.allows(1000)).toBe(false);
  jest.advanceTimersByTime(10);
  expect(opened).toHaveBeenCalledTimes(1);
  expect(fill(pace, 1000)).toBeGreaterThan(0);
  pace.stop();
});

test('nothing is called after stop, and without somebody who waits', () => {
  const { pace, opened } = fresh();
  pace.sent(1000);
  pace.delivered(1000);
  pace.delivered(1000);
  fill(pace, 1000);
  pace.stop();
  jest.advanceTimersByTime(1000);
  expect(opened).not.toHaveBeenCalled();
});
