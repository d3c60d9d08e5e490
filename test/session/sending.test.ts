/** Sending messages into the daemon's ring: batches, flow control, a full ring, the limits. */
import { once } from 'node:events';
import { MAX_QUEUED_BYTES } from '../../src/session/outbox';
import { ShmTransport } from '../../src/transport/shm-transport';
import { ClientHarness, SHORT_MS, stateOf, turns, type Pair } from '../support/fake-client';
import { cpgError, rejectionOf, thrownBy } from '../support/errors';

const harness = new ClientHarness();

/** A ring that is full after a few dozen small messages. */
const SMALL = { words: 1024 };
const ATOMIC = 1024 * 1024 - 1024;

const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => `${index}`);

describe('a message', () => {
  test.each([
    ['text', 'größe', Buffer.from('größe')],
    ['nothing', '', Buffer.alloc(0)],
    ['no pieces', [], Buffer.alloc(0)],
    ['bytes', Uint8Array.from([0, 1, 255]), Buffer.from([0, 1, 255])],
    ['pieces', [Buffer.from('a'), new Uint8Array(), Buffer.from('bc')], Buffer.from('abc')],
    ['the largest that is not fragmented', Buffer.alloc(ATOMIC, 7), Buffer.alloc(ATOMIC, 7)],
  ])('%s arrives as it is', async (_, message, expected) => {
    const { client, connection } = await harness.joined();
    await client.mcast(message);
    // The ring holds but one of the largest.
    await connection.untilTaken('mcast');
    expect(client.tryMcast(message)).toBe(true);
    await connection.untilTaken('mcast', 2);
    for (const taken of connection.taken('mcast')) expect(Buffer.compare(taken.message, expected)).toBe(0);
  });

  test.each([null, undefined, 5, {}, ['a'], [Buffer.from('a'), 5]])('%j is refused', async (message) => {
    const { client } = await harness.joined();
    expect(await rejectionOf(client.mcast(message as never))).toMatchObject(cpgError('CS_ERR_INVALID_PARAM'));
    expect(thrownBy(() => client.tryMcast(message as never))).toMatchObject(cpgError('CS_ERR_INVALID_PARAM'));
  });

  test('its guarantee is in the request', async () => {
    const { client, connection } = await harness.joined();
    for (const guarantee of ['UNORDERED', 'FIFO', 'AGREED', 'SAFE'] as const)
      await client.mcast('m', { guarantee });
    await client.mcast('m');
    await connection.untilTaken('mcast', 5);
    expect(connection.taken('mcast').map(({ guarantee }) => guarantee)).toEqual([0, 1, 2, 3, 2]);
  });

  test('memory from alloc() can be filled and sent repeatedly, including near the end of the ring', async () => {
    const { client, connection } = await harness.joined({}, SMALL);
    for (const size of [0, 1, 2, 3, 4, 5, 100, 1000]) {
      const message = client.alloc(size);
      expect(message).toHaveLength(size);
      for (const filling of [1, 2]) {
        message.fill(filling);
        await client.mcast(message);
        await turns(2);
      }
    }
    await connection.untilTaken('mcast', 16);
    const taken = connection.taken('mcast').map(({ message }) => Buffer.from(message));
    const expected = [0, 1, 2, 3, 4, 5, 100, 1000].flatMap((size) => [
      Buffer.alloc(size, 1),
      Buffer.alloc(size, 2),
    ]);
    expect(taken).toEqual(expected);
  });

  test('a part of memory from alloc() is a message like any other', async () => {
    const { client, connection } = await harness.joined();
    const memory = client.alloc(10).fill(5);
    await client.mcast(memory.subarray(2, 6));
    await connection.untilTaken('mcast');
    expect(connection.taken('mcast')[0]!.message).toEqual(Buffer.alloc(4, 5));
  });

  test.each([-1, 1.5, NaN, Infinity])('alloc(%d) is refused', async (size) => {
    const { client } = await harness.joined();
    expect(thrownBy(() => client.alloc(size))).toMatchObject(cpgError('CS_ERR_INVALID_PARAM'));
  });
});

test('thousands of messages pass unchanged through a ring of 4 KiB', async () => {
  const { client, connection } = await harness.joined({}, SMALL);
  const seen: string[] = [];
  client.on('deliver', ({ message }) => seen.push(Buffer.from(message).toString()));
  const expected: string[] = [];
  const sent: Promise<void>[] = [];
  for (let index = 0; index < 3000; index++) {
    const text = `${index} ${'x'.repeat((index * 7) % 200)}`;
    expected.push(text);
    sent.push(client.mcast(text));
  }
  await Promise.all(sent);
  await connection.untilTaken('mcast', 3000);
  while (seen.length < 3000) await turns(5);
  expect(connection.texts).toEqual(expected);
  expect(seen).toEqual(expected);
});

