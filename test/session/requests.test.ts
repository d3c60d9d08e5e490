/** Requests and their replies: one in flight, retries, deadlines, signals, and a daemon that answers wrongly. */
import { getEventListeners } from 'node:events';
import type { CpgError } from '../../src';
import type { CpgResponse } from '../../src/codec';
import { Backoff, Deadline, untilAborted } from '../../src/session/deadline';
import { ClientHarness, SHORT_MS, stateOf, turns } from '../support/fake-client';
import { cpgError, rejectionOf } from '../support/errors';

const harness = new ClientHarness();
const TRY_AGAIN = 6;
const BUSY = 10;

/** The reason of the rejection, of any type. */
const reasonOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => {
      throw new Error('it resolved');
    },
    (error: unknown) => error,
  );

describe('one request in flight', () => {
  test('others wait for its reply and are sent in order', async () => {
    const { client, connection } = await harness.joined();
    connection.script('localGet', 'silence');
    const first = client.localNodeId();
    const second = client.membership();
    const third = client.leave();
    await connection.untilTaken('localGet', 2);
    await turns();
    expect(connection.requests.map(({ type }) => type)).toEqual(['localGet', 'join', 'localGet']);
    connection.respond({ type: 'localGet', error: 1, nodeId: 9 });
    expect(await first).toBe(9);
    expect(await second).toHaveLength(1);
    await third;
    const types = connection.requests.slice(3).map(({ type }) => type);
    expect(types).toEqual([
      'iterationInitialize',
      'leave',
      'iterationNext',
      'iterationNext',
      'iterationFinalize',
    ]);
  });

  test('messages and requests keep the order of the calls', async () => {
    const { client, connection } = await harness.joined();
    const before = connection.requests.length;
    const all = [
      client.mcast('a'),
      client.localNodeId(),
      client.mcast('b'),
      client.mcast(Buffer.alloc(1024 * 1024, 'c')),
      client.mcast('d'),
      client.membership(),
      client.mcast('e'),
    ];
    await Promise.all(all);
    await connection.until(() => connection.texts.length === 4);
    expect(connection.requests.slice(before).map(({ type }) => type)).toEqual([
      'mcast',
      'localGet',
      'mcast',
      'partialMcast',
      'partialMcast',
      'mcast',
      'iterationInitialize',
      'mcast',
      'iterationNext',
      'iterationNext',
      'iterationFinalize',
    ]);
    expect(connection.texts).toEqual(['a', 'b', 'd', 'e']);
  });

  test('a message does not overtake a queued request', async () => {
    const { client, connection } = await harness.joined();
    connection.script('localGet', 'silence');
    const first = client.localNodeId();
    const second = client.membership();
    const message = client.mcast('m');
    await connection.untilTaken('localGet', 2);
    expect(await stateOf(message)).toBe('pending');
    connection.respond({ type: 'localGet', error: 1, nodeId: 1 });
    await Promise.all([first, second, message]);
    await connection.untilTaken('mcast');
    const types = connection.requests.map(({ type }) => type);
    expect(types.indexOf('iterationInitialize')).toBe(types.indexOf('mcast') - 1);
  });
});

