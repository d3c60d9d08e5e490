/** From the event ring to listeners and loops, through a real client on a fake daemon. */
import { getEventListeners, once } from 'node:events';
import fs from 'node:fs';
import { connect, type ConfchgEvent, type CpgClient, type CpgError, type CpgEvent } from '../../src';
import { encodeEvent } from '../../src/codec';
import { MAX_QUEUED_EVENTS } from '../../src/dispatcher/event-log';
import { ClientHarness, stateOf, turns, type Pair } from '../support/fake-client';
import { cpgError, rejectionOf } from '../support/errors';

const harness = new ClientHarness();

const text = ({ message }: { message: Uint8Array }): string => Buffer.from(message).toString();
const numbers = (count: number, from = 0): string[] =>
  Array.from({ length: count }, (_, index) => `${from + index}`);

/** The texts of messages that a listener gets. */
function listen(client: CpgClient): string[] {
  const seen: string[] = [];
  client.on('deliver', (event) => seen.push(text(event)));
  return seen;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turns(1);
}

describe('events', () => {
  test("reach listeners with their fields, in the daemon's order", async () => {
    const { client, connection } = await harness.joined();
    const log: unknown[] = [];
    client.on('confchg', (event) => log.push(event));
    client.on('deliver', (event) => log.push({ ...event, message: text(event) }));
    client.on('totemConfchg', (event) => log.push(event));
    const lists = {
      members: [{ nodeId: 1, pid: 2, reason: 0 }],
      left: [{ nodeId: 3, pid: 4, reason: 5 }],
      joined: [{ nodeId: 5, pid: 6, reason: 1 }],
    };
    const group = Buffer.from('g');
    const ringId = { nodeId: 1, seq: 2n ** 63n };
    connection.send(
      { type: 'confchg', group, ...lists },
      { type: 'deliver', group, nodeId: 7, pid: 8, message: Buffer.from('m') },
      { type: 'totemConfchg', ringId, members: [1, 2] },
    );
    await until(() => log.length === 3);
    expect(log).toEqual([
      { type: 'confchg', group: 'g', groupBytes: group, ...lists },
      { type: 'deliver', group: 'g', groupBytes: group, nodeId: 7, pid: 8, own: false, message: 'm' },
      { type: 'totemConfchg', ringId, members: [1, 2] },
    ]);
  });

  test('a loop yields the same', async () => {
    const { client, connection } = await harness.joined();
    const loop = client[Symbol.asyncIterator]();
    connection.send({ type: 'totemConfchg', ringId: { nodeId: 1, seq: 1n }, members: [] });
    connection.deliver('m', 3, 4);
    expect((await loop.next()).value).toEqual({
      type: 'totemConfchg',
      ringId: { nodeId: 1, seq: 1n },
      members: [],
    });
    expect((await loop.next()).value).toMatchObject({ type: 'deliver', group: 'g', nodeId: 3, pid: 4 });
  });

  test.each([
    ['text', Buffer.from('größe\0'), 'größe\0'],
    ['bytes', Buffer.from([0xff, 0]), new Uint8Array([0xff, 0])],
  ])('the group is %s where it can be', async (_, group, expected) => {
    const { client, connection } = await harness.joined();
    const groups: unknown[] = [];
    client.on('deliver', (event) => groups.push(event.group));
    client.on('confchg', (event) => groups.push(event.group));
    const message = Buffer.from('m');
    connection.send(
      { type: 'deliver', group, nodeId: 1, pid: 1, message },
      { type: 'confchg', group, members: [], left: [], joined: [] },
      { type: 'deliver', group: Buffer.from('other'), nodeId: 1, pid: 1, message },
      { type: 'deliver', group, nodeId: 1, pid: 1, message },
    );
    await until(() => groups.length === 4);
    const plain = groups.map((item) =>
      typeof item === 'string' ? item : Uint8Array.from(item as Uint8Array),
    );
    expect(plain).toEqual([expected, expected, 'other', expected]);
  });

  test.each([
    ['text', Buffer.from('größe\0')],
    ['bytes', Buffer.from([0xff, 0])],
  ])('groupBytes are the bytes of a group that is %s, one object for all events', async (_, group) => {
    const { client, connection } = await harness.joined();
    const bytes: Uint8Array[] = [];
    client.on('deliver', (event) => bytes.push(event.groupBytes));
    client.on('confchg', (event) => bytes.push(event.groupBytes));
    const message = Buffer.from('m');
    const whole = { messageLength: 2, nodeId: 1, pid: 1 };
    connection.send(
      { type: 'confchg', group, members: [], left: [], joined: [] },
      { type: 'deliver', group, nodeId: 1, pid: 1, message },
      { type: 'partialDeliver', group, ...whole, fragmentType: 1, fragment: message },
      { type: 'partialDeliver', group, ...whole, fragmentType: 3, fragment: message },
      { type: 'deliver', group, nodeId: 1, pid: 1, message },
    );
    await until(() => bytes.length === 4);
    expect(Buffer.compare(bytes[0]!, group)).toBe(0);
    for (const other of bytes) expect(other).toBe(bytes[0]);
  });

  test('`own` marks our messages, whole and fragmented', async () => {
    const { client, connection } = await harness.joined();
    const own: boolean[] = [];
    client.on('deliver', (event) => own.push(event.own));
    const group = Buffer.from('g');
    const { nodeId, pid } = client;
    for (const from of [
      { nodeId, pid },
      { nodeId, pid: pid + 1 },
      { nodeId: nodeId + 1, pid },
    ]) {
      const fragment = { type: 'partialDeliver' as const, group, ...from, messageLength: 2 };
      connection.send(
        { type: 'deliver', group, ...from, message: Buffer.from('m') },
        { ...fragment, fragmentType: 1, fragment: Buffer.from('a') },
        { ...fragment, fragmentType: 3, fragment: Buffer.from('b') },
      );
    }
    await until(() => own.length === 6);
    expect(own).toEqual([true, true, false, false, false, false]);
  });

  test('listeners and loops get the same objects, whose message is a Buffer', async () => {
    const { client, connection } = await harness.joined();
    const heard: CpgEvent[] = [];
    client.on('deliver', (event) => heard.push(event));
    client.on('totemConfchg', (event) => heard.push(event));
    const loops = [client.events(), client.events()];
    connection.deliver('m');
    connection.send({ type: 'totemConfchg', ringId: { nodeId: 1, seq: 1n }, members: [] });
    await until(() => heard.length === 2);
    for (const loop of loops) {
      for (const event of heard) expect((await loop.next()).value).toBe(event);
    }
    expect(heard[0]!.type === 'deliver' && Buffer.isBuffer(heard[0]!.message)).toBe(true);
  });

  test('messages are the receiver’s own: later events do not change them', async () => {
    const { client, connection } = await harness.joined({}, { words: 2048 });
    const kept: Uint8Array[] = [];
    client.on('deliver', ({ message }) => kept.push(message));
    const sizes = Array.from({ length: 60 }, (_, index) => (index * 97) % 3000);
    for (const [index, size] of sizes.entries()) connection.deliver(Buffer.alloc(size, index));
    await until(() => kept.length === sizes.length);
    kept.forEach((message, index) => {
      expect(Buffer.compare(message, Buffer.alloc(sizes[index]!, index))).toBe(0);
    });
  });

  test('fragments become one event, and are dropped when their sender leaves', async () => {
    const { client, connection } = await harness.joined();
    const seen = listen(client);
    const group = Buffer.from('g');
    const piece = (fragmentType: number, from: string, pid = 5): void =>
      connection.send({
        type: 'partialDeliver',
        group,
        messageLength: 6,
        nodeId: 2,
        pid,
        fragmentType,
        fragment: Buffer.from(from),
      });
    piece(1, 'abc');
    connection.deliver('between');
    piece(1, 'uvw', 6);
    const left = [{ nodeId: 2, pid: 5, reason: 5 }];
    connection.send({ type: 'confchg', group, members: [], left, joined: [] });
    piece(3, 'def');
    piece(3, 'xyz', 6);
    connection.deliver('end');
    await until(() => seen.includes('end'));
    expect(seen).toEqual(['between', 'uvwxyz', 'end']);
  });

  test('a message that cannot be reassembled is reported once, and the connection continues', async () => {
    const { client, connection } = await harness.joined();
    const errors: Error[] = [];
    client.on('error', (error) => errors.push(error));
    const seen = listen(client);
    const base = { type: 'partialDeliver' as const, group: Buffer.from('g'), nodeId: 2, pid: 5 };
    for (const fragmentType of [1, 2, 3]) {
      connection.send({ ...base, messageLength: 2 ** 27, fragmentType, fragment: Buffer.from('x') });
    }
    for (const fragmentType of [1, 2, 3]) {
      connection.send({ ...base, messageLength: 2, fragmentType, fragment: Buffer.from('xxx') });
    }
    connection.deliver('after');
    await until(() => seen.length === 1);
    expect(errors).toMatchObject([cpgError('CS_ERR_TOO_BIG'), cpgError('CS_ERR_MESSAGE_ERROR')]);
    expect(client.state).toBe('joined');
  });

  test.each(['auto', 'manual'] as const)(
    'more than maxReassemblyBytes of unfinished messages end the connection, dispatch: %s',
    async (dispatch) => {
      const { client, connection } = await harness.joined({ dispatch, maxReassemblyBytes: 5 });
      const errors: Error[] = [];
      client.on('error', (error) => errors.push(error));
      const seen = listen(client);
      const closed = once(client, 'close') as Promise<[CpgError]>;
      const base = { type: 'partialDeliver' as const, group: Buffer.from('g'), nodeId: 2, messageLength: 9 };
      connection.send({ ...base, pid: 1, fragmentType: 1, fragment: Buffer.from('abc') });
      connection.deliver('before');
      connection.send({ ...base, pid: 2, fragmentType: 1, fragment: Buffer.from('abc') });
      connection.deliver('behind');
      if (dispatch === 'manual') {
        await turns();
        client.dispatch('all').catch(() => undefined);
      }
      const [reason] = await closed;
      expect(reason).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
      expect(reason.message).toContain('maxReassemblyBytes');
      expect([seen, errors, client.state]).toEqual([['before'], [], 'closed']);
      expect(await rejectionOf(client.mcast('x'))).toBeInstanceOf(Error);
    },
  );

  test('more than maxReassemblyBytes: a loop gets what came before, and throws', async () => {
    const { client, connection } = await harness.joined({ maxReassemblyBytes: 2 });
    const base = { type: 'partialDeliver' as const, group: Buffer.from('g'), nodeId: 2, messageLength: 9 };
    const loop = client[Symbol.asyncIterator]();
    connection.deliver('before');
    connection.send({ ...base, pid: 1, fragmentType: 1, fragment: Buffer.from('abc') });
    expect((await loop.next()).value).toMatchObject({ message: Buffer.from('before') });
    expect(await rejectionOf(loop.next())).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
  });

  test.each([0, -1, NaN])('maxReassemblyBytes %s is CS_ERR_INVALID_PARAM', async (maxReassemblyBytes) => {
    expect(await rejectionOf(connect({ maxReassemblyBytes }))).toMatchObject(
      cpgError('CS_ERR_INVALID_PARAM'),
    );
  });
});

