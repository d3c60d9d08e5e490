/** mcast with confirm: resolves when the message came back, rejects when it cannot any more. */
import { encodeEvent } from '../../src/codec';
import { Bench, SHORT_MS, stateOf, turns, type Pair } from '../support/fake-client';
import { cpgError, rejectionOf } from '../support/errors';

const bench = new Bench();

/** A member whose messages come back only when the test says so. */
async function member(timeoutMs?: number): Promise<Pair> {
  const pair = await bench.joined(timeoutMs === undefined ? {} : { timeoutMs });
  pair.connection.echo = false;
  return pair;
}

const confirmed = ({ client }: Pair, message: string | Buffer): Promise<void> =>
  client.mcast(message, { confirm: true });

test('resolves with the own delivery, not before', async () => {
  const pair = await member();
  const sent = confirmed(pair, 'a');
  await pair.connection.untilTaken('mcast');
  expect(await stateOf(sent)).toBe('pending');
  pair.connection.deliver('a');
  await sent;
});

test('the delivery of another member does not count, not even with equal bytes', async () => {
  const pair = await member();
  const sent = confirmed(pair, 'a');
  await pair.connection.untilTaken('mcast');
  pair.connection.deliver('a', 2);
  pair.connection.deliver('a', 1, pair.client.pid + 1);
  expect(await stateOf(sent)).toBe('pending');
  pair.connection.deliver('a');
  await sent;
});

test('a later own message that arrives first means that it was dropped', async () => {
  const pair = await member();
  const first = confirmed(pair, 'a');
  const second = confirmed(pair, 'b');
  const third = confirmed(pair, 'c');
  const lost = rejectionOf(first);
  await pair.connection.untilTaken('mcast', 3);
  pair.connection.deliver('b');
  expect(await lost).toMatchObject(cpgError('CS_ERR_FAILED_OPERATION'));
  await second;
  expect(await stateOf(third)).toBe('pending');
  pair.connection.deliver('c');
  await third;
});

test('the later message need not be one to be confirmed', async () => {
  const pair = await member();
  const lost = rejectionOf(confirmed(pair, 'a'));
  await pair.client.mcast('b');
  await pair.connection.untilTaken('mcast', 2);
  pair.connection.deliver('b');
  expect(await lost).toMatchObject(cpgError('CS_ERR_FAILED_OPERATION'));
});

test('an earlier own message that was not to be confirmed does not count', async () => {
  const pair = await member();
  await pair.client.mcast('before');
  const sent = confirmed(pair, 'a');
  await pair.connection.untilTaken('mcast', 2);
  pair.connection.deliver('before');
  expect(await stateOf(sent)).toBe('pending');
  pair.connection.deliver('a');
  await sent;
});

test('equal bytes are confirmed one delivery each, in order', async () => {
  const pair = await member();
  const all = ['same', 'same', 'same'].map((text) => confirmed(pair, text));
  const order: number[] = [];
  all.forEach((sent, index) => void sent.then(() => order.push(index)));
  await pair.connection.untilTaken('mcast', 3);
  for (const expected of [[0], [0, 1], [0, 1, 2]]) {
    pair.connection.deliver('same');
    await turns();
    expect(order).toEqual(expected);
  }
});

test('messages of equal length, and one that begins like another, are told apart', async () => {
  const pair = await member();
  const first = rejectionOf(confirmed(pair, 'aaaa'));
  const second = rejectionOf(confirmed(pair, 'aa'));
  const third = confirmed(pair, 'aaab');
  await pair.connection.untilTaken('mcast', 3);
  pair.connection.deliver('aaab');
  await third;
  expect(await first).toMatchObject(cpgError('CS_ERR_FAILED_OPERATION'));
  expect(await second).toMatchObject(cpgError('CS_ERR_FAILED_OPERATION'));
});

test('the pieces a message is made of do not matter', async () => {
  const pair = await member();
  const sent = pair.client.mcast([Buffer.from('ab'), Buffer.from(''), Buffer.from('c')], { confirm: true });
  await pair.connection.untilTaken('mcast');
  pair.connection.deliver('abc');
  await sent;
});

test.each(['', 'a message'])('the message %j', async (text) => {
  const pair = await bench.joined();
  await confirmed(pair, text);
});

test('listeners see the delivery as well, and may send on from there', async () => {
  const pair = await bench.joined();
  const seen: string[] = [];
  pair.client.on('deliver', ({ message }) => {
    seen.push(Buffer.from(message).toString());
    if (seen.length === 1) void confirmed(pair, 'second');
  });
  await confirmed(pair, 'first');
  while (seen.length < 2) await turns(5);
  expect(seen).toEqual(['first', 'second']);
});

test('own leave: nothing of ours arrives any more', async () => {
  const pair = await member();
  const sent = rejectionOf(confirmed(pair, 'a'));
  await pair.connection.untilTaken('mcast');
  const member1 = { nodeId: 1, pid: pair.client.pid, reason: 2 };
  const other = { nodeId: 2, pid: pair.client.pid, reason: 2 };
  const change = { type: 'confchg' as const, group: Buffer.from('g'), members: [], joined: [] };
  pair.connection.send({ ...change, left: [other] });
  await turns();
  pair.connection.send({ ...change, left: [member1] });
  expect(await sent).toMatchObject(cpgError('CS_ERR_INTERRUPT'));
});