describe('a daemon that is busy', () => {
  test.each([
    ['CS_ERR_TRY_AGAIN', TRY_AGAIN],
    ['CS_ERR_BUSY', BUSY],
  ])('%s is asked again until it says yes', async (_, error) => {
    const { client, connection } = await harness.unjoined();
    connection.script('join', error, error, error);
    await client.join('g');
    expect(connection.taken('join')).toHaveLength(4);
    connection.script('leave', error, error);
    await client.leave();
    expect(connection.taken('leave')).toHaveLength(3);
    expect(client.state).toBe('left');
  });

  test('a refusal without the name of the request (id 0) counts for the one in flight', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationInitialize', { type: 'join', error: TRY_AGAIN });
    expect(await client.membership('h')).toHaveLength(1);
    expect(connection.taken('iterationInitialize')).toHaveLength(2);
    connection.script('iterationInitialize', { type: 'join', error: 7 });
    expect(await rejectionOf(client.membership('h'))).toMatchObject(cpgError('CS_ERR_INVALID_PARAM'));
    expect(await client.localNodeId()).toBe(1);
  });

  test('until the deadline; the error has the last answer, and join() may be retried', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
    connection.script('join', ...Array.from({ length: 100 }, () => TRY_AGAIN));
    const error = await rejectionOf(client.join('g'));
    expect(error).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(error.message).toContain('CS_ERR_TRY_AGAIN');
    expect(error.cause).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
    // With pauses of 5, 10, 20, 40, 80, 160 ms there cannot be more; without growth there would be 60.
    expect(connection.taken('join').length).toBeGreaterThan(1);
    expect(connection.taken('join').length).toBeLessThanOrEqual(6);
    expect(client.state).toBe('unjoined');
  });

  test('the pauses grow up to a limit', () => {
    const backoff = new Backoff();
    const pauses = Array.from({ length: 9 }, () => backoff.pauseMs);
    expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 320, 320, 320]);
  });

  test('other requests are sent during the pause', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('join', BUSY, BUSY, BUSY, BUSY);
    const joining = client.join('g');
    await connection.untilTaken('join');
    await client.localNodeId();
    await joining;
    const types = connection.requests.map(({ type }) => type);
    expect(types.lastIndexOf('localGet')).toBeLessThan(types.lastIndexOf('join'));
  });

  test.each([
    [7, 'CS_ERR_INVALID_PARAM'],
    [14, 'CS_ERR_EXIST'],
    [12, 'CS_ERR_NOT_EXIST'],
    [2, 'CS_ERR_LIBRARY'],
    [999, 'CS_ERR_LIBRARY'],
    [0, 'CS_ERR_LIBRARY'],
  ] as const)('the error %i is %s at once', async (errno, code) => {
    const { client, connection } = await harness.unjoined();
    connection.script('join', errno);
    const error = await rejectionOf(client.join('g'));
    expect(error).toMatchObject(cpgError(code));
    expect(error.message).toMatch(/^join: /);
    expect(connection.taken('join')).toHaveLength(1);
  });
});

describe('a daemon that does not answer', () => {
  test('the request fails at the deadline; its late reply does not affect the next one', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
    connection.script('localGet', 'silence');
    expect(await rejectionOf(client.localNodeId())).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    const next = client.membership('g');
    await turns();
    // Sent only after the late reply: replies have no number, only their order.
    expect(connection.taken('iterationInitialize')).toEqual([]);
    connection.respond({ type: 'localGet', error: 1, nodeId: 66 });
    expect(await next).toEqual([{ nodeId: 1, pid: 0, reason: 0 }]);
    expect(await client.localNodeId()).toBe(1);
  });

  test('a reply of the same kind that comes late is not taken for the next one', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
    connection.script('localGet', 'silence', { type: 'localGet', error: 1, nodeId: 5 });
    expect(await rejectionOf(client.localNodeId())).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    const next = client.localNodeId();
    connection.respond({ type: 'localGet', error: 1, nodeId: 4 });
    expect(await next).toBe(5);
  });

  test('requests after it also time out, without being sent', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
    connection.script('localGet', 'silence');
    const [first, second] = await Promise.all([
      rejectionOf(client.localNodeId()),
      rejectionOf(client.membership('g')),
    ]);
    expect(first).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(second).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    connection.respond({ type: 'localGet', error: 1, nodeId: 1 });
    await client.localNodeId();
    expect(connection.taken('iterationInitialize')).toEqual([]);
  });

  test('a join with a late reply still counts', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
    connection.script('join', 'silence');
    expect(await rejectionOf(client.join('g'))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(client.state).toBe('joining');
    connection.respond({ type: 'join', error: 1 });
    await client.localNodeId();
    expect(client.state).toBe('joined');
    await client.leave();
  });

  test('a late refusal of a join leads back to unjoined', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
    connection.script('join', 'silence');
    expect(await rejectionOf(client.join('g'))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    connection.respond({ type: 'join', error: TRY_AGAIN });
    await client.localNodeId();
    expect(client.state).toBe('unjoined');
    await client.join('g');
  });

  test('close() waits for it no longer than its grace', async () => {
    const { client, connection } = await harness.joined({ timeoutMs: SHORT_MS });
    connection.hold();
    const pending = rejectionOf(client.localNodeId());
    await client.close();
    expect(client.state).toBe('closed');
    expect((await pending).code).toMatch(/CS_ERR_(TIMEOUT|BAD_HANDLE)/);
  });
});

