/** The events that wait for a loop. */
import { EventQueue, MAX_QUEUED_EVENT_BYTES, MAX_QUEUED_EVENTS } from '../../src/dispatcher/event-queue';
import type { CpgEvent } from '../../src';

const event = (text: string | number, bytes = 0): CpgEvent => ({
  type: 'deliver',
  group: `${text}`,
  nodeId: 1,
  pid: 1,
  message: new Uint8Array(bytes),
});

let taken: number;
let returned: number;
let queue: EventQueue;
beforeEach(() => {
  taken = 0;
  returned = 0;
  queue = new EventQueue(
    () => taken++,
    () => returned++,
  );
});

test('events come out in order, whether they or the loop came first', async () => {
  queue.push(event(1));
  const waiting = [queue.next(), queue.next(), queue.next()];
  queue.push(event(2));
  queue.push(event(3));
  queue.push(event(4));
  const results = await Promise.all([...waiting, queue.next()]);
  expect(results).toEqual([1, 2, 3, 4].map((text) => ({ value: event(text), done: false })));
});

test('it is full by number', async () => {
  for (let index = 0; index < MAX_QUEUED_EVENTS; index++) {
    expect(queue.full).toBe(false);
    queue.push(event(index));
  }
  expect(queue.full).toBe(true);
  await queue.next();
  expect(queue.full).toBe(false);
  expect(taken).toBe(1);
  await queue.next();
  expect(taken).toBe(1);
});

test('it is full by bytes', async () => {
  const half = MAX_QUEUED_EVENT_BYTES / 2;
  queue.push(event(1, half));
  expect(queue.full).toBe(false);
  queue.push(event(2, half));
  expect(queue.full).toBe(true);
  await queue.next();
  expect([queue.full, taken]).toEqual([false, 1]);
});

test('at its end it hands out what it has, then it is done, again and again', async () => {
  queue.push(event(1));
  queue.end();
  queue.push(event(2));
  expect(await queue.next()).toEqual({ value: event(1), done: false });
  expect(await queue.next()).toEqual({ value: undefined, done: true });
  expect(await queue.next()).toEqual({ value: undefined, done: true });
});

test('an error is told once, behind the events', async () => {
  const error = new Error('of the test');
  queue.push(event(1));
  queue.end(error);
  queue.end(new Error('another'));
  expect(await queue.next()).toEqual({ value: event(1), done: false });
  await expect(queue.next()).rejects.toBe(error);
  expect(await queue.next()).toEqual({ value: undefined, done: true });
});

test('an error reaches the one that waits longest', async () => {
  const error = new Error('of the test');
  const waiting = [queue.next(), queue.next()];
  queue.end(error);
  const results = await Promise.allSettled(waiting);
  expect(results).toEqual([
    { status: 'rejected', reason: error },
    { status: 'fulfilled', value: { value: undefined, done: true } },
  ]);
});

test('a loop that is left gives up what it has, and is not full any more', async () => {
  for (let index = 0; index < MAX_QUEUED_EVENTS; index++) queue.push(event(index));
  const waiting = await queue.return();
  expect(waiting).toEqual({ value: undefined, done: true });
  expect([queue.full, returned]).toEqual([false, 1]);
  expect(await queue.next()).toEqual({ value: undefined, done: true });
});
