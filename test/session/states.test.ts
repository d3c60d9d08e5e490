/** Every call in every state: in the table, and with a real client on a daemon. */
import type { CpgClient, SessionState } from '../../src';
import { SESSION_TABLE, type SessionCall } from '../../src/session/states';
import { ClientHarness, type Pair } from '../support/fake-client';
import { cpgError, rejectionOf, thrownBy } from '../support/errors';

type Outcome = 'ok' | 'CS_ERR_INVALID_PARAM' | 'CS_ERR_NOT_EXIST' | 'CS_ERR_BUSY' | 'CS_ERR_BAD_HANDLE';

/** As in the contract. */
const EXPECTED: Record<SessionState, Record<SessionCall, Outcome>> = {
  unjoined: { join: 'ok', leave: 'CS_ERR_NOT_EXIST', mcast: 'CS_ERR_NOT_EXIST', query: 'ok' },
  joining: { join: 'CS_ERR_INVALID_PARAM', leave: 'CS_ERR_BUSY', mcast: 'CS_ERR_NOT_EXIST', query: 'ok' },
  joined: { join: 'CS_ERR_INVALID_PARAM', leave: 'ok', mcast: 'ok', query: 'ok' },
  leaving: {
    join: 'CS_ERR_INVALID_PARAM',
    leave: 'CS_ERR_NOT_EXIST',
    mcast: 'CS_ERR_NOT_EXIST',
    query: 'ok',
  },
  left: { join: 'CS_ERR_INVALID_PARAM', leave: 'CS_ERR_NOT_EXIST', mcast: 'CS_ERR_NOT_EXIST', query: 'ok' },
  closed: {
    join: 'CS_ERR_BAD_HANDLE',
    leave: 'CS_ERR_BAD_HANDLE',
    mcast: 'CS_ERR_BAD_HANDLE',
    query: 'CS_ERR_BAD_HANDLE',
  },
};

const states = Object.keys(EXPECTED) as SessionState[];

test('the table', () => {
  const codes = Object.fromEntries(
    Object.entries(SESSION_TABLE).map(([state, row]) => [
      state,
      Object.fromEntries(Object.entries(row).map(([call, cell]) => [call, cell === 'ok' ? 'ok' : cell.code])),
    ]),
  );
  expect(codes).toEqual(EXPECTED);
});

/** Calls of the client, and the request that each sends. */
const CALLS: Record<
  string,
  { needs: SessionCall; request: string; call: (client: CpgClient) => Promise<unknown> }
> = {
  join: { needs: 'join', request: 'join', call: (client) => client.join('g') },
  'join of another group': { needs: 'join', request: 'join', call: (client) => client.join('h') },
  leave: { needs: 'leave', request: 'leave', call: (client) => client.leave() },
  'leave by name': { needs: 'leave', request: 'leave', call: (client) => client.leave('g') },
  mcast: { needs: 'mcast', request: 'mcast', call: (client) => client.mcast('m') },
  'mcast with confirm': {
    needs: 'mcast',
    request: 'mcast',
    call: (client) => client.mcast('m', { confirm: true }),
  },
  'mcast in fragments': {
    needs: 'mcast',
    request: 'partialMcast',
    call: (client) => client.mcast(Buffer.alloc(1024 * 1024)),
  },
  tryMcast: {
    needs: 'mcast',
    request: 'mcast',
    call: async (client) => {
      expect(client.tryMcast('m')).toBe(true);
    },
  },
  membership: { needs: 'query', request: 'iterationInitialize', call: (client) => client.membership('g') },
  localNodeId: { needs: 'query', request: 'localGet', call: (client) => client.localNodeId() },
  groups: { needs: 'query', request: 'iterationInitialize', call: (client) => client.groups().next() },
};

