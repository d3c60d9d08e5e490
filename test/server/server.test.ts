import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { spawnSync } from 'node:child_process';
import { connect } from '../../src';
import { encodeRequest, type CpgRequest } from '../../src/codec/requests';
import { decodeResponse } from '../../src/codec/responses';
import { startServer, type CpgServer } from '../../src/server';
import { builtCli } from '../cli/harness';
import { RawClient } from '../conformance/raw-client';
import { Collector } from '../support/collector';
import { eventually, openDescriptors, ringDirectories } from './leftovers';

/** Shared memory of another kind needs root. */
const CAN_MOUNT = spawnSync('unshare', ['-m', 'true']).status === 0;

let directory: string;
let server: CpgServer | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-test-'));
});

afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(directory, { recursive: true, force: true });
});

describe('addresses', () => {
  test('a private socket by default, gone after close', async () => {
    server = await startServer();
    const { address } = server;
    const client = await connect({ address });
    expect(await client.localNodeId()).toBe(1);
    await client.close();
    await server.close();
    expect(existsSync(address)).toBe(false);
    expect(existsSync(join(address, '..'))).toBe(false);
  });

  test('a private socket although the directory for temporary files has a long name', async () => {
    const usual = process.env['TMPDIR'];
    process.env['TMPDIR'] = join(directory, 'x'.repeat(90));
    try {
      server = await startServer();
      expect(await (await server.connect()).localNodeId()).toBe(1);
    } finally {
      if (usual === undefined) delete process.env['TMPDIR'];
      else process.env['TMPDIR'] = usual;
    }
  });

  test('a path, for its owner alone', async () => {
    const address = join(directory, 'socket');
    server = await startServer({ address, nodeId: 7 });
    expect(server.address).toBe(address);
    expect(statSync(address).mode & 0o777).toBe(0o600);
    const client = await server.connect();
    expect(await client.localNodeId()).toBe(7);
  });

  test('an abstract name', async () => {
    const address = `@cpg-test-${process.pid}`;
    server = await startServer({ address });
    const client = await connect({ address });
    expect(await client.localNodeId()).toBe(1);
    await expect(startServer({ address })).rejects.toMatchObject({ code: 'CS_ERR_EXIST' });
  });

  test('an address in use is not taken over', async () => {
    const address = join(directory, 'socket');
    server = await startServer({ address });
    await expect(startServer({ address })).rejects.toMatchObject({ code: 'CS_ERR_EXIST' });
    expect(await (await server.connect()).localNodeId()).toBe(1);
  });

  test('the socket of a dead server is replaced', async () => {
    const address = join(directory, 'socket');
    const script = `require('node:net').createServer().listen(${JSON.stringify(address)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(existsSync(address)).toBe(true);
    server = await startServer({ address });
    expect(await (await server.connect()).localNodeId()).toBe(1);
  });

  test('a file that is no socket is left alone', async () => {
    const address = join(directory, 'file');
    writeFileSync(address, 'precious');
    await expect(startServer({ address })).rejects.toMatchObject({ code: 'CS_ERR_EXIST' });
    expect(statSync(address).size).toBe(8);
  });

  test.each([
    ['cpg', 'CS_ERR_INVALID_PARAM'],
    [`/${'x'.repeat(200)}`, 'CS_ERR_INVALID_PARAM'],
    ['/nowhere/at/all', 'CS_ERR_LIBRARY'],
  ])('%s cannot be used', async (address, code) => {
    await expect(startServer({ address })).rejects.toMatchObject({ code });
  });

  test.each([0, -1, 1.5, 2 ** 32])('nodeid %p cannot be used', async (nodeId) => {
    await expect(startServer({ nodeId })).rejects.toMatchObject({ code: 'CS_ERR_INVALID_PARAM' });
  });
});

describe('a life', () => {
  test('everything a client does', async () => {
    server = await startServer();
    const one = await server.connect();
    const two = await server.connect();
    expect(one.pid).not.toBe(two.pid);
    const seenByOne = new Collector(one);
    const seenByTwo = new Collector(two);
    await one.join('group', { initialTotemConfchg: true });
    await two.join('group');
    await one.mcast('hello', { confirm: true });
    await two.mcast(Buffer.alloc(5_000_000, 'x'), { confirm: true });
    await seenByOne.until('both messages', ({ deliveries }) => deliveries.length === 2);
    await seenByTwo.until('both messages', ({ deliveries }) => deliveries.length === 2);
    expect(seenByOne.deliveries[0]).toMatchObject({ group: 'group', nodeId: 1, pid: one.pid });
    expect(Buffer.alloc(5_000_000, 'x').equals(seenByOne.deliveries[1]!.message)).toBe(true);
    expect(seenByOne.totem).toHaveLength(1);
    expect(seenByTwo.totem).toHaveLength(0);
    expect((await one.membership()).map(({ pid }) => pid)).toEqual([one.pid, two.pid]);
    for await (const row of one.groups({ namesOnly: true })) expect(row).toMatchObject({ group: 'group' });
    await one.leave();
    await seenByTwo.until('the leave', ({ confchgs }) => confchgs.at(-1)?.left.length === 1);
    await one.close();
    await two.close();
  });

  test('close() serves all its callers, and leaves nothing', async () => {
    const descriptors = openDescriptors();
    server = await startServer();
    const client = await server.connect();
    const collector = new Collector(client);
    await client.join('g');
    expect(ringDirectories()).toHaveLength(1);
    await Promise.all([server.close(), server.close()]);
    await server.close();
    await collector.until('its end', ({ closed }) => closed !== undefined);
    expect(collector.closed?.[0]).toMatchObject({ code: 'CS_ERR_LIBRARY' });
    expect(ringDirectories()).toEqual([]);
    await eventually('the closing of all descriptors', () => openDescriptors() <= descriptors);
    await expect(client.mcast('too late')).rejects.toMatchObject({ code: 'CS_ERR_BAD_HANDLE' });
  });

  test('rings are for their owner alone, and go with their client', async () => {
    server = await startServer();
    const client = await server.connect();
    const rings = join('/dev/shm', ringDirectories()[0]!);
    expect(statSync(rings).mode & 0o777).toBe(0o700);
    const files = readdirSync(rings);
    expect(files).toHaveLength(6);
    for (const file of files) expect(statSync(join(rings, file)).mode & 0o777).toBe(0o600);
    await client.close();
    await eventually('the removal of the rings', () => !existsSync(rings));
  });

  test.each<[string, string, number | null, string | null]>([
    ['SIGTERM', '', null, 'SIGTERM'],
    ['SIGINT', '', null, 'SIGINT'],
    ['SIGINT', "process.once('SIGINT', () => process.exit(7));", 7, null],
    ['SIGTERM', "process.once('SIGTERM', () => server.close().then(() => process.exit(8)));", 8, null],
  ])('%s leaves nothing either (%s)', (signal, listening, status, endedBy) => {
    const script = `
      const { startServer } = require(${JSON.stringify(resolve(builtCli(), '../../server'))});
      (async () => {
        const server = await startServer({ handleSignals: true });
        const client = await server.connect();
        await client.join('g');
        ${listening}
        console.log(process.pid, server.address);
        process.kill(process.pid, '${signal}');
      })();`;
    const ended = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    expect([ended.status, ended.signal]).toEqual([status, endedBy]);
    const [pid, address] = ended.stdout.trim().split(' ');
    expect(existsSync(join(address!, '..'))).toBe(false);
    expect(readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${pid}-`))).toEqual([]);
  });

  (CAN_MOUNT ? test.each : test.skip.each)([
    ['cannot be written', '-o ro', 0],
    ['is too small', '-o size=2M', 0],
    ['has room for a few rings', '-o size=16M', 2],
  ])('where shared memory %s', (_what, mountOptions, directories) => {
    const script = `
      const { readdirSync } = require('node:fs');
      const { startServer } = require(${JSON.stringify(resolve(builtCli(), '../../server'))});
      (async () => {
        const server = await startServer();
        const clients = [];
        for (let count = 0; count < 4; count++) clients.push(await server.connect());
        console.log(readdirSync('/dev/shm').filter((name) => name.startsWith('qb-')).length);
        for (const client of clients) {
          await client.join('g');
          // Round all rings.
          for (let sent = 0; sent < 4; sent++) await client.mcast(Buffer.alloc(900_000), { confirm: true });
        }
        for (const client of clients) await client.close();
        await server.close();
        console.log(readdirSync('/dev/shm').length);
      })();`;
    const mounted = `mount -t tmpfs ${mountOptions} none /dev/shm && exec "$0" -e "$1"`;
    const ended = spawnSync('unshare', ['-m', 'sh', '-c', mounted, process.execPath, script], {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: directory },
    });
    expect(ended.stderr).toBe('');
    expect(ended.stdout).toBe(`${directories}\n0\n`);
    expect(readdirSync(directory)).toEqual([]);
  });

  test('streams that were accepted elsewhere', async () => {
    const running = await startServer();
    server = running;
    const address = join(directory, 'elsewhere');
    const front = createServer((stream) => running.handle(stream));
    await new Promise<void>((resolve) => front.listen(address, resolve));
    const client = await connect({ address });
    expect(await client.localNodeId()).toBe(1);
    await client.close();
    // A node that does not run serves nobody.
    running.node.crash();
    await expect(connect({ address })).rejects.toMatchObject({ code: 'CS_ERR_LIBRARY' });
    expect(running.node.clients).toBe(0);
    front.close();
  });

  test('as many clients as it may serve', async () => {
    server = await startServer({ maxConnections: 2 });
    const first = await server.connect();
    await server.connect();
    await expect(server.connect()).rejects.toMatchObject({ code: 'CS_ERR_NO_RESOURCES' });
    await first.close();
    const { node } = server;
    await eventually('the end of the first', () => node.clients === 1);
    await server.connect();
  });
});