describe('flow control', () => {
  test.each([1, 2])('%i: nothing is sent until it is 0 again; then all, in order', async (value) => {
    const pair = await harness.joined();
    const { client, connection } = pair;
    connection.request.flowControl = value;
    expect(client.flowControl).toBe(true);
    const sent = numbers(10).map((text) => client.mcast(text));
    expect(await stateOf(sent[0]!)).toBe('pending');
    expect(connection.request.semaphore).toBe(0);
    expect(connection.texts).toEqual([]);
    connection.request.flowControl = 0;
    await Promise.all(sent);
    expect(client.flowControl).toBe(false);
    await connection.untilTaken('mcast', 10);
    expect(connection.texts).toEqual(numbers(10));
  });

  test('held for too long: CS_ERR_TIMEOUT, and nothing is sent', async () => {
    const pair = await harness.joined({ timeoutMs: SHORT_MS }, SMALL);
    const { client, connection } = pair;
    connection.request.flowControl = 1;
    const lost = numbers(200).map((text) => rejectionOf(client.mcast(text)));
    const fragmented = rejectionOf(client.mcast(Buffer.alloc(2 ** 21)));
    for (const error of await Promise.all(lost)) expect(error).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(await fragmented).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    connection.request.flowControl = 0;
    await client.mcast('after');
    await connection.untilTaken('mcast');
    await client.localNodeId();
    expect(connection.texts).toEqual(['after']);
    expect(connection.taken('partialMcast')).toEqual([]);
  });

  test('a held request times out and is not sent either', async () => {
    const { client, connection } = await harness.joined({ timeoutMs: SHORT_MS });
    connection.request.flowControl = 2;
    expect(await rejectionOf(client.membership())).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    connection.request.flowControl = 0;
    expect(await client.localNodeId()).toBe(1);
    expect(connection.taken('localGet')).toHaveLength(2);
  });

  test('the message timeout restarts whenever the daemon takes some', async () => {
    const { client, connection } = await harness.joined({ timeoutMs: 2.5 * SHORT_MS });
    const { request } = connection;
    // Each is held for less than the limit, all together for longer.
    for (const text of numbers(4)) {
      request.flowControl = 1;
      const sent = client.mcast(text);
      setTimeout(() => (request.flowControl = 0), SHORT_MS);
      await sent;
    }
    await connection.untilTaken('mcast', 4);
    expect(connection.texts).toEqual(numbers(4));
  });
});

describe('a daemon that is stopped', () => {
  test('all time out; the error says which are sent when it resumes, and which are not', async () => {
    const { client, connection } = await harness.joined({ timeoutMs: SHORT_MS }, SMALL);
    connection.hold();
    await client.mcast('posted');
    const errors = await Promise.all(numbers(200).map((text) => rejectionOf(client.mcast(text))));
    for (const error of errors) expect(error).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    const staged = errors.filter(({ message }) => message.includes('is sent once the daemon goes on')).length;
    expect(staged).toBeGreaterThan(10);
    for (const { message } of errors.slice(staged)) expect(message).toContain('nothing of it was sent');
    expect(errors.length).toBeGreaterThan(staged);
    connection.release();
    await client.mcast('after');
    await connection.untilTaken('mcast', staged + 2);
    expect(connection.texts).toEqual(['posted', ...numbers(staged), 'after']);
  });
});

