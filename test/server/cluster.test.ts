import type { CpgClient } from '../../src';
import { SimulatedCluster, type ClusterOptions } from '../../src/server';
import { Collector } from '../support/collector';
import { eventually, ringDirectories } from './leftovers';

let cluster: SimulatedCluster;

async function start(options: ClusterOptions): Promise<SimulatedCluster> {
  cluster = await SimulatedCluster.start(options);
  return cluster;
}

/** A member on each node, with what it sees. */
async function members(group = 'g'): Promise<{ client: CpgClient; seen: Collector }[]> {
  const joined = [];
  for (const node of cluster.nodes) {
    const client = await node.connect();
    const seen = new Collector(client);
    await client.join(group);
    joined.push({ client, seen });
  }
  return joined;
}

const memberNodes = ({ confchgs }: Collector): number[] | undefined =>
  confchgs.at(-1)?.members.map(({ nodeId }) => nodeId);

afterEach(async () => {
  await cluster.stop();
  expect(ringDirectories()).toEqual([]);
});

describe('nodes and network', () => {
  test('a partition and its end', async () => {
    await start({ nodes: 3 });
    const [one, two, three] = await members();
    await three!.seen.until('three members', (seen) => memberNodes(seen)?.length === 3);
    cluster.partition([1], [2, 3]);
    await one!.seen.until('being alone', (seen) => memberNodes(seen)?.join() === '1');
    await two!.seen.until('being two', (seen) => memberNodes(seen)?.join() === '2,3');
    await one!.client.mcast('alone', { confirm: true });
    await two!.client.mcast('together', { confirm: true });
    await three!.seen.until('a message', (seen) => seen.deliveries.length === 1);
    cluster.heal();
    await one!.seen.until('all', (seen) => memberNodes(seen)?.join() === '1,2,3');
    await one!.client.mcast('all', { confirm: true });
    await three!.seen.until('another message', (seen) => seen.deliveries.length === 2);
    expect(one!.seen.texts).toEqual(['alone', 'all']);
    expect(three!.seen.texts).toEqual(['together', 'all']);
  });

  test.each<[string, () => void]>([
    ['a partition', () => cluster.partition([1], [2])],
    ['a crash', () => cluster.node(1).crash()],
    ['a shutdown', () => cluster.node(1).stop()],
  ])('what was sent before %s is ordered before it', async (_what, happens) => {
    await start({ nodes: 2 });
    const [one, two] = await members();
    await two!.seen.until('two members', (seen) => memberNodes(seen)?.length === 2);
    // No turn of the event loop between the last message and what happens: the server has not read it yet.
    for (let number = 0; number < 300; number++) await one!.client.mcast(`${number}`);
    happens();
    await two!.seen.until('being alone', (seen) => memberNodes(seen)?.join() === '2');
    expect(two!.seen.texts).toHaveLength(300);
    cluster.heal();
    await two!.client.mcast('after', { confirm: true });
  });

  test.each<[string, () => void]>([
    ['a partition', () => cluster.partition([1], [2])],
    ['a crash', () => cluster.node(1).crash()],
    ['a shutdown', () => cluster.node(1).stop()],
  ])('so are many in batches, of which the last was not announced yet, before %s', async (_what, happens) => {
    await start({ nodes: 2 });
    const [one, two] = await members();
    await Promise.all(Array.from({ length: 20_000 }, (_, number) => one!.client.mcast(`${number}`)));
    happens();
    await cluster.settled();
    expect(two!.seen.texts).toHaveLength(20_000);
  });

  test('rings are numbered as totem numbers them', async () => {
    await start({ nodes: 3 });
    expect(cluster.node(2).ring).toEqual({ nodeId: 1, seq: 9n, members: [1, 2, 3] });
    cluster.partition([1, 2]);
    expect(cluster.node(3).ring).toEqual({ nodeId: 3, seq: 13n, members: [3] });
    cluster.node(3).crash();
    await cluster.node(3).restart();
    expect(cluster.node(3).ring).toEqual({ nodeId: 3, seq: 18n, members: [3] });
    cluster.heal();
    expect(cluster.node(3).ring).toEqual({ nodeId: 1, seq: 22n, members: [1, 2, 3] });
    cluster.heal();
    expect(cluster.node(3).ring.seq).toBe(22n);
  });

  test('a crash, seen by the clients of the node and by others', async () => {
    await start({ nodes: 2 });
    const [one, two] = await members();
    await one!.seen.until('both', (seen) => memberNodes(seen)?.join() === '1,2');
    cluster.node(2).crash();
    await two!.seen.until('its end', ({ closed }) => closed !== undefined);
    await one!.seen.until('the loss', (seen) => memberNodes(seen)?.join() === '1');
    expect(one!.seen.confchgs.at(-1)!.left).toMatchObject([{ nodeId: 2, reason: 3 }]);
    await expect(cluster.node(2).connect()).rejects.toMatchObject({ code: 'CS_ERR_LIBRARY' });
    await cluster.node(2).restart();
    const again = await cluster.node(2).connect();
    await again.join('g');
    await one!.seen.until('its return', (seen) => memberNodes(seen)?.join() === '1,2');
  });

  test('nonsense', async () => {
    const invalid = expect.objectContaining({ code: 'CS_ERR_INVALID_PARAM' }) as Error;
    await start({ nodes: [5, 9] });
    expect(cluster.nodes.map(({ nodeId }) => nodeId)).toEqual([5, 9]);
    expect(() => cluster.node(1)).toThrow(invalid);
    expect(() => cluster.partition([5], [5, 9])).toThrow(invalid);
    expect(() => cluster.partition([1])).toThrow(invalid);
    for (const faults of [
      { drop: 2 },
      { drop: NaN },
      { delayMs: -1 },
      { delayMs: Infinity },
      { delayMs: [2, 1] as const },
      { tryAgain: -1 },
      { tryAgain: 0.5 },
      { refuse: 'ENOENT' as 'EACCES' },
    ]) {
      expect(() => cluster.node(5).inject(faults)).toThrow(invalid);
    }
    await expect(cluster.step()).rejects.toMatchObject({ code: 'CS_ERR_INVALID_PARAM' });
    await expect(SimulatedCluster.start({ nodes: 0 })).rejects.toEqual(invalid);
    await expect(SimulatedCluster.start({ nodes: [1, 1] })).rejects.toEqual(invalid);
  });

  test('stop ends everything, also a restart under way', async () => {
    await start({ nodes: 2 });
    cluster.node(1).crash();
    cluster.node(1).crash();
    const restarting = cluster.node(1).restart();
    const stopping = cluster.stop();
    await expect(restarting).rejects.toMatchObject({ code: 'CS_ERR_BAD_HANDLE' });
    await stopping;
    await cluster.stop();
  });
});

