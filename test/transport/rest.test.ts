/** When a member that only receives rests. */
import { Rest } from '../../src/transport/rest';

jest.mock('../../src/clock', () => jest.requireActual<object>('../support/fake-clock'));

const REST_MS = 2;
const MAX_BYTES = 1000;

let ended: jest.Mock;

function fresh(restMs = REST_MS): Rest {
  return new Rest({ restMs, maxBytes: MAX_BYTES, onEnd: ended });
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
  ['many within the time of a rest', [6, 6, 4]],
])('%s begin a rest, which ends by itself', (_, counts) => {
  const rest = fresh();
  const answers = counts.map((count) => rest.received(count, 100));
  expect(answers).toEqual([...counts.slice(1).map(() => false), true]);
  jest.advanceTimersByTime(REST_MS - 1);
  expect(ended).not.toHaveBeenCalled();
  jest.advanceTimersByTime(1);
  expect(ended).toHaveBeenCalledTimes(1);
});

test('what gathered meanwhile counts for the next rest, what came before does not', () => {
  const rest = fresh();
  expect(rest.received(16, 100)).toBe(true);
  jest.advanceTimersByTime(REST_MS);
  expect(rest.received(15, 100)).toBe(false);
  expect(rest.received(1, 100)).toBe(true);
  jest.advanceTimersByTime(REST_MS);
  expect(ended).toHaveBeenCalledTimes(2);
});

test('few events do not, however long they go on', () => {
  const rest = fresh();
  for (let count = 0; count < 100; count++) {
    expect(rest.received(2, 100)).toBe(false);
    jest.advanceTimersByTime(1);
  }
});

test('events that need much room do not', () => {
  expect(fresh().received(100, MAX_BYTES + 1)).toBe(false);
});

test('events that come too fast do not, until they come more slowly', () => {
  const rest = fresh();
  // In pieces, each of which would be little enough, but the first.
  expect(rest.received(20, MAX_BYTES + 1)).toBe(false);
  for (let count = 0; count < 4; count++) {
    jest.advanceTimersByTime(1);
    expect(rest.received(20, MAX_BYTES / 2)).toBe(false);
  }
  jest.advanceTimersByTime(3 * REST_MS);
  expect(rest.received(20, MAX_BYTES / 2)).toBe(true);
  rest.stop();
});

test('who has sent does not rest for a while', () => {
  const rest = fresh();
  rest.sent();
  jest.advanceTimersByTime(49);
  expect(rest.received(100, 100)).toBe(false);
  jest.advanceTimersByTime(1);
  expect(rest.received(100, 100)).toBe(true);
  rest.stop();
});

test('sending ends a rest', () => {
  const rest = fresh();
  expect(rest.received(100, 100)).toBe(true);
  rest.sent();
  expect(ended).toHaveBeenCalledTimes(1);
  jest.advanceTimersByTime(REST_MS);
  expect(ended).toHaveBeenCalledTimes(1);
});

test('nothing follows a stop', () => {
  const rest = fresh();
  expect(rest.received(100, 100)).toBe(true);
  rest.stop();
  jest.advanceTimersByTime(REST_MS);
  expect(ended).not.toHaveBeenCalled();
  // A listener may close its connection in the middle of what came.
  expect(rest.received(100, 100)).toBe(false);
});

test('0 milliseconds are none', () => {
  const rest = fresh(0);
  expect(rest.received(1000, 100)).toBe(false);
  rest.sent();
  expect(ended).not.toHaveBeenCalled();
});