describe('the backlog', () => {
  test('goes to the first listener', async () => {
    const { client, connection } = await harness.joined();
    for (const number of numbers(5)) connection.deliver(number);
    await turns();
    const seen = listen(client);
    connection.deliver('5');
    await until(() => seen.length === 6);
    expect(seen).toEqual(numbers(6));
  });

  test('goes to all listeners added in the same turn', async () => {
    const { client, connection } = await harness.joined();
    connection.send({ type: 'confchg', group: Buffer.from('g'), members: [], left: [], joined: [] });
    connection.deliver('a');
    await turns();
    const first = listen(client);
    const second = listen(client);
    const confchgs: ConfchgEvent[] = [];
    client.on('confchg', (event) => confchgs.push(event));
    await until(() => second.length === 1);
    expect([first, second, confchgs.length]).toEqual([['a'], ['a'], 1]);
  });

  test('goes to the first loop; the second begins with later events', async () => {
    const { client, connection } = await harness.joined();
    connection.deliver('early');
    await turns();
    const first = client[Symbol.asyncIterator]();
    const second = client[Symbol.asyncIterator]();
    connection.deliver('late');
    expect((await first.next()).value).toMatchObject({ message: Buffer.from('early') });
    expect((await first.next()).value).toMatchObject({ message: Buffer.from('late') });
    expect((await second.next()).value).toMatchObject({ message: Buffer.from('late') });
  });

  test('takes events between two loops, and those the first did not take', async () => {
    const { client, connection } = await harness.joined();
    for (const number of numbers(5)) connection.deliver(number);
    const seen: string[] = [];
    const take = async (count: number): Promise<void> => {
      for await (const event of client) {
        if (event.type === 'deliver') seen.push(text(event));
        if (seen.length === count) break;
      }
    };
    await take(2);
    for (const number of numbers(5, 5)) connection.deliver(number);
    await turns();
    await take(6);
    const loop = client[Symbol.asyncIterator]();
    await loop.return?.();
    await loop.return?.();
    const rest = listen(client);
    await until(() => rest.length === 4);
    expect([...seen, ...rest]).toEqual(numbers(10));
  });

  test('events that a loop left are not repeated to others that were listening', async () => {
    const { client, connection } = await harness.joined();
    const seen = listen(client);
    const first = client[Symbol.asyncIterator]();
    const second = client[Symbol.asyncIterator]();
    for (const number of numbers(3)) connection.deliver(number);
    await until(() => seen.length === 3);
    await first.return?.();
    expect((await second.next()).value).toMatchObject({ message: Buffer.from('0') });
    await second.return?.();
    const third = client[Symbol.asyncIterator]();
    connection.deliver('3');
    expect((await third.next()).value).toMatchObject({ message: Buffer.from('3') });
    expect(seen).toEqual(numbers(4));
  });

  test('goes to a listener and a loop that begin in the same turn', async () => {
    const { client, connection } = await harness.joined();
    connection.deliver('early');
    await turns();
    const seen = listen(client);
    const loop = client[Symbol.asyncIterator]();
    connection.deliver('late');
    await until(() => seen.length === 2);
    expect(seen).toEqual(['early', 'late']);
    expect((await loop.next()).value).toMatchObject({ message: Buffer.from('early') });
    expect((await loop.next()).value).toMatchObject({ message: Buffer.from('late') });
  });

  test.each(['before', 'after'])(
    'so is what follows the one event of a `once`, with events that came %s it',
    async (when) => {
      const { client, connection } = await harness.joined();
      const come = (): void => {
        connection.send({ type: 'confchg', group: Buffer.from('g'), members: [], left: [], joined: [] });
        for (const number of numbers(3)) connection.deliver(number);
      };
      if (when === 'before') {
        come();
        await turns();
      }
      const confchg = once(client, 'confchg');
      if (when === 'after') come();
      await confchg;
      await turns();
      const seen: string[] = [];
      for await (const event of client) {
        if (event.type === 'deliver') seen.push(text(event));
        if (seen.length === 3) break;
      }
      expect(seen).toEqual(numbers(3));
    },
  );

  describe('is dropped at its limit, so that the ring does not fill up', () => {
    async function overrun(): Promise<Pair> {
      const pair = await harness.joined();
      const { connection } = pair;
      for (const number of numbers(MAX_QUEUED_EVENTS + 100)) connection.deliver(number);
      // All but a little, which may wait for more to be given back.
      await until(() => connection.event.free > connection.event.words * 4 - 4096);
      await turns();
      return pair;
    }

    test('the first listener gets one error about it', async () => {
      const { client, connection } = await overrun();
      const seen = listen(client);
      const errors: Error[] = [];
      client.on('error', (error) => errors.push(error));
      client.on('confchg', () => undefined);
      connection.deliver('new');
      await until(() => seen.length > 0);
      await turns();
      expect(seen).toEqual(['new']);
      expect(errors).toMatchObject([cpgError('CS_ERR_QUEUE_FULL')]);
    });

    test('so does the first loop, as a warning without an error listener', async () => {
      const { client, connection } = await overrun();
      const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
      try {
        const loop = client[Symbol.asyncIterator]();
        connection.deliver('new');
        expect((await loop.next()).value).toMatchObject({ message: Buffer.from('new') });
        await turns();
        expect(warned.mock.calls).toMatchObject([
          [expect.any(String), { type: 'CpgError', code: 'CS_ERR_QUEUE_FULL' }],
        ]);
      } finally {
        warned.mockRestore();
      }
    });
  });
});

