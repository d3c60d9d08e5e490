/** When a cluster is at rest, and that stop() waits until clients have had their events. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import type { CpgClient } from '../../src';
import { SimulatedCluster, type ClusterOptions } from '../../src/server';
import { builtCli } from '../cli/harness';
import { RawClient } from '../conformance/raw-client';
import { Collector } from '../support/collector';
import { HostileClient } from './hostile-client';

jest.setTimeout(60_000);

let cluster: SimulatedCluster;

async function start(options: ClusterOptions): Promise<void> {
  cluster = await SimulatedCluster.start(options);
}

type Member = Collector & { client: CpgClient };

async function members(count: number): Promise<Member[]> {
  const seen: Member[] = [];
  for (let index = 0; index < count; index++) {
    const client = await cluster.nodes[index % cluster.nodes.length]!.connect();
    seen.push(Object.assign(new Collector(client), { client }));
    await client.join('g');
  }
  return seen;
}

afterEach(async () => {
  HostileClient.destroyAll();
  await cluster.stop();
});

describe('settled()', () => {
  test('all have the membership, and all messages', async () => {
    await start({ nodes: 3 });
    const seen = await members(3);
    for (const { client } of seen)
      for (let index = 0; index < 100; index++) client.mcast(`${index}`).catch(() => undefined);
    cluster.partition([1], [2, 3]);
    cluster.heal();
    await cluster.settled();
    for (const { confchgs } of seen) expect(confchgs.at(-1)!.members).toHaveLength(3);
    expect(seen[1]!.texts).toEqual(seen[2]!.texts);
    expect(seen[0]!.texts.filter((_, index) => seen[0]!.deliveries[index]!.own)).toHaveLength(100);
  });

  test('messages sent in response to an event count', async () => {
    await start({ nodes: 2 });
    const [one, two] = await members(2);
    await cluster.settled();
    two!.client.on('deliver', ({ own, message }) => {
      const number = Number(message.toString());
      if (!own && number < 50) two!.client.mcast(`${number + 1}`).catch(() => undefined);
    });
    one!.client.on('deliver', ({ own, message }) => {
      const number = Number(message.toString());
      if (!own && number < 50) one!.client.mcast(`${number + 1}`).catch(() => undefined);
    });
    await one!.client.mcast('0');
    await cluster.settled();
    expect(one!.texts.at(-1)).toBe('50');
    expect(two!.texts).toEqual(one!.texts);
  });

  test('delayed messages are waited for', async () => {
    await start({ nodes: 2 });
    const [one, two] = await members(2);
    cluster.node(1).inject({ delayMs: [50, 100] });
    await one!.client.mcast('late');
    await cluster.settled();
    expect(two!.texts).toEqual(['late']);
  });

  test('a restart is waited for', async () => {
    await start({ nodes: 2 });
    const restarting = cluster.node(2).restart();
    await cluster.settled();
    expect(cluster.node(2).running).toBe(true);
    await restarting;
  });

  test('a large message, and many', async () => {
    await start({ nodes: 2 });
    const [one, two] = await members(2);
    await one!.client.mcast(Buffer.alloc(8_000_000));
    await Promise.all(Array.from({ length: 5000 }, (_, index) => one!.client.mcast(`${index}`)));
    await cluster.settled();
    expect(two!.deliveries).toHaveLength(5001);
  });

  test('with the manual clock everything is ordered', async () => {
    await start({ nodes: 2, clock: 'manual' });
    const [one, two] = await members(2);
    cluster.node(1).inject({ delayMs: 60_000 });
    await one!.client.mcast('later');
    await cluster.settled();
    expect(cluster.nowMs).toBe(60_000);
    expect(two!.texts).toEqual(['later']);
    expect(two!.confchgs.at(-1)!.members).toHaveLength(2);
  });

  test('it names the client that does not read', async () => {
    await start({ nodes: 1 });
    const reader = await RawClient.connect(cluster.node(1).address);
    const [one] = await members(1);
    const manual = await cluster.node(1).connect({ dispatch: 'manual' });
    await manual.join('g');
    for (let index = 0; index < 5; index++) await one!.client.mcast(Buffer.alloc(900_000));
    await one!.until('all of it', ({ deliveries }) => deliveries.length === 5);
    await expect(cluster.settled({ timeoutMs: 50 })).rejects.toMatchObject({
      code: 'CS_ERR_TIMEOUT',
      message: expect.stringContaining(
        `client ${manual.pid} of node 1 has not taken all its events`,
      ) as string,
    });
    await reader.kill();
  });

  test('clients that never stop do not hold it longer than its time', async () => {
    await start({ nodes: 1 });
    const [one] = await members(1);
    one!.client.on('deliver', () => void one!.client.mcast('again').catch(() => undefined));
    await one!.client.mcast('first');
    await expect(cluster.settled({ timeoutMs: 50 })).rejects.toMatchObject({ code: 'CS_ERR_TIMEOUT' });
  });

  test('a signal ends it', async () => {
    await start({ nodes: 1 });
    const [one] = await members(1);
    cluster.node(1).inject({ delayMs: 60_000 });
    await one!.client.mcast('late');
    const controller = new AbortController();
    const waiting = cluster.settled({ signal: controller.signal });
    const reason = new Error('of the test');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(cluster.settled({ signal: controller.signal })).rejects.toBe(reason);
  });

  test('nonsense', async () => {
    await start({ nodes: 1 });
    await expect(cluster.settled({ timeoutMs: -1 })).rejects.toMatchObject({ code: 'CS_ERR_INVALID_PARAM' });
    await expect(cluster.settled({ time: 1 } as object)).rejects.toMatchObject({
      code: 'CS_ERR_INVALID_PARAM',
    });
  });
});

describe('stop()', () => {
  test.each([1, 5000])('clients have had their events, %i of them', async (count) => {
    await start({ nodes: 2 });
    const [one, two] = await members(2);
    await Promise.all(Array.from({ length: count }, (_, index) => one!.client.mcast(`${index}`)));
    await cluster.stop();
    expect(two!.texts).toEqual(Array.from({ length: count }, (_, index) => `${index}`));
    expect(two!.closed?.[0]).toMatchObject({ code: 'CS_ERR_LIBRARY', reason: 'connection-lost' });
  });

  test('events that wait for room in the rings count, too', async () => {
    await start({ nodes: 1 });
    const sender = await cluster.node(1).connect();
    const reader = await cluster.node(1).connect();
    await sender.join('g');
    await reader.join('g');
    let delivered = 0;
    const reading = (async () => {
      for await (const { type } of reader) if (type === 'deliver') delivered++;
    })().catch(() => undefined);
    for (let index = 0; index < 20; index++) await sender.mcast(Buffer.alloc(500_000));
    await cluster.stop();
    await reading;
    expect(delivered).toBe(20);
  });

  test('a client in another process', async () => {
    await start({ nodes: 1 });
    const program = `
      const { connect } = require(${JSON.stringify(dirname(dirname(builtCli())))});
      (async () => {
        const client = await connect({ address: ${JSON.stringify(cluster.node(1).address)} });
        let count = 0;
        client.on('deliver', () => count++);
        client.on('close', () => require('node:fs').writeSync(1, 'had ' + count));
        await client.join('g');
        require('node:fs').writeSync(1, 'ready ');
      })();`;
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (bytes) => (output += String(bytes)));
    const ended = once(child, 'close');
    await once(child.stdout, 'data');
    const [one] = await members(1);
    await Promise.all(Array.from({ length: 20_000 }, (_, index) => one!.client.mcast(`${index}`)));
    await cluster.stop();
    await ended;
    expect(output).toBe('ready had 20000');
  });

  test('a client that does not read is not waited for long', async () => {
    await start({ nodes: 1 });
    await HostileClient.connect(cluster.node(1).address, false);
    const manual = await cluster.node(1).connect({ dispatch: 'manual' });
    await manual.join('g');
    for (let index = 0; index < 5; index++) await manual.mcast(Buffer.alloc(900_000));
    const begun = performance.now();
    await cluster.stop();
    expect(performance.now() - begun).toBeLessThan(2000);
    expect(manual.state).toBe('closed');
  });
});