test('another member leaving changes nothing', async () => {
  const pair = await member();
  const sent = confirmed(pair, 'a');
  await pair.connection.untilTaken('mcast');
  const left = [{ nodeId: 2, pid: pair.client.pid, reason: 5 }];
  pair.connection.send({ type: 'confchg', group: Buffer.from('g'), members: [], left, joined: [] });
  expect(await stateOf(sent)).toBe('pending');
  pair.connection.deliver('a');
  await sent;
});

test('close', async () => {
  const pair = await member();
  const sent = rejectionOf(confirmed(pair, 'a'));
  await pair.client.close();
  expect(await sent).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
});

test('a lost connection', async () => {
  const pair = await member();
  const sent = rejectionOf(confirmed(pair, 'a'));
  await pair.connection.untilTaken('mcast');
  pair.connection.drop();
  expect(await sent).toMatchObject(cpgError('CS_ERR_LIBRARY'));
});

test('the deadline', async () => {
  const pair = await member(SHORT_MS);
  const error = await rejectionOf(confirmed(pair, 'a'));
  expect(error).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
  expect(error.remedy).toContain('may still be delivered');
  // That nobody waits any more does not confuse the next one.
  const next = confirmed(pair, 'b');
  await pair.connection.untilTaken('mcast', 2);
  pair.connection.deliver('a');
  pair.connection.deliver('b');
  await next;
});

test('a signal', async () => {
  const pair = await member();
  const controller = new AbortController();
  const sent = pair.client.mcast('a', { confirm: true, signal: controller.signal });
  sent.catch(() => undefined);
  await pair.connection.untilTaken('mcast');
  controller.abort(new Error('of the test'));
  await expect(sent).rejects.toThrow('of the test');
});

test('a message that was held for too long is not awaited: the next one is confirmed', async () => {
  const pair = await member(SHORT_MS);
  pair.connection.request.flowControl = 1;
  expect(await rejectionOf(confirmed(pair, 'a'))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
  expect(await rejectionOf(pair.client.mcast('b'))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
  pair.connection.request.flowControl = 0;
  const sent = confirmed(pair, 'c');
  await pair.connection.untilTaken('mcast');
  expect(pair.connection.texts.at(-1)).toBe('c');
  pair.connection.deliver('c');
  await sent;
});

test('a message in fragments, begun anew once', async () => {
  const pair = await bench.joined();
  // The echo of the last attempt is what comes back.
  pair.connection.script('partialMcast', 1, 16);
  const bytes = Buffer.alloc(2 ** 20 + 5, 'fragmented');
  await confirmed(pair, bytes);
  expect(pair.connection.taken('partialMcast').map(({ fragmentType }) => fragmentType)).toEqual([1, 3, 1, 3]);
});

test('a message in fragments has its time for coming back once it was sent', async () => {
  const { client, connection } = await bench.joined({ timeoutMs: 2 * SHORT_MS }, { words: 1024 * 1024 });
  connection.echo = false;
  connection.script('partialMcast', 'silence', 'silence', 'silence');
  const message = Buffer.alloc(3 * 1024 * 1024 - 65536);
  const sent = client.mcast(message, { confirm: true });
  sent.catch(() => undefined);
  // Each fragment is answered in time, all together take longer than the limit.
  for (let fragment = 1; fragment <= 3; fragment++) {
    await connection.untilTaken('partialMcast', fragment);
    await new Promise((resolve) => setTimeout(resolve, SHORT_MS));
    connection.respond({ type: 'partialMcast', error: 1 });
  }
  await turns();
  connection.deliver(message);
  await sent;
});

test('a message in fragments whose last one is refused', async () => {
  const pair = await member();
  pair.connection.script('partialMcast', 1, 8);
  const sent = confirmed(pair, Buffer.alloc(2 ** 20 + 5));
  expect(await rejectionOf(sent)).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
  const next = confirmed(pair, 'next');
  await pair.connection.untilTaken('mcast');
  pair.connection.deliver('next');
  await next;
});

test('many at once, some of them dropped: each is told rightly', async () => {
  const pair = await bench.joined({}, { words: 2048 });
  const { client, connection } = pair;
  connection.echo = false;
  const all = Array.from({ length: 500 }, (_, index) => client.mcast(`${index}`, { confirm: true }));
  const results = Promise.allSettled(all);
  await connection.untilTaken('mcast', 500);
  const kept = (index: number): boolean => index % 7 !== 3 || index === 499;
  for (let index = 0; index < 500; index++) {
    const message = Buffer.from(`${index}`);
    if (kept(index)) {
      connection.send(
        encodeEvent({ type: 'deliver', group: Buffer.from('g'), nodeId: 1, pid: client.pid, message }),
      );
    }
  }
  const outcomes = (await results).map(({ status }) => status === 'fulfilled');
  expect(outcomes).toEqual(Array.from({ length: 500 }, (_, index) => kept(index)));
});