describe('a slow loop', () => {
  test('stops the reading: events stay in the ring, and then in the daemon; nothing is lost', async () => {
    const { client, connection } = await harness.joined({}, { words: 16 * 1024 });
    const loop = client[Symbol.asyncIterator]();
    const many = 3 * MAX_QUEUED_EVENTS;
    for (const number of numbers(many)) connection.deliver(number);
    await turns(300);
    // The queue, the ring, and the daemon have all of it between them.
    expect(connection.event.readPointer).not.toBe(connection.event.writePointer);
    expect(connection.queuedEvents).toBeGreaterThan(0);
    const seen: string[] = [];
    for await (const event of { [Symbol.asyncIterator]: () => loop }) {
      if (event.type === 'deliver') seen.push(text(event));
      if (seen.length === many) break;
    }
    expect(seen).toEqual(numbers(many));
  });

  test('holds up listeners too, until it continues or is left', async () => {
    const { client, connection } = await harness.joined();
    const loop = client[Symbol.asyncIterator]();
    const seen = listen(client);
    const many = 2 * MAX_QUEUED_EVENTS;
    for (const number of numbers(many)) connection.deliver(number);
    await until(() => seen.length >= MAX_QUEUED_EVENTS);
    await turns();
    expect(seen).toHaveLength(MAX_QUEUED_EVENTS);
    await loop.next();
    await until(() => seen.length > MAX_QUEUED_EVENTS);
    await turns();
    expect(seen).toHaveLength(MAX_QUEUED_EVENTS + 1);
    await loop.return?.();
    await until(() => seen.length === many);
    expect(seen).toEqual(numbers(many));
  });

  test('is also limited by bytes', async () => {
    const { client, connection } = await harness.joined();
    const loop = client[Symbol.asyncIterator]();
    const seen = listen(client);
    for (let index = 0; index < 12; index++) connection.deliver(Buffer.alloc(1024 * 1024 - 1024, index));
    await turns(200);
    expect(seen.length).toBeLessThan(7);
    for (let index = 0; index < 12; index++) {
      const { value } = await loop.next();
      expect((value as Extract<CpgEvent, { type: 'deliver' }>).message[0]).toBe(index);
    }
  });
});

