/** The window of our messages in flight: how many may be sent, and when it opens. For deliveries see confirm.test.ts. */
import { InFlightWindow } from '../../src/session/in-flight';

jest.mock('../../src/clock', () => jest.requireActual<object>('../support/fake-clock'));

const CAPACITY = 10_000;
const OVERHEAD = 192;

function fresh(): { window: InFlightWindow; patienceOver: jest.Mock } {
  const patienceOver = jest.fn();
  return { window: new InFlightWindow(CAPACITY, patienceOver), patienceOver };
}

const ownMessage = (length: number) => ({ parts: [], length, guarantee: 2 });

/** Sends while the window allows it; returns how many. */
function fill(window: InFlightWindow, length: number): number {
  let count = 0;
  while (count < 1000 && window.allows(length)) {
    window.sent(ownMessage(length));
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
  const { window } = fresh();
  expect(fill(window, length)).toBe(most);
  for (let count = 0; count < most / 2 - 1; count++) window.delivered(Buffer.alloc(length));
  expect(window.takeOpened()).toBe(false);
  window.delivered(Buffer.alloc(length));
  expect([window.takeOpened(), window.takeOpened()]).toEqual([true, false]);
  expect(fill(window, length)).toBe(most / 2);
  window.end(new Error('of the test'));
});

test.each([CAPACITY, 3 * CAPACITY])(
  'two messages of %i bytes go, however large; one more for each that came',
  (length) => {
    const { window, patienceOver } = fresh();
    expect(fill(window, length)).toBe(2);
    window.delivered(Buffer.alloc(length));
    expect([window.takeOpened(), window.takeOpened()]).toEqual([true, false]);
    expect(patienceOver).not.toHaveBeenCalled();
    expect(fill(window, length)).toBe(1);
    window.end(new Error('of the test'));
  },
);

test('a sender that does not get its messages back waits only briefly', () => {
  const { window, patienceOver } = fresh();
  expect(fill(window, 1000)).toBeGreaterThan(0);
  expect(window.allows(1000)).toBe(false);
  jest.advanceTimersByTime(10);
  expect(patienceOver).toHaveBeenCalledTimes(1);
  expect(fill(window, 1000)).toBeGreaterThan(0);
  window.end(new Error('of the test'));
});

test('no callback after the end, or while nothing waits', () => {
  const { window, patienceOver } = fresh();
  window.sent(ownMessage(1000));
  window.delivered(Buffer.alloc(1000));
  window.delivered(Buffer.alloc(1000));
  fill(window, 1000);
  window.end(new Error('of the test'));
  jest.advanceTimersByTime(1000);
  expect(patienceOver).not.toHaveBeenCalled();
});

test('a fence that is refused after failAll() changes nothing', () => {
  const { window } = fresh();
  window.sent(ownMessage(10));
  window.fenceSent();
  window.failAll(new Error('of the test'));
  window.fenceRefused();
  expect(window.needsFence(true)).toBe(false);
  window.sent(ownMessage(10));
  expect(window.needsFence(true)).toBe(true);
});
