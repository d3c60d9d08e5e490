/** Messages larger than a frame: fragments, each answered; whole or not at all. */
import { Guarantee } from '../../src';
import { ClientHarness, SHORT_MS, turns, type Pair } from '../support/fake-client';
import { cpgError, rejectionOf, thrownBy } from '../support/errors';

const harness = new ClientHarness();

const ATOMIC = 1024 * 1024 - 1024;
/** The payload of a fragment, whose header is 16 bytes longer than that of a message. */
const FRAGMENT = ATOMIC - 16;
const LIMIT = 64 * 1024 * 1024;
const [FIRST, CONTINUED, LAST] = [1, 2, 3];
const [TRY_AGAIN, INTERRUPT] = [6, 16];

/** Bytes that differ between fragments. */
function message(length: number): Buffer {
  const bytes = Buffer.alloc(length, 'abcdefghijklmnopqrstuvwxyz0123456789-');
  for (let offset = 0; offset < length; offset += 4096) bytes[offset] = (offset >> 12) & 0xff;
  return bytes;
}

const types = ({ connection }: Pair): number[] =>
  connection.taken('partialMcast').map(({ fragmentType }) => fragmentType);

/** The bytes of all fragments since the last first fragment. */
function assembled({ connection }: Pair): Buffer {
  const fragments = connection.taken('partialMcast');
  const start = fragments.findLastIndex(({ fragmentType }) => fragmentType === FIRST);
  return Buffer.concat(fragments.slice(start).map(({ fragment }) => fragment));
}

test('a message of one frame is not fragmented, one byte more is', async () => {
  const pair = await harness.joined();
  pair.connection.echo = false;
  expect(pair.client.maxAtomicMessageSize).toBe(ATOMIC);
  await pair.client.mcast(Buffer.alloc(ATOMIC));
  await pair.connection.untilTaken('mcast');
  expect(types(pair)).toEqual([]);
  await pair.client.mcast(Buffer.alloc(ATOMIC + 1));
  expect(types(pair)).toEqual([FIRST, LAST]);
  expect(pair.connection.taken('partialMcast').map(({ fragment }) => fragment.length)).toEqual([
    FRAGMENT,
    17,
  ]);
});

test.each([
  [2 * FRAGMENT, [FIRST, LAST]],
  [2 * FRAGMENT + 1, [FIRST, CONTINUED, LAST]],
  [3 * FRAGMENT - 1, [FIRST, CONTINUED, LAST]],
  [4 * FRAGMENT, [FIRST, CONTINUED, CONTINUED, LAST]],
])('%i bytes', async (length, expected) => {
  const pair = await harness.joined();
  pair.connection.echo = false;
  const bytes = message(length);
  await pair.client.mcast([bytes.subarray(0, 5), bytes.subarray(5)], { guarantee: 'SAFE' });
  expect(types(pair)).toEqual(expected);
  expect(assembled(pair).equals(bytes)).toBe(true);
  for (const { messageLength, guarantee } of pair.connection.taken('partialMcast')) {
    expect([messageLength, guarantee]).toEqual([length, Guarantee.SAFE]);
  }
});

test('one fragment is in flight at a time', async () => {
  const pair = await harness.joined();
  pair.connection.script('partialMcast', 'silence', 'silence');
  const sent = pair.client.mcast(message(2 * FRAGMENT));
  await pair.connection.untilTaken('partialMcast');
  await turns();
  expect(types(pair)).toEqual([FIRST]);
  pair.connection.respond({ type: 'partialMcast', error: 1 });
  await pair.connection.untilTaken('partialMcast', 2);
  pair.connection.respond({ type: 'partialMcast', error: 1 });
  await sent;
});

test('CS_ERR_TRY_AGAIN repeats the fragment, and no other', async () => {
  const pair = await harness.joined();
  pair.connection.echo = false;
  pair.connection.script('partialMcast', 1, TRY_AGAIN, TRY_AGAIN, 1, TRY_AGAIN);
  const bytes = message(3 * FRAGMENT);
  await pair.client.mcast(bytes);
  expect(types(pair)).toEqual([FIRST, CONTINUED, CONTINUED, CONTINUED, LAST, LAST]);
  const fragments = pair.connection.taken('partialMcast').map(({ fragment }) => fragment);
  expect(Buffer.compare(fragments[1]!, fragments[2]!)).toBe(0);
  expect(Buffer.concat([fragments[0]!, fragments[3]!, fragments[5]!]).equals(bytes)).toBe(true);
});

test.each([
  ['in the first', [INTERRUPT], [FIRST, FIRST, CONTINUED, LAST]],
  ['in the middle', [1, INTERRUPT], [FIRST, CONTINUED, FIRST, CONTINUED, LAST]],
  ['in the last', [1, 1, INTERRUPT], [FIRST, CONTINUED, LAST, FIRST, CONTINUED, LAST]],
])('CS_ERR_INTERRUPT %s restarts the message', async (_, script, expected) => {
  const pair = await harness.joined();
  pair.connection.echo = false;
  pair.connection.script('partialMcast', ...script);
  const bytes = message(2 * FRAGMENT + 100);
  await pair.client.mcast(bytes);
  expect(types(pair)).toEqual(expected);
  expect(assembled(pair).equals(bytes)).toBe(true);
});