describe('a loop with a signal', () => {
  const reason = new Error('of the test');

  test('throws the reason immediately while it waits, and is then done', async () => {
    const { client } = await harness.joined();
    const controller = new AbortController();
    const loop = client.events({ signal: controller.signal });
    const waiting = Promise.allSettled([loop.next(), loop.next()]);
    controller.abort(reason);
    const over = { value: undefined, done: true };
    expect(await waiting).toEqual([
      { status: 'rejected', reason },
      { status: 'fulfilled', value: over },
    ]);
    expect(await loop.next()).toEqual({ value: undefined, done: true });
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });

  test('the next loop gets the remaining events', async () => {
    const { client, connection } = await harness.joined();
    const controller = new AbortController();
    for (const number of numbers(3)) connection.deliver(number);
    const seen: string[] = [];
    const loop = async (): Promise<void> => {
      for await (const event of client.events({ signal: controller.signal })) {
        if (event.type !== 'deliver') continue;
        seen.push(text(event));
        controller.abort(reason);
      }
    };
    await expect(loop()).rejects.toBe(reason);
    // An aborted signal takes nothing.
    await expect(loop()).rejects.toBe(reason);
    const rest = listen(client);
    await until(() => rest.length === 2);
    expect([...seen, ...rest]).toEqual(numbers(3));
  });

  test('a full loop that is aborted no longer holds up the reading', async () => {
    const { client, connection } = await harness.joined();
    const controller = new AbortController();
    const loop = client.events({ signal: controller.signal });
    const seen = listen(client);
    const many = 2 * MAX_QUEUED_EVENTS;
    for (const number of numbers(many)) connection.deliver(number);
    await until(() => seen.length >= MAX_QUEUED_EVENTS);
    await turns();
    expect(seen).toHaveLength(MAX_QUEUED_EVENTS);
    controller.abort(reason);
    await until(() => seen.length === many);
    await expect(loop.next()).rejects.toBe(reason);
  });

  test.each(['left', 'ended'])('a loop that is %s forgets its signal', async (how) => {
    const { client, connection } = await harness.joined();
    const { signal } = new AbortController();
    const loop = client.events({ signal });
    connection.deliver('m');
    await loop.next();
    if (how === 'left') await loop.return?.();
    else await client.close();
    await loop.next();
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  test('after the connection ended, the signal still ends it with events left', async () => {
    const { client, connection } = await harness.joined();
    const controller = new AbortController();
    const loop = client.events({ signal: controller.signal });
    connection.deliver('m');
    await turns();
    connection.drop();
    await until(() => client.state === 'closed');
    controller.abort(reason);
    await expect(loop.next()).rejects.toBe(reason);
    expect(await loop.next()).toEqual({ value: undefined, done: true });
  });
});

describe('a listener that throws', () => {
  test('is reported to error listeners; reading continues', async () => {
    const { client, connection } = await harness.joined();
    const errors: Error[] = [];
    client.on('error', (error) => errors.push(error));
    const seen: string[] = [];
    client.on('deliver', (event) => {
      seen.push(text(event));
      if (seen.length % 2 === 1) throw new Error(`at ${text(event)}`);
    });
    for (const number of numbers(4)) connection.deliver(number);
    await until(() => seen.length === 4);
    expect(seen).toEqual(numbers(4));
    expect(errors.map(({ message }) => message)).toEqual(['at 0', 'at 2']);
    expect(client.state).toBe('joined');
  });

  test('is a process warning without them, and no uncaught exception', async () => {
    const { client, connection } = await harness.joined();
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    try {
      client.on('deliver', () => {
        // eslint-disable-next-line @typescript-eslint/only-throw-error -- users do
        throw 'not even an Error';
      });
      connection.deliver('a');
      connection.deliver('b');
      await until(() => warned.mock.calls.length === 2);
      expect(warned.mock.calls.map(([warning]) => warning)).toEqual([
        'not even an Error',
        'not even an Error',
      ]);
    } finally {
      warned.mockRestore();
    }
  });

  test('the warning shows where it was thrown', async () => {
    const { client, connection } = await harness.joined();
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    try {
      client.on('deliver', function listenerOfAUser() {
        throw new TypeError('of the test');
      });
      connection.deliver('a');
      await until(() => warned.mock.calls.length === 1);
      const detail: unknown = expect.stringContaining('listenerOfAUser');
      expect(warned.mock.calls).toEqual([['of the test', { type: 'TypeError', detail }]]);
    } finally {
      warned.mockRestore();
    }
  });

  test('an error listener that throws is also only a warning', async () => {
    const { client, connection } = await harness.joined();
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    try {
      client.on('error', () => {
        throw new Error('second');
      });
      client.on('deliver', () => {
        throw new Error('first');
      });
      connection.deliver('a');
      await until(() => warned.mock.calls.length === 1);
      expect(warned.mock.calls[0]![0]).toBe('second');
    } finally {
      warned.mockRestore();
    }
  });

  test.each(['drain', 'close'] as const)('%s', async (name) => {
    const { client, connection } = await harness.joined({}, { words: 1024 });
    const errors: Error[] = [];
    client.on('error', (error) => errors.push(error));
    client.on(name, () => {
      throw new Error('of the test');
    });
    if (name === 'drain') {
      connection.hold();
      while (client.tryMcast('m'));
      connection.release();
      await until(() => errors.length > 0);
      await client.localNodeId();
    }
    await client.close();
    expect(errors).toMatchObject([{ message: 'of the test' }]);
  });

  test('listeners may close, send and make requests', async () => {
    const { client, connection } = await harness.joined();
    const done = new Promise<number>((resolve, reject) => {
      client.once('deliver', () => {
        client
          .mcast('from a listener')
          .then(() => client.localNodeId())
          .then(resolve, reject);
      });
    });
    connection.deliver('a');
    expect(await done).toBe(1);
    expect(connection.texts).toEqual(['from a listener']);
    const closed = new Promise((resolve) => client.once('close', () => resolve(undefined)));
    client.once('deliver', () => void client.close());
    connection.deliver('b');
    await closed;
  });
});

describe('an invalid event ends the connection', () => {
  function frame(id: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    if (length >= 12) {
      bytes.writeInt32LE(id, 0);
      bytes.writeInt32LE(length, 8);
    }
    return bytes;
  }

  test.each([
    ['an unknown id', frame(99, 24)],
    ['nothing', Buffer.alloc(0)],
    ['a header cut short', frame(4, 11)],
    ['deliver without its fields', frame(5, 183)],
    ['confchg without its fields', frame(4, 40)],
    ['deliver that says more than it has', withLength(frame(5, 190), 160, 7)],
    ['deliver that says less than it has', withLength(frame(5, 190), 160, 5)],
    ['deliver with a group of 129 bytes', withLength(withLength(frame(5, 190), 160, 6), 24, 129)],
    ['confchg with more members than it has', withLength(frame(4, 208), 160, 2)],
  ])('%s', async (_, bytes) => {
    const { client, connection } = await harness.joined();
    const seen = listen(client);
    const loop = client[Symbol.asyncIterator]();
    const closed = new Promise<CpgError | undefined>((resolve) => client.on('close', resolve));
    connection.deliver('good');
    connection.send(bytes);
    connection.deliver('behind it');
    expect(await closed).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(seen).toEqual(['good']);
    expect((await loop.next()).done).toBe(false);
    expect(await rejectionOf(loop.next())).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(client.state).toBe('closed');
  });

  function withLength(bytes: Buffer, offset: number, value: number): Buffer {
    bytes.writeUInt32LE(value, offset);
    return bytes;
  }

  test('a byte without an event', async () => {
    const { client, connection } = await harness.joined();
    const closed = new Promise<CpgError | undefined>((resolve) => client.on('close', resolve));
    connection.socket.write(Buffer.alloc(1));
    expect(await closed).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
  });
});

describe('the end', () => {
  test('close() ends loops after their queued events', async () => {
    const { client, connection } = await harness.joined();
    const loop = client[Symbol.asyncIterator]();
    connection.deliver('a');
    await turns();
    await client.close();
    expect((await loop.next()).done).toBe(false);
    expect(await loop.next()).toEqual({ value: undefined, done: true });
    // One begun after the end is over at once.
    expect(await client[Symbol.asyncIterator]().next()).toEqual({ value: undefined, done: true });
  });

  test('close() ends a waiting loop', async () => {
    const { client } = await harness.joined();
    const waiting = client[Symbol.asyncIterator]().next();
    await client.close();
    expect(await waiting).toEqual({ value: undefined, done: true });
  });

  test('a lost connection is thrown by each loop, once', async () => {
    const { client, connection } = await harness.joined();
    const loops = [client[Symbol.asyncIterator](), client[Symbol.asyncIterator]()];
    const waiting = loops.map((loop) => rejectionOf(loop.next()));
    connection.drop();
    for (const error of await Promise.all(waiting)) expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    for (const loop of loops) expect(await loop.next()).toEqual({ value: undefined, done: true });
  });

  test("'close' is emitted once: without a reason after close(), else with one", async () => {
    for (const lost of [false, true]) {
      const { client, connection } = await harness.joined();
      const reasons: unknown[][] = [];
      client.on('close', (...args) => reasons.push(args));
      if (lost) connection.drop();
      else void client.close();
      await until(() => reasons.length > 0);
      await client.close();
      await turns();
      expect(reasons).toMatchObject(lost ? [[cpgError('CS_ERR_LIBRARY')]] : [[]]);
    }
  });

  test('after close() in a listener nothing more arrives, not even events already read', async () => {
    for (const early of [false, true]) {
      const { client, connection } = await harness.joined();
      const seen: string[] = [];
      const listening = (): void => {
        client.on('deliver', (event) => {
          seen.push(text(event));
          if (seen.length === 3) void client.close();
        });
      };
      if (!early) listening();
      for (const number of numbers(200)) connection.deliver(number);
      await turns();
      if (early) listening();
      await until(() => client.state === 'closed');
      await client.close();
      expect(seen).toEqual(['0', '1', '2']);
    }
  });

  test('after close() in a loop it gets its queued events, and no more', async () => {
    const { client, connection } = await harness.joined();
    for (const number of numbers(5)) connection.deliver(number);
    await turns();
    const seen: string[] = [];
    for await (const event of client) {
      if (event.type !== 'deliver') continue;
      seen.push(text(event));
      if (seen.length > 1) continue;
      const closing = client.close();
      for (const number of numbers(5)) connection.deliver(number);
      await closing;
    }
    expect(seen).toEqual(['0', '1', '2', '3', '4']);
  });

  test('a confirmation that arrives while closing still counts', async () => {
    const { client, connection } = await harness.joined();
    connection.echo = false;
    listen(client);
    const sent = client.mcast('a', { confirm: true });
    await connection.untilTaken('mcast');
    connection.script('finalize', 'silence');
    const closing = client.close();
    await connection.untilTaken('finalize');
    connection.deliver('a');
    await sent;
    connection.respond({ type: 'finalize', error: 1 });
    await closing;
  });

  test('events from before the end still reach a listener that is added in time', async () => {
    const { client, connection } = await harness.joined();
    connection.deliver('early');
    await turns();
    const seen = listen(client);
    await client.close();
    expect(seen).toEqual(['early']);
  });
});

describe('manual dispatch', () => {
  const manual = (): Promise<Pair> => harness.joined({ dispatch: 'manual' });

  test('leaves events in the ring until it is called', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    connection.deliver('a');
    await turns();
    expect(seen).toEqual([]);
    expect(connection.event.readPointer).not.toBe(connection.event.writePointer);
    expect(await client.dispatch('all')).toBe(1);
    expect(seen).toEqual(['a']);
  });

  test('all: the available events, possibly none', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    expect(await client.dispatch('all')).toBe(0);
    for (const number of numbers(5)) connection.deliver(number);
    await turns();
    expect(await client.dispatch('all')).toBe(5);
    expect(await client.dispatch('all')).toBe(0);
    expect(seen).toEqual(numbers(5));
  });

  test('one: waits for an event, and takes no more than one', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    const waiting = client.dispatch('one');
    expect(await stateOf(waiting)).toBe('pending');
    connection.deliver('0');
    connection.deliver('1');
    expect(await waiting).toBe(1);
    expect(seen).toEqual(['0']);
    expect(await client.dispatch('one')).toBe(1);
    expect(seen).toEqual(['0', '1']);
  });

  test('oneNonblocking: an event, or CS_ERR_TRY_AGAIN', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    expect(await rejectionOf(client.dispatch('oneNonblocking'))).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
    connection.deliver('0');
    connection.deliver('1');
    await turns();
    expect(await client.dispatch('oneNonblocking')).toBe(1);
    expect(seen).toEqual(['0']);
    expect(await client.dispatch('oneNonblocking')).toBe(1);
    expect(await rejectionOf(client.dispatch('oneNonblocking'))).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
  });

  test('blocking: until the handle is closed', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    const dispatching = client.dispatch('blocking');
    for (const number of numbers(3)) connection.deliver(number);
    await until(() => seen.length === 3);
    connection.deliver('3');
    await until(() => seen.length === 4);
    expect(await stateOf(dispatching)).toBe('pending');
    await client.close();
    expect(await dispatching).toBe(4);
  });

  test('fragments count as one event with the last of them', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    const base = {
      type: 'partialDeliver' as const,
      group: Buffer.from('g'),
      nodeId: 2,
      pid: 5,
      messageLength: 3,
    };
    connection.send({ ...base, fragmentType: 1, fragment: Buffer.from('a') });
    connection.send({ ...base, fragmentType: 2, fragment: Buffer.from('b') });
    await turns();
    expect(await client.dispatch('all')).toBe(0);
    const waiting = client.dispatch('one');
    connection.send({ ...base, fragmentType: 3, fragment: Buffer.from('c') });
    connection.deliver('next');
    expect(await waiting).toBe(1);
    expect(seen).toEqual(['abc']);
  });

  test.each(['one', 'blocking'] as const)('%s: a signal ends the wait', async (flag) => {
    const { client, connection } = await manual();
    const seen = listen(client);
    const controller = new AbortController();
    const waiting = client.dispatch(flag, { signal: controller.signal });
    waiting.catch(() => undefined);
    expect(await stateOf(waiting)).toBe('pending');
    controller.abort(new Error('of the test'));
    await expect(waiting).rejects.toThrow('of the test');
    await expect(client.dispatch(flag, { signal: controller.signal })).rejects.toThrow('of the test');
    connection.deliver('a');
    await turns();
    expect(seen).toEqual([]);
    expect(await client.dispatch('one')).toBe(1);
  });

  test.each(['one', 'blocking', 'all'] as const)(
    '%s rejects with the reason when the connection ends while it reads',
    async (flag) => {
      const { client, connection } = await manual();
      const reasons: unknown[] = [];
      client.on('close', (reason) => reasons.push(reason));
      const dispatching = flag === 'all' ? undefined : rejectionOf(client.dispatch(flag));
      // A byte without a chunk.
      connection.socket.write(Buffer.alloc(1));
      await turns();
      const error = await (dispatching ?? rejectionOf(client.dispatch(flag)));
      expect(error).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
      expect(reasons).toEqual([error]);
      expect(await rejectionOf(client.dispatch(flag))).toBe(error);
    },
  );

  test.each(['one', 'blocking', 'all', 'oneNonblocking'] as const)(
    '%s: a listener that closes gets nothing more, and the events until then count',
    async (flag) => {
      const { client, connection } = await manual();
      const seen: string[] = [];
      let closing: Promise<void> | undefined;
      client.on('deliver', (event) => {
        seen.push(text(event));
        closing = client.close();
      });
      for (const number of numbers(20)) connection.deliver(number);
      await turns();
      expect(await client.dispatch(flag)).toBe(1);
      await closing;
      expect(seen).toEqual(['0']);
    },
  );

  test('close while waiting: one is CS_ERR_BAD_HANDLE', async () => {
    const { client } = await manual();
    const waiting = rejectionOf(client.dispatch('one'));
    await turns(3);
    await client.close();
    expect(await waiting).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
    for (const flag of ['one', 'all', 'blocking', 'oneNonblocking'] as const) {
      expect(await rejectionOf(client.dispatch(flag))).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
    }
  });

  test('a lost connection is thrown by all four', async () => {
    const { client, connection } = await manual();
    const waiting = [rejectionOf(client.dispatch('one')), rejectionOf(client.dispatch('blocking'))];
    await turns(3);
    connection.drop();
    for (const error of await Promise.all(waiting)) expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    for (const flag of ['one', 'all', 'blocking', 'oneNonblocking'] as const) {
      expect(await rejectionOf(client.dispatch(flag))).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    }
  });

  test('from a listener, for the events after its own', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    let inner: Promise<number> | undefined;
    client.once('deliver', () => {
      inner = client.dispatch('one');
    });
    connection.deliver('0');
    connection.deliver('1');
    connection.deliver('2');
    await turns();
    expect(await client.dispatch('one')).toBe(1);
    expect(await inner).toBe(1);
    expect(seen).toEqual(['0', '1']);
  });

  test('leaving a loop does not dispatch anything by itself', async () => {
    const { client, connection } = await manual();
    const seen = listen(client);
    const loop = client[Symbol.asyncIterator]();
    connection.deliver('a');
    await turns();
    await loop.return?.();
    await turns();
    expect(seen).toEqual([]);
    expect(await client.dispatch('all')).toBe(1);
  });

  test('a full loop stops dispatching until it continues', async () => {
    const { client, connection } = await manual();
    const loop = client[Symbol.asyncIterator]();
    const many = MAX_QUEUED_EVENTS + 5;
    for (const number of numbers(many)) connection.deliver(number);
    await until(() => connection.queuedEvents === 0);
    await turns();
    expect(await client.dispatch('all')).toBe(MAX_QUEUED_EVENTS);
    expect(await client.dispatch('all')).toBe(0);
    const waiting = client.dispatch('one');
    expect(await stateOf(waiting)).toBe('pending');
    await loop.next();
    expect(await waiting).toBe(1);
    const rest = client.dispatch('blocking');
    for (let index = 1; index < many; index++) {
      const { value } = await loop.next();
      expect(text(value as Extract<CpgEvent, { type: 'deliver' }>)).toBe(`${index}`);
    }
    await client.close();
    expect(await rest).toBe(4);
  });

  test('is refused on a handle with automatic dispatch', async () => {
    const { client } = await harness.joined();
    expect(await rejectionOf(client.dispatch('all'))).toMatchObject(cpgError('CS_ERR_INVALID_PARAM'));
  });
});