describe('tryMcast', () => {
  test.each(['close', 'a lost connection'])(
    'drain also follows the end of the connection: %s',
    async (end) => {
      const { client, connection } = await harness.joined({}, { words: 1024 });
      connection.hold();
      const sending = (async () => {
        for (;;) while (!client.tryMcast('m')) await once(client, 'drain');
      })();
      sending.catch(() => undefined);
      await turns();
      if (end === 'close') void client.close();
      else connection.drop();
      await expect(sending).rejects.toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
    },
  );

  test('returns false when the ring is full; drain follows when there is room, and nothing is lost', async () => {
    const { client, connection } = await harness.joined({}, SMALL);
    connection.hold();
    let taken = 0;
    while (client.tryMcast(`${taken}`)) taken++;
    expect(taken).toBeGreaterThan(10);
    expect(client.tryMcast('no')).toBe(false);
    const drain = once(client, 'drain');
    connection.release();
    await drain;
    expect(client.tryMcast(`${taken}`)).toBe(true);
    await connection.untilTaken('mcast', taken + 1);
    expect(connection.texts).toEqual(numbers(taken + 1));
  });

  test('returns false under flow control; drain follows when it ends', async () => {
    const { client, connection } = await harness.joined({}, SMALL);
    connection.request.flowControl = 1;
    expect(client.tryMcast('no')).toBe(false);
    const drain = new Promise<void>((resolve) => client.once('drain', resolve));
    await turns();
    expect(client.tryMcast('no')).toBe(false);
    connection.request.flowControl = 0;
    await drain;
    expect(client.tryMcast('yes')).toBe(true);
    await connection.untilTaken('mcast', 1);
    expect(connection.texts).toEqual(['yes']);
  });

  test('a message accepted before flow control is sent after it, however long it lasts', async () => {
    const { client, connection } = await harness.joined({ timeoutMs: SHORT_MS });
    connection.hold();
    for (const text of numbers(3)) expect(client.tryMcast(text)).toBe(true);
    connection.request.flowControl = 1;
    connection.release();
    await connection.untilTaken('mcast', 1);
    // The client has looked by then.
    await turns();
    expect(await rejectionOf(client.mcast('too late'))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    connection.request.flowControl = 0;
    await connection.untilTaken('mcast', 3);
    expect(connection.texts).toEqual(numbers(3));
  });

  test('does not overtake queued messages', async () => {
    const { client, connection } = await harness.joined();
    connection.script('localGet', 'silence');
    const request = client.localNodeId();
    const second = client.membership();
    expect(client.tryMcast('no')).toBe(false);
    const drain = new Promise<void>((resolve) => client.once('drain', resolve));
    await connection.untilTaken('localGet', 2);
    connection.respond({ type: 'localGet', error: 1, nodeId: 1 });
    await Promise.all([request, second, drain]);
    expect(client.tryMcast('yes')).toBe(true);
    await connection.untilTaken('mcast');
    expect(connection.texts).toEqual(['yes']);
  });

  test('a message for fragments is CS_ERR_TOO_BIG', async () => {
    const { client } = await harness.joined();
    expect(client.tryMcast(Buffer.alloc(ATOMIC))).toBe(true);
    expect(thrownBy(() => client.tryMcast(Buffer.alloc(ATOMIC + 1)))).toMatchObject(
      cpgError('CS_ERR_TOO_BIG'),
    );
  });

  test('copies the bytes: they may change immediately', async () => {
    const { client, connection } = await harness.joined();
    const bytes = Buffer.from('as it was');
    expect(client.tryMcast(bytes)).toBe(true);
    bytes.fill(0);
    await connection.untilTaken('mcast');
    expect(connection.texts).toEqual(['as it was']);
  });
});

describe('the queue is bounded', () => {
  test('above the limit it is CS_ERR_TRY_AGAIN, and the others are still sent', async () => {
    const { client, connection } = await harness.joined();
    connection.echo = false;
    connection.request.flowControl = 1;
    const bytes = Buffer.alloc(ATOMIC);
    const sent: Promise<void>[] = [];
    const refused: unknown[] = [];
    while (refused.length === 0 && sent.length < 1000) {
      const message = client.mcast(bytes);
      message.catch((error: unknown) => refused.push(error));
      sent.push(message);
      // A refusal comes at once.
      await turns(1);
    }
    void sent.pop();
    expect(refused).toMatchObject([cpgError('CS_ERR_TRY_AGAIN')]);
    const room = MAX_QUEUED_BYTES / ATOMIC;
    expect(sent.length).toBeGreaterThan(room - 2);
    expect(sent.length).toBeLessThan(room + 3);
    connection.request.flowControl = 0;
    await Promise.all(sent);
  });
});

describe('close', () => {
  test('still sends earlier messages', async () => {
    const { client, connection } = await harness.joined({}, SMALL);
    const sent = numbers(500).map((text) => client.mcast(text));
    await client.close();
    await Promise.all(sent);
    expect(connection.texts).toEqual(numbers(500));
    expect(connection.requests.at(-1)).toEqual({ type: 'finalize' });
  });

  test('settles everything if the daemon takes nothing; is idempotent', async () => {
    const pair = await harness.joined({ timeoutMs: SHORT_MS }, SMALL);
    const { client, connection } = pair;
    connection.request.flowControl = 1;
    const sent = numbers(300).map((text) => rejectionOf(client.mcast(text)));
    const confirmed = rejectionOf(client.mcast('c', { confirm: true }));
    const request = rejectionOf(client.localNodeId());
    expect(client.close()).toBe(client.close());
    await client.close();
    for (const { code } of await Promise.all([...sent, confirmed, request])) {
      expect(['CS_ERR_TIMEOUT', 'CS_ERR_BAD_HANDLE']).toContain(code);
    }
    expect(client.state).toBe('closed');
    expect(client.fd).toBe(-1);
    expect(client.flowControl).toBe(false);
  });

  test('a lost connection rejects everything with its reason', async () => {
    const { client, connection } = await harness.joined({}, SMALL);
    connection.request.flowControl = 1;
    const sent = numbers(100).map((text) => rejectionOf(client.mcast(text)));
    const confirmed = rejectionOf(client.mcast('c', { confirm: true }));
    const request = rejectionOf(client.localNodeId());
    connection.drop();
    for (const error of await Promise.all([...sent, confirmed, request])) {
      expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
      expect(error.message).toContain('closed the connection');
    }
    expect(await rejectionOf(client.mcast('m'))).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
  });
});

describe('own messages that come back do not hide what the daemon has not taken', () => {
  /** Sends 'c' from the listener of the first delivery of `text`. */
  function answer({ client }: Pair, text: string): Promise<boolean> {
    return new Promise((resolve) => {
      client.on('deliver', ({ message }) => {
        if (Buffer.from(message).toString() === text) resolve(client.tryMcast('c'));
      });
    });
  }

  test('a request on its way', async () => {
    const pair = await harness.joined();
    const { client, connection } = pair;
    connection.echo = false;
    const answered = answer(pair, 'a');
    await client.mcast('a');
    await connection.untilTaken('mcast');
    connection.hold();
    const request = client.localNodeId();
    await turns();
    connection.deliver('a');
    expect(await answered).toBe(true);
    await turns();
    expect(connection.request.semaphore).toBe(1);
    connection.release();
    expect(await request).toBe(1);
    await connection.untilTaken('mcast', 2);
    expect(connection.texts).toEqual(['a', 'c']);
  });

  test('messages behind one that came in fragments', async () => {
    const pair = await harness.joined();
    const { client, connection } = pair;
    await client.mcast(Buffer.alloc(2 ** 21), { confirm: true });
    connection.echo = false;
    const answered = answer(pair, 'a');
    await client.mcast('a');
    await connection.untilTaken('mcast');
    connection.hold();
    await client.mcast('b');
    connection.deliver('a');
    expect(await answered).toBe(true);
    await turns();
    expect(connection.request.semaphore).toBe(1);
    connection.release();
    await connection.untilTaken('mcast', 3);
    expect(connection.texts).toEqual(['a', 'b', 'c']);
  });
});

describe('own deliveries let more go after the reading, not inside it', () => {
  const COUNT = 500;
  const TEXT = 'x'.repeat(100);
  let reading = false;
  /** For each frame that was staged: whether events were being read. */
  let staged: boolean[];

  beforeEach(() => {
    staged = [];
    /* eslint-disable @typescript-eslint/unbound-method -- called with their object */
    const { consumeEvents, stage } = ShmTransport.prototype;
    /* eslint-enable */
    jest.spyOn(ShmTransport.prototype, 'consumeEvents').mockImplementation(function (
      this: ShmTransport,
      ...args
    ) {
      reading = true;
      try {
        return consumeEvents.apply(this, args);
      } finally {
        reading = false;
      }
    });
    jest.spyOn(ShmTransport.prototype, 'stage').mockImplementation(function (this: ShmTransport, ...args) {
      staged.push(reading);
      return stage.apply(this, args);
    });
  });
  afterEach(() => jest.restoreAllMocks());

  test.each(['auto', 'manual'] as const)('messages that wait, dispatch %s', async (dispatch) => {
    const { client, connection } = await harness.joined({ dispatch }, SMALL);
    const all = Promise.all(numbers(COUNT).map((text) => client.mcast(text + TEXT)));
    let seen = 0;
    client.on('deliver', () => seen++);
    while (seen < COUNT) {
      if (dispatch === 'manual') await client.dispatch('one');
      else await turns(1);
    }
    await all;
    expect(connection.texts).toHaveLength(COUNT);
    expect(staged.filter(Boolean)).toEqual([]);
  });

  test("'drain'", async () => {
    const { client } = await harness.joined({}, SMALL);
    const drained: boolean[] = [];
    let sent = 0;
    const send = (): void => {
      while (sent < COUNT && client.tryMcast(TEXT)) sent++;
    };
    client.on('drain', () => {
      drained.push(reading);
      send();
    });
    let seen = 0;
    client.on('deliver', () => seen++);
    send();
    while (seen < COUNT) await turns(1);
    expect(drained.length).toBeGreaterThan(0);
    expect(drained.filter(Boolean)).toEqual([]);
  });
});
