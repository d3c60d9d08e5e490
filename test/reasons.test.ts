/** `CpgError.reason` tells apart causes that share a code. */
import { connect, type CpgClient, type CpgError, type CpgErrorReason } from '../src';
import * as libc from '../src/native/libc';
import { startServer } from '../src/server';
import { Bench, SHORT_MS, type Pair } from './support/fake-client';
import { rejectionOf, thrownBy } from './support/errors';

const bench = new Bench();

/** What the promise rejects with: code and reason. */
async function told(call: Promise<unknown>): Promise<[code: string, reason: CpgErrorReason | undefined]> {
  const { code, reason } = await rejectionOf(call);
  return [code, reason];
}

describe('connect', () => {
  test('nobody listens', async () => {
    expect(await told(connect({ address: '/nowhere/cpg' }))).toEqual(['CS_ERR_LIBRARY', 'no-daemon']);
    expect(await told(connect({ address: '@nobody listens here' }))).toEqual(['CS_ERR_LIBRARY', 'no-daemon']);
  });

  test('the daemon hangs up before it answers', async () => {
    const { address } = await bench.daemon({ onSocket: (socket) => void socket.destroy() });
    expect(await told(connect({ address }))).toEqual(['CS_ERR_LIBRARY', 'handshake-failed']);
  });

  test('the daemon does not answer', async () => {
    const { address } = await bench.daemon({ onSocket: (socket) => void socket.resume() });
    expect(await told(connect({ address, timeoutMs: SHORT_MS }))).toEqual(['CS_ERR_TIMEOUT', 'no-answer']);
  });

  test('the daemon does not allow this user, or is starting for too long', async () => {
    const server = await startServer();
    try {
      server.node.inject({ refuse: 'EACCES' });
      expect(await told(server.connect())).toEqual(['CS_ERR_ACCESS', 'not-allowed']);
      server.node.inject({ refuse: 'EAGAIN' });
      expect(await told(server.connect({ timeoutMs: SHORT_MS }))).toEqual([
        'CS_ERR_TIMEOUT',
        'refused-until-deadline',
      ]);
    } finally {
      await server.close();
    }
  });

  test('socket mode, and nothing that can do it', async () => {
    const { address } = await bench.daemon({
      answer: (answer) => ({ ...answer, connectionType: 0, event: '' }),
    });
    jest.spyOn(libc, 'findLibc').mockReturnValue(undefined);
    expect(await told(connect({ address }))).toEqual(['CS_ERR_NOT_SUPPORTED', 'socket-mode']);
    jest.restoreAllMocks();
  });

  test.each([
    [
      'libqb before 1.0.4',
      { request: 'cpg-request-1-2-3', response: 'cpg-response-1-2-3', event: 'cpg-event-1-2-3' },
      'CS_ERR_NOT_SUPPORTED',
      'old-libqb',
    ],
    ['a /dev/shm of its own', 'elsewhere', 'CS_ERR_LIBRARY', 'rings-not-there'],
  ] as const)('%s', async (_, change, code, reason) => {
    const { address } = await bench.daemon({
      answer: (answer, { directory }) => {
        if (change !== 'elsewhere') return { ...answer, ...change };
        const moved = (path: string): string => path.replace(directory, `${directory}x`);
        const { request, response, event } = answer;
        return { ...answer, request: moved(request), response: moved(response), event: moved(event) };
      },
    });
    expect(await told(connect({ address }))).toEqual([code, reason]);
  });
});