describe('borrowed messages', () => {
  test('are valid during the call and detached afterwards', async () => {
    const { client, connection } = await harness.joined({ lend: true });
    const kept: Uint8Array[] = [];
    const seen: string[] = [];
    client.on('deliver', (event) => {
      kept.push(event.message);
      seen.push(text(event));
    });
    const large = 'x'.repeat(100_000);
    connection.deliver('small');
    connection.deliver(large);
    await until(() => seen.length === 2);
    expect(seen).toEqual(['small', large]);
    expect(kept.map(({ length }) => length)).toEqual([0, 0]);
  });

  test('loops and late listeners get copies', async () => {
    const { client, connection } = await harness.joined({ lend: true });
    connection.deliver('early');
    await turns();
    const kept: Uint8Array[] = [];
    client.on('deliver', ({ message }) => kept.push(message));
    await until(() => kept.length === 1);
    const loop = client[Symbol.asyncIterator]();
    connection.deliver('for both');
    const { value } = await loop.next();
    expect(value).toMatchObject({ type: 'deliver' });
    expect(kept.map((message) => Buffer.from(message).toString())).toEqual(['early', 'for both']);
  });
});

describe('busy polling', () => {
  /** After its time has passed, it no longer polls the ring. */
  async function expectSleep(): Promise<void> {
    const begin = performance.now();
    while (performance.now() - begin < 50) await turns(1);
    const reads = jest.spyOn(fs, 'readSync');
    try {
      await turns(20);
      expect(reads).not.toHaveBeenCalled();
    } finally {
      reads.mockRestore();
    }
  }

  test('delivers an event once, before its byte comes', async () => {
    const { client, connection } = await harness.joined({ busyPollUs: 1_000_000 });
    const seen = listen(client);
    connection.deliver('wakes it up');
    await until(() => seen.length === 1);
    // Large enough to be given back at once.
    const message = Buffer.alloc(4096, 'seen early ');
    const frame = encodeEvent({ type: 'deliver', group: Buffer.from('g'), nodeId: 1, pid: 1, message });
    expect(connection.event.put(frame)).toBe(true);
    await until(() => seen.length === 2);
    // Its place is not given back before its byte has come.
    await turns();
    expect(connection.event.readPointer).not.toBe(connection.event.writePointer);
    connection.socket.write(Buffer.alloc(1));
    await until(() => connection.event.readPointer === connection.event.writePointer);
    expect(seen).toEqual(['wakes it up', message.toString()]);
  });

  test('ends when nothing comes within its time', async () => {
    const { client, connection } = await harness.joined({ busyPollUs: 1000 });
    const seen = listen(client);
    connection.deliver('a');
    await until(() => seen.length === 1);
    await expectSleep();
  });

  test('ends although an event waits for its reader', async () => {
    const { client, connection } = await harness.joined({ busyPollUs: 1000, dispatch: 'manual' });
    connection.deliver('a');
    await expectSleep();
    expect(await client.dispatch('all')).toBe(1);
  });

  test.each([-1, NaN, 1_000_001])('busyPollUs %p is CS_ERR_INVALID_PARAM', async (busyPollUs) => {
    const { address } = await harness.daemon();
    expect(await rejectionOf(connect({ address, busyPollUs }))).toMatchObject(
      cpgError('CS_ERR_INVALID_PARAM'),
    );
  });
});