describe('a daemon that answers something else', () => {
  test.each([
    ['another reply', { type: 'leave', error: 1 }],
    ['a reply with a field too many', Buffer.concat([header(7, 32), Buffer.alloc(9)])],
    ['a reply cut short', header(7, 24)],
    ['an unknown id', header(99, 24)],
    ['nothing but a length', Buffer.alloc(0)],
    ['an event', header(5, 24)],
  ] as const)('%s ends the connection with CS_ERR_MESSAGE_ERROR', async (_, reply) => {
    const { client, connection } = await harness.unjoined();
    const reasons: (CpgError | undefined)[] = [];
    client.on('close', (reason) => reasons.push(reason));
    connection.script('localGet', reply);
    const pending = Promise.all([
      rejectionOf(client.localNodeId()),
      rejectionOf(client.membership('g')),
      rejectionOf(client.join('g')),
    ]);
    for (const error of await pending) expect(error).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(client.state).toBe('closed');
    expect(reasons).toMatchObject([cpgError('CS_ERR_MESSAGE_ERROR')]);
    await client.close();
    expect(reasons).toHaveLength(1);
    expect(await rejectionOf(client.localNodeId())).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
    expect(connection.taken('iterationInitialize')).toEqual([]);
  });

  test('an unsolicited reply is detected with the next request', async () => {
    const { client, connection } = await harness.joined();
    connection.respond({ type: 'leave', error: 1 });
    expect(await rejectionOf(client.localNodeId())).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(client.state).toBe('closed');
  });

  function header(id: number, size: number): Buffer {
    const bytes = Buffer.alloc(24);
    bytes.writeInt32LE(id, 0);
    bytes.writeInt32LE(size, 8);
    bytes.writeInt32LE(1, 16);
    return bytes;
  }
});