describe('a handle', () => {
  test('the daemon is lost', async () => {
    const { client, connection } = await bench.joined();
    const closed = new Promise<CpgErrorReason | undefined>((resolve) => {
      client.on('close', (error) => resolve(error?.reason));
    });
    connection.script('localGet', 'silence');
    const call = told(client.localNodeId());
    await connection.untilTaken('localGet', 2);
    connection.drop();
    expect(await call).toEqual(['CS_ERR_LIBRARY', 'connection-lost']);
    expect(await closed).toBe('connection-lost');
  });

  const STATES: [string, (pair: Pair) => Promise<unknown>, string, CpgErrorReason][] = [
    ['a second join', ({ client }) => client.join('h'), 'CS_ERR_INVALID_PARAM', 'second-join'],
    ['leave of another group', ({ client }) => client.leave('h'), 'CS_ERR_INVALID_PARAM', 'other-group'],
    ['an argument', ({ client }) => client.leave(5 as never), 'CS_ERR_INVALID_PARAM', 'bad-argument'],
    [
      'an option',
      ({ client }) => client.mcast('m', { confrim: true } as never),
      'CS_ERR_INVALID_PARAM',
      'bad-argument',
    ],
    ['mcast after a leave', leftThen((client) => client.mcast('m')), 'CS_ERR_NOT_EXIST', 'left'],
    ['join after a leave', leftThen((client) => client.join('g')), 'CS_ERR_INVALID_PARAM', 'left'],
    ['a refusal of the daemon', refusedBy(7), 'CS_ERR_INVALID_PARAM', 'refused'],
    ['an unknown refusal', refusedBy(999), 'CS_ERR_LIBRARY', 'refused'],
  ];
  test.each(STATES)('%s', async (_, call, code, reason) => {
    expect(await told(call(await bench.joined()))).toEqual([code, reason]);
  });

  function leftThen(call: (client: CpgClient) => Promise<void>): (pair: Pair) => Promise<void> {
    return async ({ client }) => {
      await client.leave();
      await call(client);
    };
  }

  function refusedBy(error: number): (pair: Pair) => Promise<unknown> {
    return ({ client, connection }) => {
      connection.script('localGet', error);
      return client.localNodeId();
    };
  }

  test('without a join, and while it is under way', async () => {
    const { client, connection } = await bench.unjoined();
    expect(await told(client.mcast('m'))).toEqual(['CS_ERR_NOT_EXIST', 'not-joined']);
    connection.script('join', 'silence');
    const joining = client.join('g');
    expect(await told(client.leave())).toEqual(['CS_ERR_BUSY', 'joining']);
    await connection.untilTaken('join');
    connection.respond({ type: 'join', error: 1 });
    await joining;
  });

  test('a pid that is taken', async () => {
    const { client, connection } = await bench.unjoined();
    connection.script('join', 14);
    expect(await told(client.join('g'))).toEqual(['CS_ERR_EXIST', 'pid-taken']);
  });

  test('nothing to dispatch', async () => {
    const { client } = await bench.joined({ dispatch: 'manual' });
    expect(await told(client.dispatch('oneNonblocking'))).toEqual(['CS_ERR_TRY_AGAIN', 'no-event']);
  });

  test('a message that was not sent, one that is sent later, one that was not confirmed', async () => {
    const { client, connection } = await bench.joined({ timeoutMs: SHORT_MS }, { words: 1024 });
    const other = await bench.joined({ timeoutMs: SHORT_MS });
    other.connection.echo = false;
    expect(await told(other.client.mcast('m', { confirm: true }))).toEqual([
      'CS_ERR_TIMEOUT',
      'not-confirmed',
    ]);
    connection.hold();
    const all = Array.from({ length: 200 }, () => client.mcast('m'.repeat(100)));
    const settled = await Promise.allSettled(all);
    const reasons = settled.flatMap((each) =>
      each.status === 'rejected' ? [(each.reason as CpgError).reason] : [],
    );
    expect(new Set(reasons)).toEqual(new Set(['sent-later', 'not-sent']));
    expect(reasons.indexOf('not-sent')).toBeGreaterThan(reasons.lastIndexOf('sent-later'));
  });

  test('a reason is absent where the code says it all', async () => {
    const { client } = await bench.joined();
    expect(thrownBy(() => client.alloc(2 ** 30))).not.toHaveProperty('reason');
  });
});