test('endless CS_ERR_INTERRUPT is given up', async () => {
  const pair = await harness.joined();
  pair.connection.script('partialMcast', ...Array.from({ length: 100 }, () => INTERRUPT));
  expect(await rejectionOf(pair.client.mcast(message(ATOMIC + 1)))).toMatchObject(
    cpgError('CS_ERR_INTERRUPT'),
  );
  expect(types(pair).length).toBeLessThan(20);
  // The handle goes on.
  await pair.client.localNodeId();
});

test('any other error rejects the message, and the next one is sent', async () => {
  const pair = await harness.joined();
  pair.connection.echo = false;
  pair.connection.script('partialMcast', 1, 8);
  const refused = rejectionOf(pair.client.mcast(message(3 * FRAGMENT)));
  const next = pair.client.mcast('next');
  expect(await refused).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
  await next;
  await pair.connection.untilTaken('mcast');
  expect(types(pair)).toEqual([FIRST, CONTINUED]);
  expect(pair.connection.texts).toEqual(['next']);
});

test('later messages wait for its end', async () => {
  const pair = await harness.joined();
  pair.connection.echo = false;
  const before = pair.connection.requests.length;
  const first = pair.client.mcast(message(2 * FRAGMENT));
  const second = pair.client.mcast('behind');
  const third = pair.client.mcast(message(2 * FRAGMENT));
  await Promise.all([first, second, third]);
  expect(pair.connection.requests.slice(before).map(({ type }) => type)).toEqual([
    'partialMcast',
    'partialMcast',
    'mcast',
    'partialMcast',
    'partialMcast',
  ]);
});

test('each accepted fragment restarts the deadline', async () => {
  const pair = await harness.joined({ timeoutMs: 800 });
  pair.connection.echo = false;
  // Pauses of 5 to 160 ms, 315 for each fragment: less than the limit, and together more.
  const slow = [TRY_AGAIN, TRY_AGAIN, TRY_AGAIN, TRY_AGAIN, TRY_AGAIN, TRY_AGAIN, 1];
  pair.connection.script('partialMcast', ...slow, ...slow, ...slow, ...slow);
  const bytes = message(4 * FRAGMENT);
  await pair.client.mcast(bytes);
  expect(types(pair)).toHaveLength(28);
});

test('a fragment without an answer ends in CS_ERR_TIMEOUT; its late answer is not taken for another', async () => {
  const pair = await harness.joined({ timeoutMs: SHORT_MS });
  pair.connection.echo = false;
  pair.connection.script('partialMcast', 1, 'silence');
  expect(await rejectionOf(pair.client.mcast(message(3 * FRAGMENT)))).toMatchObject(
    cpgError('CS_ERR_TIMEOUT'),
  );
  pair.connection.respond({ type: 'partialMcast', error: 1 });
  const bytes = message(2 * FRAGMENT);
  await pair.client.mcast(bytes);
  expect(types(pair)).toEqual([FIRST, CONTINUED, FIRST, LAST]);
  expect(assembled(pair).equals(bytes)).toBe(true);
});

test('a signal stops it between fragments', async () => {
  const pair = await harness.joined();
  pair.connection.script('partialMcast', 1, 'silence');
  const controller = new AbortController();
  const sent = pair.client.mcast(message(4 * FRAGMENT), { signal: controller.signal });
  sent.catch(() => undefined);
  await pair.connection.untilTaken('partialMcast', 2);
  controller.abort(new Error('of the test'));
  await expect(sent).rejects.toThrow('of the test');
  pair.connection.respond({ type: 'partialMcast', error: 1 });
  await pair.client.localNodeId();
  expect(types(pair)).toEqual([FIRST, CONTINUED]);
});

test('close() in the middle rejects it', async () => {
  const pair = await harness.joined({ timeoutMs: SHORT_MS });
  pair.connection.script('partialMcast', 'silence');
  const sent = rejectionOf(pair.client.mcast(message(4 * FRAGMENT)));
  await pair.connection.untilTaken('partialMcast');
  await pair.client.close();
  expect((await sent).code).toMatch(/CS_ERR_(TIMEOUT|BAD_HANDLE)/);
});

test('64 MiB are sent, one byte more is CS_ERR_TOO_BIG and nothing is sent', async () => {
  const pair = await harness.joined({ timeoutMs: 30_000 });
  pair.connection.echo = false;
  const bytes = message(LIMIT);
  const tooBig = Buffer.alloc(LIMIT + 1);
  expect(await rejectionOf(pair.client.mcast(tooBig))).toMatchObject(cpgError('CS_ERR_TOO_BIG'));
  expect(await rejectionOf(pair.client.mcast([bytes, Buffer.alloc(1)]))).toMatchObject(
    cpgError('CS_ERR_TOO_BIG'),
  );
  expect(await rejectionOf(pair.client.mcast(tooBig, { confirm: true }))).toMatchObject(
    cpgError('CS_ERR_TOO_BIG'),
  );
  expect(thrownBy(() => pair.client.tryMcast(tooBig))).toMatchObject(cpgError('CS_ERR_TOO_BIG'));
  expect(thrownBy(() => pair.client.alloc(LIMIT + 1))).toMatchObject(cpgError('CS_ERR_TOO_BIG'));
  await pair.client.localNodeId();
  expect(types(pair)).toEqual([]);
  await pair.client.mcast(bytes);
  expect(assembled(pair).equals(bytes)).toBe(true);
});