describe('coalescing', () => {
  const BURST = 16;

  /** Members that have not sent for long enough, and to whom a burst came just now. */
  async function coalescing(coalesceMs: number): Promise<Pair & { seen: string[] }> {
    const pair = await harness.joined({ coalesceMs });
    const seen = listen(pair.client);
    const begin = performance.now();
    while (performance.now() - begin < 60) await turns(1);
    for (const number of numbers(BURST)) pair.connection.deliver(number, 2);
    await until(() => seen.length === BURST);
    pair.connection.deliver('later', 2);
    return { ...pair, seen };
  }

  test('pauses after many messages, and then delivers those that arrived meanwhile', async () => {
    const { seen } = await coalescing(1000);
    await turns(20);
    expect(seen).toHaveLength(BURST);
    await until(() => seen.length === BURST + 1);
  });

  test('ends immediately when we send a message', async () => {
    const { client, connection, seen } = await coalescing(1000);
    await turns(20);
    expect(seen).toHaveLength(BURST);
    await client.mcast('mine');
    await turns();
    expect(seen).toContain('later');
    await connection.untilTaken('mcast');
  });

  test('coalesceMs 0 disables it', async () => {
    const { seen } = await coalescing(0);
    await turns();
    expect(seen).toHaveLength(BURST + 1);
  });

  test('a daemon that hangs up meanwhile is noticed', async () => {
    const { client, connection } = await coalescing(100);
    const closed = once(client, 'close');
    connection.drop();
    await closed;
  });

  test('closing does not wait for its end', async () => {
    const { client } = await coalescing(1000);
    await client.close();
  });

  test.each([-1, NaN, 1001])('coalesceMs %p is CS_ERR_INVALID_PARAM', async (coalesceMs) => {
    const { address } = await harness.daemon();
    expect(await rejectionOf(connect({ address, coalesceMs }))).toMatchObject(
      cpgError('CS_ERR_INVALID_PARAM'),
    );
  });
});

