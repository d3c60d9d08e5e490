/** A daemon that stops, dies or goes mad after the handshake: everything settles, and nothing is left. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type CpgClient, type CpgError, type CpgErrorCode } from '../../src';
import { openDescriptors, openedSince } from '../support/descriptors';
import { cpgError, rejectionOf } from '../support/errors';
import { FakeDaemon, type FakeConnection, type FakeDaemonOptions } from '../support/fake-daemon';
import { turns } from '../support/fake-client';

const TIMEOUT_MS = 200;
const LATE_MS = 3000;

let before: string[];
let daemon: FakeDaemon;

beforeEach(() => {
  before = openDescriptors();
});
afterEach(async () => {
  await daemon.idle();
  const { leftovers } = daemon;
  await daemon.stop();
  expect(leftovers).toEqual([]);
  expect(openedSince(before)).toEqual([]);
});

async function start(options: FakeDaemonOptions = {}): Promise<void> {
  daemon = await FakeDaemon.start(options);
}

interface Connected {
  client: CpgClient;
  connection: FakeConnection;
  closed: Promise<CpgError | undefined>;
}

async function connected(): Promise<Connected> {
  // Not mapped: files are shortened under it, which would end the process.
  const client = await connect({ address: daemon.address, timeoutMs: TIMEOUT_MS, mapped: false });
  const closed = new Promise<CpgError | undefined>((resolve) => client.once('close', resolve));
  return { client, connection: daemon.connection, closed };
}

describe('while connect() asks its first question', () => {
  test('a daemon that never answers is CS_ERR_TIMEOUT', async () => {
    await start();
    const begin = Date.now();
    const connecting = rejectionOf(connect({ address: daemon.address, timeoutMs: TIMEOUT_MS }));
    (await daemon.connected()).hold();
    expect(await connecting).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(Date.now() - begin).toBeLessThan(TIMEOUT_MS + LATE_MS);
  });

  test('a daemon that holds us is CS_ERR_TIMEOUT', async () => {
    await start({
      answer: (answer, connection) => {
        connection.request.flowControl = 1;
        return answer;
      },
    });
    const connecting = rejectionOf(connect({ address: daemon.address, timeoutMs: TIMEOUT_MS }));
    expect(await connecting).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(daemon.connection.requests).toEqual([]);
  });

  test('a daemon that hangs up is CS_ERR_LIBRARY', async () => {
    await start();
    const connecting = rejectionOf(connect({ address: daemon.address, timeoutMs: TIMEOUT_MS }));
    (await daemon.connected()).drop();
    expect(await connecting).toMatchObject(cpgError('CS_ERR_LIBRARY'));
  });

  test('a daemon that answers another request is CS_ERR_MESSAGE_ERROR', async () => {
    await start();
    const connecting = rejectionOf(connect({ address: daemon.address, timeoutMs: TIMEOUT_MS }));
    (await daemon.connected()).script('localGet', { type: 'leave', error: 1 });
    expect(await connecting).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
  });

  test('a signal ends it', async () => {
    await start();
    const controller = new AbortController();
    const connecting = connect({ address: daemon.address, timeoutMs: 60_000, signal: controller.signal });
    connecting.catch(() => undefined);
    (await daemon.connected()).hold();
    controller.abort(new Error('of the test'));
    await expect(connecting).rejects.toThrow('of the test');
  });
});

const PHASES: Record<string, (client: CpgClient) => Promise<unknown>> = {
  join: (client) => client.join('g'),
  leave: (client) => client.join('g').then(() => client.leave()),
  membership: (client) => client.membership('g'),
  localNodeId: (client) => client.localNodeId(),
  groups: (client) => client.groups().next(),
  'mcast in fragments': (client) => client.join('g').then(() => client.mcast(Buffer.alloc(2 ** 21))),
};

const AWAITED = {
  join: 'join',
  leave: 'leave',
  membership: 'iterationInitialize',
  localNodeId: 'localGet',
  groups: 'iterationInitialize',
  'mcast in fragments': 'partialMcast',
} as const;

describe.each(Object.keys(PHASES))('while %s waits', (phase) => {
  const awaited = AWAITED[phase as keyof typeof AWAITED];

  const rows: [string, (connection: FakeConnection) => void, CpgErrorCode][] = [
    ['hangs up', (connection) => connection.drop(), 'CS_ERR_LIBRARY'],
    ['ends its side only', (connection) => void connection.socket.end(), 'CS_ERR_LIBRARY'],
    ['answers rubbish', (connection) => connection.respond(Buffer.alloc(24, 7)), 'CS_ERR_MESSAGE_ERROR'],
    [
      'damages the response ring',
      ({ response }) => {
        response.writePointer = response.words;
        response.semaphore = 1;
      },
      'CS_ERR_MESSAGE_ERROR',
    ],
    [
      'announces what is not there',
      (connection) => void connection.socket.write('x'),
      'CS_ERR_MESSAGE_ERROR',
    ],
  ];

  test.each(rows)('a daemon that %s: the call and the connection end', async (_, act, code) => {
    await start();
    const { client, connection, closed } = await connected();
    const already = connection.taken(awaited).length;
    connection.script(awaited, 'silence');
    const call = rejectionOf(PHASES[phase]!(client));
    await connection.untilTaken(awaited, already + 1);
    act(connection);
    expect(await call).toMatchObject(cpgError(code));
    expect(await closed).toMatchObject(cpgError(code));
    expect(client.state).toBe('closed');
    await client.close();
  });

  test('a daemon that is silent: CS_ERR_TIMEOUT, and close() still works', async () => {
    await start();
    const { client, connection } = await connected();
    connection.script(awaited, 'silence');
    expect(await rejectionOf(PHASES[phase]!(client))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    await client.close();
  });
});

describe('a joined member', () => {
  test('whose request ring is damaged: the connection ends with the next message', async () => {
    await start();
    const { client, connection, closed } = await connected();
    await client.join('g');
    connection.request.truncate('header', 100);
    const sent = rejectionOf(client.mcast('m'));
    expect(await closed).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect((await sent).code).toMatch(/CS_ERR_(MESSAGE_ERROR|BAD_HANDLE)/);
    await client.close();
  });

  test('whose event ring is cut short', async () => {
    await start();
    const { client, connection, closed } = await connected();
    await client.join('g');
    client.on('deliver', () => undefined);
    connection.event.truncate('data', 16);
    connection.socket.write(Buffer.alloc(1));
    expect(await closed).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    await client.close();
  });

  test('whose daemon is killed removes the rings that nobody else would', async () => {
    const child = spawn('sleep', ['60']);
    await start({ serverPid: child.pid! });
    const { client, connection, closed } = await connected();
    await client.join('g');
    child.kill('SIGKILL');
    await once(child, 'exit');
    connection.die();
    expect(await closed).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    await client.close();
    expect(daemon.leftovers).toEqual([]);
  });

  test('whose daemon hangs up while thousands of messages wait: all settle', async () => {
    await start({ words: 1024 });
    const { client, connection, closed } = await connected();
    await client.join('g');
    connection.hold();
    const sent = Array.from({ length: 2000 }, (_, index) =>
      client.mcast(`${index}`).catch((error: unknown) => error),
    );
    connection.drop();
    const results = await Promise.all(sent);
    expect(await closed).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    expect(results.at(-1)).toMatchObject(cpgError('CS_ERR_LIBRARY'));
  });

  test('close() at the same time as a hang-up', async () => {
    await start();
    const { client, connection } = await connected();
    await client.join('g');
    const closing = client.close();
    connection.drop();
    await Promise.all([closing, client.close()]);
    expect(client.state).toBe('closed');
  });

  test('connecting and closing again and again leaves nothing', async () => {
    await start();
    for (let round = 0; round < 20; round++) {
      const client = await connect({ address: daemon.address, timeoutMs: 5000 });
      await client.join(`g${round}`);
      await client.mcast('m');
      if (round % 2 === 0) await client.close();
      else {
        daemon.connections.at(-1)!.drop();
        await new Promise((resolve) => client.once('close', resolve));
      }
    }
    await daemon.idle();
    expect(daemon.connections).toHaveLength(20);
    await turns(2);
  });
});