describe('AbortSignal', () => {
  test('aborted before the call: rejects with its reason, sends nothing, changes no state', async () => {
    const { client, connection } = await harness.unjoined();
    const signal = AbortSignal.abort(new Error('of the test'));
    const before = connection.requests.length;
    expect(await reasonOf(client.join('g', { signal }))).toBe(signal.reason);
    expect(client.state).toBe('unjoined');
    expect(await reasonOf(client.localNodeId({ signal }))).toBe(signal.reason);
    expect(await reasonOf(client.membership('g', { signal }))).toBe(signal.reason);
    expect(await reasonOf(client.groups({ signal }).next())).toBe(signal.reason);
    await client.join('g');
    expect(await reasonOf(client.leave(undefined, { signal }))).toBe(signal.reason);
    expect(await reasonOf(client.mcast('m', { signal }))).toBe(signal.reason);
    expect(await reasonOf(client.mcast('m', { signal, confirm: true }))).toBe(signal.reason);
    expect(await reasonOf(client.mcast(Buffer.alloc(2 ** 21), { signal }))).toBe(signal.reason);
    expect(client.state).toBe('joined');
    await client.localNodeId();
    expect(connection.requests.slice(before).map(({ type }) => type)).toEqual(['join', 'localGet']);
  });

  test('aborted while queued: it is never sent', async () => {
    const { client, connection } = await harness.joined();
    connection.script('localGet', 'silence');
    const first = client.localNodeId();
    const controller = new AbortController();
    const { signal } = controller;
    const request = client.membership('g', { signal });
    const message = client.mcast('m', { signal });
    const fragmented = client.mcast(Buffer.alloc(2 ** 21), { signal });
    const behind = client.mcast('behind');
    await connection.untilTaken('localGet', 2);
    controller.abort(new Error('of the test'));
    expect(await reasonOf(request)).toBe(signal.reason);
    expect(await reasonOf(message)).toBe(signal.reason);
    expect(await reasonOf(fragmented)).toBe(signal.reason);
    connection.respond({ type: 'localGet', error: 1, nodeId: 1 });
    await Promise.all([first, behind]);
    await connection.untilTaken('mcast');
    expect(connection.texts).toEqual(['behind']);
    expect(connection.taken('iterationInitialize')).toEqual([]);
    expect(connection.taken('partialMcast')).toEqual([]);
  });

  test('aborted in flight: rejects immediately, and the next request still awaits the reply', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('localGet', 'silence');
    const controller = new AbortController();
    const request = client.localNodeId({ signal: controller.signal });
    await connection.untilTaken('localGet', 2);
    controller.abort('a reason');
    expect(await reasonOf(request)).toBe('a reason');
    const next = client.membership('g');
    await turns();
    expect(connection.taken('iterationInitialize')).toEqual([]);
    connection.respond({ type: 'localGet', error: 1, nodeId: 1 });
    expect(await next).toHaveLength(1);
  });

  test('aborted in the pause before a retry: it is not sent again', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('join', BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY);
    const controller = new AbortController();
    const joining = client.join('g', { signal: controller.signal });
    await connection.untilTaken('join', 3);
    await turns();
    controller.abort(new Error('of the test'));
    expect(await reasonOf(joining)).toBe(controller.signal.reason);
    await turns();
    expect(client.state).toBe('unjoined');
    await client.localNodeId();
    expect(connection.taken('join')).toHaveLength(3);
  });

  test('leaves no listener on the signal, whatever the outcome', async () => {
    const { client, connection } = await harness.joined();
    const { signal } = new AbortController();
    await client.localNodeId({ signal });
    await client.membership('g', { signal });
    await client.mcast('m', { signal });
    await client.mcast('m', { signal, confirm: true });
    await client.mcast(Buffer.alloc(2 ** 21), { signal });
    for await (const _ of client.groups({ signal })) expect(_).toBeUndefined();
    connection.script('iterationInitialize', 7);
    await rejectionOf(client.membership('g', { signal }));
    await client.leave(undefined, { signal });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});

