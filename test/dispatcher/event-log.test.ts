/** The events queued for loops. */
import { Consumers } from '../../src/dispatcher/consumers';
import {
  EventLog,
  MAX_QUEUED_EVENT_BYTES,
  MAX_QUEUED_EVENTS,
  type Cursor,
} from '../../src/dispatcher/event-log';
import type { EventLoop } from '../../src/dispatcher/event-loop';
import type { CpgEvent } from '../../src';

jest.mock('../../src/clock', () => jest.requireActual<object>('../support/fake-clock'));

const event = (text: string | number, bytes = 0): CpgEvent => ({
  type: 'deliver',
  group: `${text}`,
  groupBytes: Buffer.from(`${text}`),
  nodeId: 1,
  pid: 1,
  own: false,
  message: Buffer.alloc(bytes),
});

describe('a loop', () => {
  let room: number;
  let consumers: Consumers;
  let loop: EventLoop;
  const full = (): boolean => !consumers.hasRoom(false);
  beforeEach(() => {
    room = 0;
    const sink = { listening: false, emit: () => false, report: () => undefined };
    consumers = new Consumers(sink, false, () => room++);
    loop = consumers.loop(undefined);
  });

  test('events come in order, whether they or the loop came first', async () => {
    consumers.give(event(1));
    const waiting = [loop.next(), loop.next(), loop.next()];
    consumers.give(event(2));
    consumers.give(event(3));
    consumers.give(event(4));
    const results = await Promise.all([...waiting, loop.next()]);
    expect(results).toEqual([1, 2, 3, 4].map((text) => ({ value: event(text), done: false })));
  });

  test('it is full by the number of events', async () => {
    for (let index = 0; index < MAX_QUEUED_EVENTS; index++) {
      expect(full()).toBe(false);
      consumers.give(event(index));
    }
    expect(full()).toBe(true);
    await loop.next();
    expect(full()).toBe(false);
    expect(room).toBe(1);
    await loop.next();
    expect(room).toBe(1);
  });

  test('it is full by bytes', async () => {
    const half = MAX_QUEUED_EVENT_BYTES / 2;
    consumers.give(event(1, half));
    expect(full()).toBe(false);
    consumers.give(event(2, half));
    expect(full()).toBe(true);
    await loop.next();
    expect([full(), room]).toEqual([false, 1]);
  });

  test('while a confirmation is awaited its limit is 16 times higher', () => {
    const many = 16 * MAX_QUEUED_EVENTS;
    for (let index = 1; index < many; index++) consumers.give(event(index));
    expect(consumers.hasRoom(true)).toBe(true);
    consumers.give(event(many));
    expect(consumers.hasRoom(true)).toBe(false);
  });

  test('at the end it yields its queued events, then stays done', async () => {
    consumers.give(event(1));
    consumers.end();
    expect(await loop.next()).toEqual({ value: event(1), done: false });
    expect(await loop.next()).toEqual({ value: undefined, done: true });
    expect(await loop.next()).toEqual({ value: undefined, done: true });
  });

  test('an error is thrown once, after the events', async () => {
    const error = new Error('of the test');
    consumers.give(event(1));
    loop.end(error);
    loop.end(new Error('another'));
    expect(await loop.next()).toEqual({ value: event(1), done: false });
    await expect(loop.next()).rejects.toBe(error);
    expect(await loop.next()).toEqual({ value: undefined, done: true });
  });

  test('an error reaches the call that waits longest', async () => {
    const error = new Error('of the test');
    const waiting = [loop.next(), loop.next()];
    loop.end(error);
    const results = await Promise.allSettled(waiting);
    expect(results).toEqual([
      { status: 'rejected', reason: error },
      { status: 'fulfilled', value: { value: undefined, done: true } },
    ]);
  });

  test('a loop that is left drops its events and is no longer full', async () => {
    for (let index = 0; index < MAX_QUEUED_EVENTS; index++) consumers.give(event(index));
    expect(await loop.return()).toEqual({ value: undefined, done: true });
    expect([full(), room]).toEqual([false, 1]);
    expect(await loop.next()).toEqual({ value: undefined, done: true });
  });

  test('a slow loop does not delay others', async () => {
    const other = consumers.loop(undefined);
    for (let index = 0; index < 3; index++) consumers.give(event(index));
    await other.next();
    await loop.return();
    expect(await other.next()).toEqual({ value: event(1), done: false });
    expect(await other.next()).toEqual({ value: event(2), done: false });
  });
});

test('a listener that is added in the turn in which a full backlog would be dropped still gets it', () => {
  jest.useFakeTimers();
  try {
    const seen: CpgEvent[] = [];
    const sink = {
      listening: false,
      emit: (one: CpgEvent) => sink.listening && seen.push(one) > 0,
      report: () => undefined,
    };
    const consumers = new Consumers(sink, true, () => undefined);
    for (let index = 0; index < MAX_QUEUED_EVENTS; index++) consumers.give(event(index));
    expect(consumers.onListening()).toBe(true);
    sink.listening = true;
    jest.advanceTimersByTime(10_000);
    consumers.flush();
    expect(seen).toHaveLength(MAX_QUEUED_EVENTS);
    // Nobody again: the next backlog waits for no more than its time.
    sink.listening = false;
    for (let index = 0; index < MAX_QUEUED_EVENTS; index++) consumers.give(event(index));
    jest.advanceTimersByTime(999);
    expect(consumers.hasRoom(false)).toBe(false);
    jest.advanceTimersByTime(1);
    expect(consumers.hasRoom(false)).toBe(true);
    expect(consumers.onListening()).toBe(false);
    consumers.stop();
  } finally {
    jest.useRealTimers();
  }
});

describe('the log', () => {
  const take = (log: EventLog, cursor: Cursor): string[] => {
    const taken: string[] = [];
    for (let one = log.take(cursor); one?.type === 'deliver'; one = log.take(cursor)) {
      taken.push(String(one.group));
    }
    return taken;
  };

  test('keeps the events that a cursor has still to take, and nothing without one', () => {
    const log = new EventLog(() => undefined);
    log.append(event('a'));
    const first = log.open();
    log.append(event('b'));
    const second = log.open();
    log.append(event('c'));
    const third = log.open(first);
    expect([take(log, second), take(log, first), take(log, first)]).toEqual([['c'], ['b', 'c'], []]);
    log.close(first);
    expect(take(log, third)).toEqual(['b', 'c']);
    log.close(second);
    log.close(third);
    log.append(event('d'));
    expect(take(log, log.open())).toEqual([]);
  });

  test.each([1, 16])('a cursor is full %s times by its own remaining events', (times) => {
    const log = new EventLog(() => undefined);
    const slow = log.open();
    for (let index = 0; index < times * MAX_QUEUED_EVENTS; index++) log.append(event(index));
    const fresh = log.open();
    expect([log.isFull(slow, times), log.isFull(slow, times + 1)]).toEqual([true, false]);
    expect([log.isFull(fresh), log.hasFullCursor(times)]).toEqual([false, true]);
    log.close(slow);
    expect(log.hasFullCursor(1)).toBe(false);
  });
});