describe('the manual clock', () => {
  test('nothing moves by itself', async () => {
    await start({ nodes: 2, clock: 'manual' });
    const [one, two] = await members();
    expect(cluster.waiting).toBe(2);
    expect(one!.seen.confchgs).toHaveLength(0);
    expect(await cluster.run()).toBe(2);
    await two!.client.mcast('ready');
    expect(await cluster.step()).toBe(true);
    expect(await cluster.step()).toBe(false);
    await one!.seen.until('the message', ({ deliveries }) => deliveries.length === 1);
  });

  test('a seed decides whose message is first, and the same one decides the same', async () => {
    const orders = new Set<string>();
    for (const seed of [1, 2, 3, 4, 1, 2, 3, 4]) {
      await start({ nodes: 3, clock: 'manual', seed });
      const all = await members();
      await cluster.run();
      for (const [index, { client }] of all.entries()) {
        for (const letter of ['a', 'b', 'c']) await client.mcast(`${letter}${index + 1}`);
      }
      await cluster.run();
      const [one, two, three] = all;
      await one!.seen.until('all', ({ deliveries }) => deliveries.length === 9);
      await three!.seen.until('all', ({ deliveries }) => deliveries.length === 9);
      expect(one!.seen.texts).toEqual(three!.seen.texts);
      expect(two!.seen.texts.filter((text) => text.endsWith('2'))).toEqual(['a2', 'b2', 'c2']);
      orders.add(one!.seen.texts.join());
      await cluster.stop();
    }
    expect(orders.size).toBe(4);
  });
});

/** A program with everything in it: faults, fragments, cuts and crashes. Returns what each client saw. */
async function liveThrough(seed: number): Promise<string[][]> {
  await start({ nodes: 3, clock: 'manual', seed });
  const logs: string[][] = [];
  const clients: CpgClient[] = [];
  for (const node of [...cluster.nodes, ...cluster.nodes]) {
    const client = await node.connect();
    const log: string[] = [];
    client.on('deliver', ({ pid, message }) => log.push(`${pid} ${message.length} ${message[0]}`));
    client.on('confchg', (event) => log.push(JSON.stringify(event)));
    client.on('totemConfchg', ({ ringId }) => log.push(`${ringId.nodeId}.${ringId.seq}`));
    await client.join('g', { initialTotemConfchg: true });
    clients.push(client);
    logs.push(log);
  }
  await cluster.run();
  cluster.node(1).inject({ drop: 0.1, delayMs: [0, 5] });
  const incidents: Record<number, () => void | Promise<void>> = {
    2: () => cluster.partition([1, 2], [3]),
    5: () => cluster.heal(),
    6: () => void clients[5]!.leave().catch(() => undefined),
    7: () => cluster.node(2).crash(),
    9: () => cluster.node(2).restart(),
  };
  for (let round = 0; round < 12; round++) {
    for (const [index, client] of clients.entries()) {
      const size = round === 4 && index === 0 ? 2_500_000 : 100 + 5000 * index;
      client.mcast(Buffer.alloc(size, round)).catch(() => undefined);
    }
    for (let count = 0; count < 7; count++) await cluster.step();
    cluster.advance(1);
    await incidents[round]?.();
  }
  await cluster.run();
  await cluster.stop();
  return logs;
}