describe('stopped reading', () => {
  test('a burst without a consumer waits in the ring for one that comes soon', async () => {
    const { client, connection } = await harness.joined();
    const count = 3 * MAX_QUEUED_EVENTS;
    for (const number of numbers(count)) connection.deliver(number);
    await turns();
    const seen = listen(client);
    await until(() => seen.length === count);
    expect(seen).toEqual(numbers(count));
  });

  test('resumes when a full loop is left and no consumer follows', async () => {
    const { client, connection } = await harness.joined();
    const loop = client[Symbol.asyncIterator]();
    for (const number of numbers(3 * MAX_QUEUED_EVENTS)) connection.deliver(number);
    await loop.next();
    await turns();
    await loop.return?.();
    await until(() => connection.event.free > connection.event.words * 4 - 4096);
  });

  test('resumes for a loop that awaits a confirmation after more events than its limit', async () => {
    const { client, connection } = await harness.joined();
    const count = 3 * MAX_QUEUED_EVENTS;
    const loop = client[Symbol.asyncIterator]();
    for (const number of numbers(count)) connection.deliver(number, 2);
    expect(text((await loop.next()).value as { message: Uint8Array })).toBe('0');
    await turns();
    await client.mcast('mine', { confirm: true });
    const rest: string[] = [];
    while (rest.at(-1) !== 'mine') rest.push(text((await loop.next()).value as { message: Uint8Array }));
    expect(rest).toEqual([...numbers(count - 1, 1), 'mine']);
  });
});

test('the next listener gets the backlog after all listeners were removed', async () => {
  const { client, connection } = await harness.joined();
  const removed = listen(client);
  client.removeAllListeners();
  expect(client.listenerCount('deliver')).toBe(0);
  connection.deliver('early');
  await turns();
  const seen = listen(client);
  await until(() => seen.length === 1);
  expect(seen).toEqual(['early']);
  expect(removed).toEqual([]);
});
