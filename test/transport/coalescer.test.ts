/** When a receive-only member coalesces wake-ups. */
import { Coalescer } from '../../src/transport/coalescer';

jest.mock('../../src/clock', () => jest.requireActual<object>('../support/fake-clock'));

const COALESCE_MS = 2;
const MAX_BYTES = 1000;

let ended: jest.Mock;

function fresh(coalesceMs = COALESCE_MS): Coalescer {
  return new Coalescer({ coalesceMs, maxBytes: MAX_BYTES, onEnd: ended });
}

beforeEach(() => {
  jest.useFakeTimers();
  jest.advanceTimersByTime(1000);
  ended = jest.fn();
});
afterEach(() => {
  expect(jest.getTimerCount()).toBe(0);
  jest.useRealTimers();
});

test.each([
  ['many at once', [16]],
  ['many within the time of a pause', [6, 6, 4]],
])('%s begin a pause, which ends by itself', (_, counts) => {
  const coalescer = fresh();
  const answers = counts.map((count) => coalescer.received(count, 100));
  expect(answers).toEqual([...counts.slice(1).map(() => false), true]);
  jest.advanceTimersByTime(COALESCE_MS - 1);
  expect(ended).not.toHaveBeenCalled();
  jest.advanceTimersByTime(1);
  expect(ended).toHaveBeenCalledTimes(1);
});

test('events during a pause count for the next one, earlier ones do not', () => {
  const coalescer = fresh();
  expect(coalescer.received(16, 100)).toBe(true);
  jest.advanceTimersByTime(COALESCE_MS);
  expect(coalescer.received(15, 100)).toBe(false);
  expect(coalescer.received(1, 100)).toBe(true);
  jest.advanceTimersByTime(COALESCE_MS);
  expect(ended).toHaveBeenCalledTimes(2);
});

test('few events do not, however long they continue', () => {
  const coalescer = fresh();
  for (let count = 0; count < 100; count++) {
    expect(coalescer.received(2, 100)).toBe(false);
    jest.advanceTimersByTime(1);
  }
});

test('events that take much of the ring do not', () => {
  expect(fresh().received(100, MAX_BYTES + 1)).toBe(false);
});

test('events that come too fast do not, until they slow down', () => {
  const coalescer = fresh();
  // In pieces, each of which would be little enough, but the first.
  expect(coalescer.received(20, MAX_BYTES + 1)).toBe(false);
  for (let count = 0; count < 4; count++) {
    jest.advanceTimersByTime(1);
    expect(coalescer.received(20, MAX_BYTES / 2)).toBe(false);
  }
  jest.advanceTimersByTime(3 * COALESCE_MS);
  expect(coalescer.received(20, MAX_BYTES / 2)).toBe(true);
  coalescer.stop();
});

test('no pause for a while after sending', () => {
  const coalescer = fresh();
  coalescer.sent();
  jest.advanceTimersByTime(49);
  expect(coalescer.received(100, 100)).toBe(false);
  jest.advanceTimersByTime(1);
  expect(coalescer.received(100, 100)).toBe(true);
  coalescer.stop();
});

test('sending ends a pause', () => {
  const coalescer = fresh();
  expect(coalescer.received(100, 100)).toBe(true);
  coalescer.sent();
  expect(ended).toHaveBeenCalledTimes(1);
  jest.advanceTimersByTime(COALESCE_MS);
  expect(ended).toHaveBeenCalledTimes(1);
});

test('nothing follows a stop', () => {
  const coalescer = fresh();
  expect(coalescer.received(100, 100)).toBe(true);
  coalescer.stop();
  jest.advanceTimersByTime(COALESCE_MS);
  expect(ended).not.toHaveBeenCalled();
  // A listener may close its connection in the middle of what came.
  expect(coalescer.received(100, 100)).toBe(false);
});

test('0 milliseconds disable pauses', () => {
  const coalescer = fresh(0);
  expect(coalescer.received(1000, 100)).toBe(false);
  coalescer.sent();
  expect(ended).not.toHaveBeenCalled();
});