describe('without strict', () => {
  test('a client that left may join again, and hears nothing meanwhile', async () => {
    server = await startServer({ strict: false });
    const raw = await RawClient.connect(server.address);
    const ask = async (request: CpgRequest): Promise<number> =>
      decodeResponse(await raw.request(encodeRequest(request))).error;
    const group = Buffer.from('g');
    expect(await ask({ type: 'join', group: new Uint8Array(), pid: 5, flags: 0 })).toBe(7);
    expect(await ask({ type: 'join', group, pid: 5, flags: 0 })).toBe(1);
    await eventually('the join', () => raw.takeEvents().length === 1);
    expect(await ask({ type: 'leave', group: Buffer.from('other'), pid: 5 })).toBe(7);
    expect(await ask({ type: 'leave', group, pid: 5 })).toBe(1);
    await eventually('the leave', () => raw.takeEvents().length === 1);
    expect(await ask({ type: 'join', group, pid: 5, flags: 0 })).toBe(1);
    await eventually('the second join', () => raw.takeEvents().length === 1);
    const begun = decodeResponse(
      await raw.request(encodeRequest({ type: 'iterationInitialize', group, iterationType: 2 })),
    );
    const next = { type: 'iterationNext', handle: 'handle' in begun ? begun.handle : 0n } as const;
    // Its one row, and then the end as often as anybody asks.
    expect([await ask(next), await ask(next), await ask(next)]).toEqual([1, 27, 27]);
    await raw.kill();
  });
});