test('with the manual clock the same program is the same life again', async () => {
  const first = await liveThrough(5);
  expect(first.every((log) => log.length > 10)).toBe(true);
  for (let again = 0; again < 3; again++) expect(await liveThrough(5)).toEqual(first);
  expect(await liveThrough(6)).not.toEqual(first);
});

describe('faults', () => {
  test('lost before they are ordered', async () => {
    await start({ nodes: 2, seed: 5 });
    const [one, two] = await members();
    cluster.node(1).inject({ drop: 0.5 });
    for (let number = 0; number < 100; number++) await one!.client.mcast(`${number}`);
    cluster.node(1).inject();
    await one!.client.mcast('end', { confirm: true });
    await two!.seen.until('the end', ({ texts }) => texts.includes('end'));
    expect(two!.seen.texts).toEqual(one!.seen.texts);
    expect(two!.seen.texts.length).toBeGreaterThan(20);
    expect(two!.seen.texts.length).toBeLessThan(80);
  });

  test('a confirmed message that is lost is reported', async () => {
    await start({ nodes: 1 });
    const [one] = await members();
    cluster.node(1).inject({ drop: 1 });
    const lost = one!.client.mcast('lost', { confirm: true });
    // Taken, and thrown away.
    await one!.client.localNodeId();
    cluster.node(1).inject();
    await one!.client.mcast('not lost', { confirm: true });
    await expect(lost).rejects.toMatchObject({ code: 'CS_ERR_FAILED_OPERATION' });
  });

  test('delays, in order', async () => {
    await start({ nodes: 2 });
    const [one, two] = await members();
    cluster.node(1).inject({ delayMs: [500, 520] });
    for (let number = 0; number < 20; number++) await one!.client.mcast(`slow ${number}`);
    await two!.client.mcast('fast', { confirm: true });
    await one!.seen.until('all', ({ deliveries }) => deliveries.length === 21);
    await two!.seen.until('all', ({ deliveries }) => deliveries.length === 21);
    expect(two!.seen.texts).toEqual(one!.seen.texts);
    expect(one!.seen.texts[0]).toBe('fast');
    expect(one!.seen.texts.slice(1)).toEqual(Array.from({ length: 20 }, (_, number) => `slow ${number}`));
  });

  test('delays by the manual clock', async () => {
    await start({ nodes: 2, clock: 'manual' });
    const [one, two] = await members();
    await cluster.run();
    cluster.node(1).inject({ delayMs: 1000 });
    await one!.client.mcast('slow');
    await two!.client.mcast('fast');
    expect(await cluster.step()).toBe(true);
    expect(await cluster.step()).toBe(false);
    cluster.advance(1000);
    expect(await cluster.step()).toBe(true);
    await one!.seen.until('both', ({ deliveries }) => deliveries.length === 2);
    expect(one!.seen.texts).toEqual(['fast', 'slow']);
  });

  test('try again', async () => {
    await start({ nodes: 1 });
    const client = await cluster.node(1).connect({ timeoutMs: 300 });
    cluster.node(1).inject({ tryAgain: 3 });
    await client.join('g');
    cluster.node(1).inject({ tryAgain: true });
    await expect(client.leave()).rejects.toMatchObject({ code: 'CS_ERR_TIMEOUT' });
  });

  test('refusals', async () => {
    await start({ nodes: 1 });
    cluster.node(1).inject({ refuse: 'EACCES' });
    await expect(cluster.node(1).connect()).rejects.toMatchObject({ code: 'CS_ERR_ACCESS' });
    cluster.node(1).inject({ refuse: 'EAGAIN' });
    const connecting = cluster.node(1).connect();
    setTimeout(() => cluster.node(1).inject(), 30);
    expect(await (await connecting).localNodeId()).toBe(1);
  });

  test('disconnecting one client, or all', async () => {
    await start({ nodes: 2 });
    const [one, two] = await members();
    expect(cluster.node(1).disconnect(4711)).toBe(0);
    expect(cluster.node(1).disconnect(one!.client.pid)).toBe(1);
    await one!.seen.until('its end', ({ closed }) => closed !== undefined);
    await two!.seen.until('its leave', ({ confchgs }) => confchgs.at(-1)?.left[0]?.reason === 5);
    expect(cluster.node(2).disconnect()).toBe(1);
    await eventually('the end of all', () => cluster.node(2).clients === 0);
  });

  test('an announced pid means all handles with it, and no others', async () => {
    await start({ nodes: 1 });
    const node = cluster.node(1);
    const clients = [await node.connect({ pid: 3 }), await node.connect({ pid: 3 }), await node.connect()];
    for (const [index, client] of clients.entries()) await client.join(`g${index}`);
    const ends = clients.map((client) => new Collector(client));
    expect(node.disconnect(3)).toBe(2);
    for (const end of ends.slice(0, 2)) await end.until('its end', ({ closed }) => closed !== undefined);
    // Its rings have the number after those two.
    expect(node.disconnect(clients[2]!.pid - 1)).toBe(0);
    expect(clients[2]!.state).toBe('joined');
  });
});
