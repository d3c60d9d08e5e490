/** mcast with confirm: resolves when the message came back, rejects once it cannot. */
import type { CpgError } from '../../src';
import { encodeEvent } from '../../src/codec';
import { Random } from '../../src/server/random';
import { ClientHarness, SHORT_MS, stateOf, turns, type Pair } from '../support/fake-client';
import { cpgError, rejectionOf } from '../support/errors';

const harness = new ClientHarness();

/** A member whose messages come back only on request of the test. */
async function member(timeoutMs?: number): Promise<Pair> {
  const pair = await harness.joined(timeoutMs === undefined ? {} : { timeoutMs });
  pair.connection.echo = false;
  return pair;
}

const confirmed = ({ client }: Pair, message: string | Buffer): Promise<void> =>
  client.mcast(message, { confirm: true });

test('resolves when our own message is delivered, not before', async () => {
  const pair = await member();
  const sent = confirmed(pair, 'a');
  await pair.connection.untilTaken('mcast');
  expect(await stateOf(sent)).toBe('pending');
  pair.connection.deliver('a');
  await sent;
});

test('a delivery from another member does not count, even with equal bytes', async () => {
  const pair = await member();
  const sent = confirmed(pair, 'a');
  await pair.connection.untilTaken('mcast');
  pair.connection.deliver('a', 2);
  pair.connection.deliver('a', 1, pair.client.pid + 1);
  expect(await stateOf(sent)).toBe('pending');
  pair.connection.deliver('a');
  await sent;
});