describe('a real client', () => {
  const harness = new ClientHarness();

  const group = Buffer.from('g');
  const change = { type: 'confchg' as const, group, members: [], left: [], joined: [] };

  test.each(['listener', 'loop', 'manual dispatch'])('an own confchg means joined: %s', async (how) => {
    const manual = how === 'manual dispatch';
    const { client, connection } = await harness.unjoined({ dispatch: manual ? 'manual' : 'auto' });
    connection.script('join', 'silence');
    const seen = new Promise<string>((resolve, reject) => {
      const send = (): void => {
        const state = client.state;
        client.mcast('state, please').then(() => resolve(state), reject);
      };
      if (how === 'loop') void client[Symbol.asyncIterator]().next().then(send);
      else client.once('confchg', send);
    });
    const joining = client.join('g');
    await connection.untilTaken('join');
    const self = { nodeId: 1, pid: client.pid, reason: 0 };
    connection.send({ ...change, members: [self], joined: [{ ...self, reason: 1 }] });
    if (manual) await client.dispatch('one');
    expect(await seen).toBe('joined');
    connection.respond({ type: 'join', error: 1 });
    await joining;
    expect(client.state).toBe('joined');
  });

  test('a confchg that does not show us says nothing', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('join', 'silence');
    const joining = client.join('g');
    await connection.untilTaken('join');
    const seen = new Promise((resolve) => client.once('confchg', () => resolve(client.state)));
    connection.send({ ...change, members: [{ nodeId: 2, pid: client.pid, reason: 0 }] });
    expect(await seen).toBe('joining');
    connection.respond({ type: 'join', error: 1 });
    await joining;
  });

  test('an own confchg that shows us among those who left means left, before the reply', async () => {
    const { client, connection } = await harness.joined();
    connection.script('leave', 'silence');
    const leaving = client.leave();
    await connection.untilTaken('leave');
    const seen = new Promise((resolve) => client.once('confchg', () => resolve(client.state)));
    connection.send({ ...change, left: [{ nodeId: 1, pid: client.pid, reason: 2 }] });
    expect(await seen).toBe('left');
    connection.respond({ type: 'leave', error: 1 });
    await leaving;
    expect(client.state).toBe('left');
  });

  /** A client in the given state, and how to let go what it waits for. */
  async function inState(state: SessionState): Promise<Pair & { goOn: () => void }> {
    const pair = await harness.unjoined();
    const { client, connection } = pair;
    let goOn = (): void => undefined;
    if (state === 'unjoined') return { ...pair, goOn };
    if (state === 'joining') {
      connection.script('join', 'silence');
      const joining = client.join('g');
      await connection.untilTaken('join');
      goOn = () => {
        connection.respond({ type: 'join', error: 1 });
        void joining;
      };
      return { ...pair, goOn };
    }
    await client.join('g');
    if (state === 'leaving') {
      connection.script('leave', 'silence');
      const leaving = client.leave();
      await connection.untilTaken('leave');
      goOn = () => {
        connection.respond({ type: 'leave', error: 1 });
        void leaving;
      };
    }
    if (state === 'left') await client.leave();
    if (state === 'closed') await client.close();
    return { ...pair, goOn };
  }

  const rows = states.flatMap((state) =>
    Object.entries(CALLS).map(([name, { needs }]) => ({ state, name, outcome: EXPECTED[state][needs] })),
  );

  test.each(rows)('$state: $name is $outcome', async ({ state, name, outcome }) => {
    const { client, connection, goOn } = await inState(state);
    expect(client.state).toBe(state);
    const { call, request } = CALLS[name]!;
    const sentBefore = connection.requests.length;
    if (outcome === 'ok') {
      const result = call(client);
      goOn();
      await result;
      await connection.until(() =>
        connection.requests.slice(sentBefore).some(({ type }) => type === request),
      );
      return;
    }
    const error = await rejectionOf(call(client));
    expect(error).toMatchObject(cpgError(outcome));
    expect(error.message.startsWith(`${name.split(' ')[0]!}: `)).toBe(true);
    expect(client.state).toBe(state);
    goOn();
    if (state === 'closed') return;
    // A later request proves that the refused one was not on its way.
    await client.localNodeId();
    expect(connection.requests.slice(sentBefore).map(({ type }) => type)).toEqual(['localGet']);
  });

  test('tryMcast throws what mcast rejects with', async () => {
    const { client } = await inState('unjoined');
    expect(thrownBy(() => client.tryMcast('m'))).toMatchObject(cpgError('CS_ERR_NOT_EXIST'));
  });

  test('a second join says whether the first is done', async () => {
    const early = await inState('joining');
    expect((await rejectionOf(early.client.join('h'))).message).toContain('under way');
    early.goOn();
    const late = await inState('joined');
    expect((await rejectionOf(late.client.join('h'))).message).toContain('has joined a group already');
  });

  test('memory is for handles that are open', async () => {
    const { client } = await inState('closed');
    expect(thrownBy(() => client.alloc(5))).toMatchObject(cpgError('CS_ERR_BAD_HANDLE'));
  });

  test('a handle goes from unjoined to closed through all states, and tells its group on the way', async () => {
    const { client } = await harness.unjoined();
    expect([client.state, client.group]).toEqual(['unjoined', undefined]);
    const joining = client.join('g');
    expect([client.state, client.group]).toEqual(['joining', 'g']);
    await joining;
    expect([client.state, client.group]).toEqual(['joined', 'g']);
    const leaving = client.leave();
    expect(client.state).toBe('leaving');
    await leaving;
    expect([client.state, client.group]).toEqual(['left', 'g']);
    const closing = client.close();
    expect(client.state).toBe('closed');
    await closing;
  });

  test('a refused join leads back to unjoined, and may be tried again', async () => {
    const { client, connection } = await harness.unjoined();
    connection.script('join', 14);
    expect(await rejectionOf(client.join('g'))).toMatchObject(cpgError('CS_ERR_EXIST'));
    expect([client.state, client.group]).toEqual(['unjoined', undefined]);
    await client.join('h');
    expect([client.state, client.group]).toEqual(['joined', 'h']);
  });

  test('a refused leave leads back to joined', async () => {
    const { client, connection } = await harness.joined();
    connection.script('leave', 12);
    expect(await rejectionOf(client.leave())).toMatchObject(cpgError('CS_ERR_NOT_EXIST'));
    expect(client.state).toBe('joined');
    await client.leave();
    expect(client.state).toBe('left');
  });

  test.each(['h', '', 'g\0', Buffer.from('G'), 'x'.repeat(129)])(
    'a leave of another group (%j) is refused before anything is sent',
    async (group) => {
      const { client, connection } = await harness.joined();
      const expected = group.length > 128 ? 'CS_ERR_NAME_TOO_LONG' : 'CS_ERR_INVALID_PARAM';
      expect(await rejectionOf(client.leave(group))).toMatchObject(cpgError(expected));
      expect(client.state).toBe('joined');
      await client.localNodeId();
      expect(connection.taken('leave')).toEqual([]);
      await client.leave(Buffer.from('g'));
    },
  );

  test.each([
    ['', 'CS_ERR_INVALID_PARAM'],
    ['x'.repeat(129), 'CS_ERR_NAME_TOO_LONG'],
    [new Uint8Array(), 'CS_ERR_INVALID_PARAM'],
    [new Uint8Array(129), 'CS_ERR_NAME_TOO_LONG'],
  ] as const)('a join of %j is %s, with nothing sent and the state as it was', async (group, code) => {
    const { client, connection } = await harness.unjoined();
    expect(await rejectionOf(client.join(group))).toMatchObject(cpgError(code));
    expect([client.state, client.group]).toEqual(['unjoined', undefined]);
    await client.localNodeId();
    expect(connection.taken('join')).toEqual([]);
  });

  test.each([['x'.repeat(128)], [Buffer.from([0xff, 0xfe, 0])], ['with\0nul']])(
    'the group %j reaches the daemon byte by byte',
    async (group) => {
      const { client, connection } = await harness.unjoined({ pid: 4711 });
      await client.join(group, { initialTotemConfchg: true });
      const [request] = connection.taken('join');
      expect(Buffer.compare(request!.group, Buffer.from(group))).toBe(0);
      expect(request).toMatchObject({ pid: 4711, flags: 1 });
      await client.leave();
      expect(connection.taken('leave')[0]).toMatchObject({ pid: 4711, group: request!.group });
    },
  );

  test('membership without a group is that of the joined one, and CS_ERR_INVALID_PARAM before', async () => {
    const { client, connection } = await harness.unjoined();
    expect(await rejectionOf(client.membership())).toMatchObject(cpgError('CS_ERR_INVALID_PARAM'));
    await client.join('g');
    expect(await client.membership()).toEqual([{ nodeId: 1, pid: client.pid, reason: 0 }]);
    expect(connection.taken('iterationInitialize')).toHaveLength(1);
  });
});
