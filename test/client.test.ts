/** The facade's own checks of arguments, for callers without types, and its integration with Node. */
import { execFile } from 'node:child_process';
import { inspect, promisify } from 'node:util';
import { connect, Guarantee, type CpgClient } from '../src';
import { startServer, type CpgServer } from '../src/server';

describe('arguments of the wrong kind are CS_ERR_INVALID_PARAM', () => {
  let server: CpgServer;
  let client: CpgClient;
  const invalid = expect.objectContaining({ code: 'CS_ERR_INVALID_PARAM' }) as Error;

  beforeAll(async () => {
    server = await startServer();
    client = await server.connect();
    await client.join('g');
  });
  afterAll(() => server.close());

  test.each([0, -1, 1.5, 2 ** 32, NaN])('connect with pid %p', async (pid) => {
    await expect(connect({ address: server.address, pid })).rejects.toEqual(invalid);
  });

  test.each([0, -5, NaN])('connect with timeoutMs %p', async (timeoutMs) => {
    await expect(connect({ address: server.address, timeoutMs })).rejects.toEqual(invalid);
  });

  test('connect with another dispatch', async () => {
    await expect(connect({ address: server.address, dispatch: 'never' as 'auto' })).rejects.toEqual(invalid);
  });

  test.each([undefined, null, 7, {}, [1], ['text']])('a message that is %p', async (message) => {
    await expect(client.mcast(message as string)).rejects.toEqual(invalid);
    expect(() => client.tryMcast(message as string)).toThrow(invalid);
  });

  test.each([5, {}])('connect with the address %p', async (address) => {
    await expect(connect({ address: address as string })).rejects.toEqual(invalid);
  });

  test.each(['SOMETIMES', 'toString', 4, -1])('the guarantee %p', async (guarantee) => {
    await expect(client.mcast('x', { guarantee: guarantee as 'SAFE' })).rejects.toEqual(invalid);
  });

  test.each(['some', '', undefined])('dispatch with the flag %p', async (flag) => {
    const manual = await connect({ address: server.address, dispatch: 'manual' });
    await expect(manual.dispatch(flag as 'all')).rejects.toEqual(invalid);
    await manual.close();
  });

  test.each([undefined, null, 7, ['g']])('a group that is %p', async (group) => {
    await expect(client.join(group as unknown as string)).rejects.toEqual(invalid);
    if (group !== undefined)
      await expect(client.membership(group as unknown as string)).rejects.toEqual(invalid);
  });

  test.each([-1, 1.5, NaN, Infinity])('alloc of %p', (size) => {
    expect(() => client.alloc(size)).toThrow(invalid);
  });

  test('a guarantee may be a number, as in C', async () => {
    for (const guarantee of Object.values(Guarantee)) await client.mcast('x', { guarantee });
  });

  test('and the handle still works', async () => {
    await client.mcast('x', { confirm: true });
  });
});

test("leaving an `await using` block closes; the context is the user's own value", async () => {
  const server = await startServer();
  try {
    const client = await server.connect();
    expect(client.context).toBeUndefined();
    const mine = { any: 'thing' };
    client.context = mine;
    expect(client.context).toBe(mine);
    const closed = jest.fn();
    client.on('close', closed);
    await client[Symbol.asyncDispose]();
    expect(client.state).toBe('closed');
    expect(closed.mock.calls).toEqual([[]]);
    await client[Symbol.asyncDispose]();
  } finally {
    await server.close();
  }
});

describe('console.log(client)', () => {
  test('shows address, state, group and our own address, and nothing else', async () => {
    const server = await startServer();
    try {
      const client = await server.connect();
      const shown = {
        address: server.address,
        state: 'unjoined',
        group: undefined,
        nodeId: 1,
        pid: client.pid,
      };
      expect(inspect(client)).toBe(`CpgClient ${inspect(shown)}`);
      await client.join('g');
      client.context = 'not shown';
      expect(inspect(client)).toBe(`CpgClient ${inspect({ ...shown, state: 'joined', group: 'g' })}`);
      await client.close();
      expect(inspect(client, { breakLength: Infinity })).toContain("state: 'closed', group: 'g', nodeId: 1");
    } finally {
      await server.close();
    }
  });
});

test('many calls may share a signal: Node does not warn of a leak', async () => {
  const server = await startServer();
  const program = `
    const { connect } = require(${JSON.stringify(require.resolve('../dist/index.js'))});
    (async () => {
      const { signal } = new AbortController();
      const client = await connect({ address: ${JSON.stringify(server.address)}, signal });
      await client.join('g', { signal });
      await Promise.all(Array.from({ length: 20 }, (_, index) => [
        client.mcast('m', { signal }),
        client.mcast('m', { signal, confirm: true }),
        client.mcast(Buffer.alloc(2 ** 20), { signal }),
        client.localNodeId({ signal }),
        client.membership('g', { signal }),
      ]).flat());
      await client.close();
      console.log('done');
    })();`;
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ['-e', program]);
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
  } finally {
    await server.close();
  }
});