test('if a later message of ours arrives first, it was dropped', async () => {
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

describe('unconfirmed messages among confirmed ones', () => {
  const [FIRST] = [1];

  /** The fence that keeps the next message apart from those before it, once the daemon has it. */
  async function fence({ connection }: Pair, count = 1): Promise<void> {
    await connection.untilTaken('partialMcast', count);
    expect(connection.taken('partialMcast').at(-1)).toMatchObject({ fragmentType: FIRST, messageLength: 1 });
    expect(connection.taken('partialMcast').at(-1)!.fragment).toHaveLength(0);
  }

  test('a later one shows that a confirmed one was dropped', async () => {
    const pair = await member();
    const lost = rejectionOf(confirmed(pair, 'a'));
    await pair.client.mcast('b');
    await fence(pair);
    await pair.connection.untilTaken('mcast', 2);
    expect(await stateOf(lost)).toBe('pending');
    pair.connection.deliverFence();
    pair.connection.deliver('b');
    expect(await lost).toMatchObject(cpgError('CS_ERR_FAILED_OPERATION'));
  });

  test.each(['a', 'before'])('one in flight, %j, is not taken for the confirmed one', async (before) => {
    const pair = await member();
    await pair.client.mcast(before);
    const sent = confirmed(pair, 'a');
    await fence(pair);
    await pair.connection.untilTaken('mcast', 2);
    pair.connection.deliver(before);
    pair.connection.deliverFence();
    expect(await stateOf(sent)).toBe('pending');
    pair.connection.deliver('a');
    await sent;
  });

  test('equal bytes: the one before was dropped, the confirmed one was not', async () => {
    const pair = await member();
    await pair.client.mcast('same');
    const sent = confirmed(pair, 'same');
    await fence(pair);
    await pair.connection.untilTaken('mcast', 2);
    pair.connection.deliverFence();
    pair.connection.deliver('same');
    await sent;
  });

  test('equal bytes: the confirmed one was dropped, those before and after it were not', async () => {
    const pair = await member();
    await pair.client.mcast('same');
    const lost = rejectionOf(confirmed(pair, 'same'));
    const after = pair.client.mcast('same');
    await fence(pair, 2);
    await after;
    pair.connection.deliver('same');
    pair.connection.deliverFence();
    pair.connection.deliverFence();
    pair.connection.deliver('same');
    expect(await lost).toMatchObject(cpgError('CS_ERR_FAILED_OPERATION'));
  });

  test('no fence when all or none are confirmed, or each is awaited', async () => {
    const pair = await harness.joined();
    await Promise.all(['a', 'a', 'b'].map((text) => confirmed(pair, text)));
    for (const text of ['c', 'd', 'c']) {
      await confirmed(pair, text);
      await pair.client.mcast(text);
      // It comes back before the next one is sent.
      await pair.client.localNodeId();
      await turns();
    }
    for (let count = 0; count < 100; count++) await pair.client.mcast('e');
    expect(pair.connection.taken('partialMcast')).toEqual([]);
  });

  test('the fence is retried while the daemon cannot take it, and the order is kept', async () => {
    const pair = await member();
    await pair.client.mcast('a');
    pair.connection.script('partialMcast', 6, 6);
    const all = Promise.all([confirmed(pair, 'b'), pair.client.mcast('c')]);
    await fence(pair, 3);
    await pair.connection.untilTaken('mcast', 3);
    expect(pair.connection.texts).toEqual(['a', 'b', 'c']);
    for (const text of ['a', '|', 'b', '|', 'c']) {
      if (text === '|') pair.connection.deliverFence();
      else pair.connection.deliver(text);
    }
    await all;
  });

  test('a refused fence fails only the message after it', async () => {
    const pair = await member();
    await pair.client.mcast('a');
    pair.connection.script('partialMcast', 8);
    expect(await rejectionOf(confirmed(pair, 'b'))).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
    const sent = confirmed(pair, 'c');
    await fence(pair, 2);
    await pair.connection.untilTaken('mcast', 2);
    for (const text of ['a', '|', 'c']) {
      if (text === '|') pair.connection.deliverFence();
      else pair.connection.deliver(text);
    }
    await sent;
    expect(pair.connection.texts).toEqual(['a', 'c']);
  });

  test('tryMcast returns false while it waits for a fence, and drain follows', async () => {
    const pair = await member();
    const sent = confirmed(pair, 'a');
    await pair.connection.untilTaken('mcast');
    const drained = new Promise<void>((resolve) => pair.client.once('drain', resolve));
    expect(pair.client.tryMcast('b')).toBe(false);
    await drained;
    expect(pair.client.tryMcast('b')).toBe(true);
    await pair.connection.untilTaken('mcast', 2);
    pair.connection.deliver('a');
    pair.connection.deliverFence();
    pair.connection.deliver('b');
    await sent;
  });

  test('the delivery of a fence before the reply to it', async () => {
    const pair = await member();
    await pair.client.mcast('a');
    pair.connection.script('partialMcast', 'silence');
    const sent = confirmed(pair, 'a');
    await fence(pair);
    pair.connection.deliver('a');
    pair.connection.deliverFence();
    await turns();
    pair.connection.respond({ type: 'partialMcast', error: 1 });
    await pair.connection.untilTaken('mcast', 2);
    expect(await stateOf(sent)).toBe('pending');
    pair.connection.deliver('a');
    await sent;
  });

  test('fences of others, and first fragments of our large messages, are ignored', async () => {
    const pair = await member();
    const sent = confirmed(pair, 'a');
    await pair.connection.untilTaken('mcast');
    const foreign = { group: Buffer.from('g'), nodeId: 2, pid: pair.client.pid };
    pair.connection.send({
      type: 'partialDeliver',
      ...foreign,
      messageLength: 1,
      fragmentType: FIRST,
      fragment: Buffer.alloc(0),
    });
    pair.connection.deliverFragment(Buffer.alloc(5), 10, FIRST);
    expect(await stateOf(sent)).toBe('pending');
    pair.connection.deliver('a');
    await sent;
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'any mixture, any drops: each outcome is correct (seed %i)',
    async (seed) => {
      const random = new Random(seed);
      const pair = await member();
      const { client, connection } = pair;
      const fates: { text: string; kept: boolean; outcome?: Promise<string> }[] = [];
      for (let index = 0; index < 60; index++) {
        // Few texts, so that many have equals beside them, and some that are alone.
        const text = random.below(2) === 0 ? `${random.below(3)}` : `only ${index}`;
        const kept = random.next() < 0.7;
        if (random.below(2) === 0) {
          void client.mcast(text);
          fates.push({ text, kept });
        } else {
          const sent = client.mcast(text, { confirm: true });
          fates.push({
            text,
            kept,
            outcome: sent.then(
              () => 'delivered',
              (error: unknown) => (error as CpgError).code,
            ),
          });
        }
      }
      const large = client.mcast(Buffer.alloc(2 ** 20), { confirm: true });
      await connection.until(() =>
        connection.taken('partialMcast').some(({ fragmentType }) => fragmentType === 3),
      );
      // The daemon's order is that of the requests.
      let message = 0;
      for (const request of connection.requests) {
        if (request.type === 'mcast') {
          const { text, kept } = fates[message++]!;
          expect(Buffer.from(request.message).toString()).toBe(text);
          if (kept) connection.deliver(text);
        } else if (request.type === 'partialMcast') {
          connection.deliverFragment(request.fragment, request.messageLength, request.fragmentType);
        }
      }
      await large;
      // Whatever was dropped at the end is known by the next fence.
      await client.mcast('end');
      connection.deliverFence();
      const received = await Promise.all(fates.map(async ({ outcome }) => await outcome));
      const delivered = (text: string, values: unknown[]): number =>
        fates.filter((fate, index) => fate.text === text && values[index] === 'delivered').length;
      const really = fates.map(({ kept, outcome }) => outcome !== undefined && kept && 'delivered');
      // Of equal messages in a row nobody can say which one was dropped, but how many were.
      for (const { text } of fates) expect(delivered(text, received)).toBe(delivered(text, really));
      expect(new Set(received)).toEqual(new Set([undefined, 'delivered', 'CS_ERR_FAILED_OPERATION']));
    },
  );
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

test('messages of equal length, or with a common prefix, are distinguished', async () => {
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

test('the split into pieces does not matter', async () => {
  const pair = await member();
  const sent = pair.client.mcast([Buffer.from('ab'), Buffer.from(''), Buffer.from('c')], { confirm: true });
  await pair.connection.untilTaken('mcast');
  pair.connection.deliver('abc');
  await sent;
});

test.each(['', 'a message'])('the message %j', async (text) => {
  const pair = await harness.joined();
  await confirmed(pair, text);
});

test('listeners see the delivery too, and may send from there', async () => {
  const pair = await harness.joined();
  const seen: string[] = [];
  pair.client.on('deliver', ({ message }) => {
    seen.push(Buffer.from(message).toString());
    if (seen.length === 1) void confirmed(pair, 'second');
  });
  await confirmed(pair, 'first');
  while (seen.length < 2) await turns(5);
  expect(seen).toEqual(['first', 'second']);
});

test('our own leave: none of our messages arrives any more', async () => {
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

test('the leave of another member changes nothing', async () => {
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

test('a message that timed out in the queue is not awaited: the next one is confirmed', async () => {
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

test('a fragmented message that restarts once', async () => {
  const pair = await harness.joined();
  // The echo of the last attempt is what comes back.
  pair.connection.script('partialMcast', 1, 16);
  const bytes = Buffer.alloc(2 ** 20 + 5, 'fragmented');
  await confirmed(pair, bytes);
  expect(pair.connection.taken('partialMcast').map(({ fragmentType }) => fragmentType)).toEqual([1, 3, 1, 3]);
});

test('the confirmation deadline of a fragmented message starts once it was sent', async () => {
  const { client, connection } = await harness.joined({ timeoutMs: 2 * SHORT_MS }, { words: 1024 * 1024 });
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
  connection.deliverFragment(message.subarray(-10), message.length);
  await sent;
});

test('a fragmented message whose last fragment is refused', async () => {
  const pair = await member();
  pair.connection.script('partialMcast', 1, 8);
  const sent = confirmed(pair, Buffer.alloc(2 ** 20 + 5));
  expect(await rejectionOf(sent)).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
  const next = confirmed(pair, 'next');
  await pair.connection.untilTaken('mcast');
  pair.connection.deliver('next');
  await next;
});

test('many at once, some dropped: each outcome is correct', async () => {
  const pair = await harness.joined({}, { words: 2048 });
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
