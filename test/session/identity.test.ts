/** The pid that a join announces: given, seen by the daemon, or drawn because the daemon sees none. */
import crypto from 'node:crypto';
import { startServer } from '../../src/server';
import { Identity } from '../../src/session/identity';
import { cpgError, rejectionOf } from '../support/errors';
import { ClientHarness, SHORT_MS } from '../support/fake-client';

const EXIST = 14;
/** The pid that a daemon in another pid namespace sees. */
const UNSEEN = { clientPid: 0 };

const harness = new ClientHarness();
afterEach(() => jest.restoreAllMocks());

/** Draws these in turn instead of random ones. */
function draws(...pids: number[]): void {
  const randomInt = jest.spyOn(crypto, 'randomInt') as unknown as jest.Mock<number, [number, number]>;
  for (const pid of pids) randomInt.mockReturnValueOnce(pid);
}

function isDrawn(pid: number): boolean {
  return Number.isInteger(pid) && pid > 2 ** 22 && pid < 2 ** 31;
}

describe('the choice of the pid', () => {
  test('given, else seen by the daemon, else drawn', () => {
    expect(new Identity(5, 4711).pid).toBe(5);
    expect(new Identity(5, 0).pid).toBe(5);
    expect(new Identity(undefined, 4711).pid).toBe(4711);
    expect(isDrawn(new Identity(undefined, 0).pid)).toBe(true);
  });

  test('neither 0 nor process.pid is announced, and no two handles draw the same', async () => {
    const announced: number[] = [];
    for (let index = 0; index < 4; index++) {
      const { client, connection } = await harness.joined({}, UNSEEN);
      const [join] = connection.taken('join');
      expect(join!.pid).toBe(client.pid);
      announced.push(client.pid);
    }
    expect(announced.every(isDrawn)).toBe(true);
    expect(new Set(announced).size).toBe(4);
  });

  test('the limits of a draw', () => {
    const randomInt = jest.spyOn(crypto, 'randomInt');
    new Identity(undefined, 0);
    // The upper one is not drawn itself.
    expect(randomInt).toHaveBeenCalledWith(2 ** 22 + 1, 2 ** 31);
  });
});

describe('a pid that is taken', () => {
  test('another one is drawn; messages, confirmations and the leave use it', async () => {
    draws(5_000_001, 5_000_002, 5_000_003);
    const { client, connection } = await harness.unjoined({}, UNSEEN);
    expect(client.pid).toBe(5_000_001);
    connection.script('join', EXIST, EXIST);
    await client.join('g');
    expect(connection.taken('join').map(({ pid }) => pid)).toEqual([5_000_001, 5_000_002, 5_000_003]);
    expect([client.state, client.pid]).toEqual(['joined', 5_000_003]);
    await client.mcast('one', { confirm: true });
    await client.leave();
    expect(connection.taken('leave')[0]!.pid).toBe(5_000_003);
  });

  test('the draws are limited, and the error says what to do', async () => {
    const { client, connection } = await harness.unjoined({}, UNSEEN);
    connection.script('join', ...Array.from({ length: 100 }, () => EXIST));
    const error = await rejectionOf(client.join('g'));
    expect(error).toMatchObject(cpgError('CS_ERR_EXIST'));
    expect(error.remedy).toMatch(/option pid/);
    expect(connection.taken('join').length).toBeGreaterThan(2);
    expect(connection.taken('join').length).toBeLessThan(20);
    expect(client.state).toBe('unjoined');
  });

  test.each([
    ['given', { pid: 815 }, UNSEEN],
    ['seen by the daemon', {}, { clientPid: 815 }],
  ])('one that was %s stays, and the error says who may have it', async (_, options, daemon) => {
    const { client, connection } = await harness.unjoined(options, daemon);
    connection.script('join', EXIST);
    const error = await rejectionOf(client.join('g'));
    expect(error).toMatchObject(cpgError('CS_ERR_EXIST'));
    expect(error.message).toMatch(
      /^join: pid 815 .*another handle of this process.*another pid namespace.*option pid/,
    );
    expect(connection.taken('join')).toHaveLength(1);
    expect(client.pid).toBe(815);
  });

  test('no more draws after the caller has given up', async () => {
    const { client, connection } = await harness.unjoined({ timeoutMs: SHORT_MS }, UNSEEN);
    connection.script('join', 'silence');
    expect(await rejectionOf(client.join('g'))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    connection.respond({ type: 'join', error: EXIST });
    await client.localNodeId();
    expect(connection.taken('join')).toHaveLength(1);
    expect(client.state).toBe('unjoined');
  });
});

test('a real service refuses a taken pid and accepts another one', async () => {
  const server = await startServer();
  const clients = await Promise.all([3, 3, 4].map((pid) => server.connect({ pid })));
  try {
    const [one, same, other] = clients;
    await one!.join('g');
    expect((await rejectionOf(same!.join('g'))).remedy).toMatch(/option pid/);
    await other!.join('g');
  } finally {
    await Promise.all(clients.map((client) => client.close()));
    await server.close();
  }
});