describe('iterations', () => {
  test("membership always uses an iteration and keeps the daemon's order", async () => {
    const { client, connection } = await harness.unjoined();
    const order = Array.from({ length: 400 }, (_, index) => ({ nodeId: 1 + (index % 3), pid: 1000 + index }));
    // A daemon puts the first member first and each further one right behind it.
    connection.members = [order[0]!, ...order.slice(1).reverse()];
    expect(await client.membership('big')).toEqual(order.map((address) => ({ ...address, reason: 0 })));
    expect(connection.taken('membershipGet')).toEqual([]);
    expect(connection.taken('iterationFinalize')).toHaveLength(1);
  });

  test('membership: the signal ends it, and the snapshot is released', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationNext', 1, 'silence');
    const controller = new AbortController();
    const members = client.membership('g', { signal: controller.signal });
    members.catch(() => undefined);
    await connection.untilTaken('iterationNext', 2);
    controller.abort(new Error('of the test'));
    await expect(members).rejects.toThrow('of the test');
    connection.respond({ type: 'iterationNext', error: 27 });
    await connection.untilTaken('iterationFinalize');
  });

  test.each(['groups', 'membership'] as const)(
    '%s on a daemon that hangs takes one deadline',
    async (call) => {
      const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS });
      connection.script('iterationNext', 'silence');
      let deadlines = 0;
      const clock = setInterval(() => deadlines++, 1.5 * SHORT_MS);
      const asked = call === 'groups' ? client.groups().next() : client.membership('g');
      expect(await rejectionOf(asked)).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
      clearInterval(clock);
      expect(deadlines).toBe(0);
    },
  );

  test('the number of open snapshots is limited', async () => {
    const { client, connection } = await harness.unjoined();
    connection.members = [{ nodeId: 1, pid: 1 }];
    const open = Array.from({ length: 256 }, () => client.groups({ group: 'g' }));
    for (const rows of open) await rows.next();
    expect(await rejectionOf(client.groups().next())).toMatchObject(cpgError('CS_ERR_NO_RESOURCES'));
    await open[0]!.return?.();
    expect((await client.groups({ group: 'g' }).next()).done).toBe(false);
  });

  const row = (name: string, nodeId: number): CpgResponse => ({
    type: 'iterationNext',
    error: 1,
    group: Buffer.from(name),
    nodeId,
    pid: 7,
  });
  test('give the rows, and are finalized at the end', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationNext', row('a', 1), row('b', 2));
    const rows = [];
    for await (const entry of client.groups()) rows.push(entry);
    expect(rows).toEqual([
      { group: 'a', nodeId: 1, pid: 7 },
      { group: 'b', nodeId: 2, pid: 7 },
    ]);
    expect(connection.requests.slice(1)).toMatchObject([
      { type: 'iterationInitialize', iterationType: 3 },
      { type: 'iterationNext', handle: 77n },
      { type: 'iterationNext', handle: 77n },
      { type: 'iterationNext', handle: 77n },
      { type: 'iterationFinalize', handle: 77n },
    ]);
  });

  test('names only: the rest of a row is ignored', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationNext', row('a', 12345));
    const rows = [];
    for await (const entry of client.groups({ namesOnly: true })) rows.push(entry);
    expect(rows).toEqual([{ group: 'a', nodeId: 0, pid: 0 }]);
    expect(connection.taken('iterationInitialize')).toMatchObject([{ iterationType: 1 }]);
  });

  test('of one group', async () => {
    const { client, connection } = await harness.unjoined();
    connection.members = [];
    for await (const entry of client.groups({ group: 'one' })) expect(entry).toBeUndefined();
    const [request] = connection.taken('iterationInitialize');
    expect(request).toMatchObject({ iterationType: 2 });
    expect(Buffer.from(request!.group).toString()).toBe('one');
  });

  test('are finalized when the loop is left early', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationNext', row('a', 1), row('b', 2));
    for await (const { group } of client.groups()) {
      expect(group).toBe('a');
      break;
    }
    expect(connection.taken('iterationFinalize')).toHaveLength(1);
  });

  test('are finalized if they begin after the caller has given up', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationInitialize', 'silence');
    const controller = new AbortController();
    const first = client.groups({ signal: controller.signal }).next();
    first.catch(() => undefined);
    await connection.untilTaken('iterationInitialize');
    controller.abort(new Error('of the test'));
    await expect(first).rejects.toThrow('of the test');
    connection.respond({ type: 'iterationInitialize', error: 1, handle: 5n });
    await connection.untilTaken('iterationFinalize');
    expect(connection.taken('iterationFinalize')).toMatchObject([{ handle: 5n }]);
    expect(await client.localNodeId()).toBe(1);
  });

  test('are finalized when a step fails, and throw its error', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('iterationNext', 9);
    expect(await rejectionOf(client.groups().next())).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
    await connection.untilTaken('iterationFinalize');
    expect(connection.taken('iterationFinalize')).toHaveLength(1);
  });
});

describe('deadlines', () => {
  test("pass on the caller's reason, and remove the listener from the signal", () => {
    const controller = new AbortController();
    const deadline = new Deadline('a test', 60_000, controller.signal);
    controller.abort('a reason');
    expect(deadline.signal.reason).toBe('a reason');
    deadline.dispose();
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });

  test('abort with CS_ERR_TIMEOUT that names the call', async () => {
    const deadline = new Deadline('a test', 1);
    const error = await rejectionOf(untilAborted(new Promise(() => undefined), deadline.signal));
    expect(error).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(error.message).toContain('a test: no answer within 1 ms');
    expect(getEventListeners(deadline.signal, 'abort')).toEqual([]);
  });
});
