/** Clients on three private corosync nodes, alone and together with libcpg. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, type CpgAddress, type CpgClient } from '../../src';
import { Collector } from '../support/collector';
import { startCorosync, type CorosyncCluster } from '../support/corosync';
import { DeliveryDigest, startPeer } from '../support/peer';
import { describeWithCorosync, describeWithPeer } from '../support/suites';

jest.setTimeout(120_000);

const NODES = [1, 2, 3];

/** Handles of one test process that look like processes of their own. */
class Member {
  private constructor(
    readonly client: CpgClient,
    readonly seen: Collector | undefined,
  ) {}

  static async join(
    cluster: CorosyncCluster,
    nodeId: number,
    group: string,
    pid: number,
    record = true,
  ): Promise<Member> {
    const client = await connect({ address: cluster.node(nodeId).address, pid });
    const member = new Member(client, record ? new Collector(client) : undefined);
    await client.join(group);
    return member;
  }
}

/** Sends numbered messages as fast as they are taken: | number | nodeid | pid | filling |. */
async function sendNumbered(client: CpgClient, nodeId: number, count: number, size: number): Promise<void> {
  const message = Buffer.alloc(size, 0x5a);
  message.writeUInt32LE(nodeId, 4);
  message.writeUInt32LE(client.pid, 8);
  for (let number = 0; number < count; number++) {
    message.writeUInt32LE(number, 0);
    while (!client.tryMcast(message)) await once(client, 'drain');
  }
}

/** Folds everything a client gets into one hash, and checks the numbers of each sender. */
class SequenceCheck {
  readonly #hash = createHash('sha256');
  readonly #next = new Map<string, number>();
  readonly wrong: string[] = [];
  readonly complete: Promise<void>;
  received = 0;

  constructor(client: CpgClient, expected: number) {
    this.complete = new Promise((resolve) => {
      client.on('deliver', ({ nodeId, pid, message }) => {
        const bytes = Buffer.from(message.buffer, message.byteOffset, message.length);
        const sender = `${nodeId}:${pid}`;
        const number = bytes.readUInt32LE(0);
        if (number !== (this.#next.get(sender) ?? 0)) this.wrong.push(`${sender} sent ${number} out of turn`);
        this.#next.set(sender, number + 1);
        this.#hash.update(sender).update(bytes);
        if (++this.received === expected) resolve();
      });
    });
  }

  digest(): string {
    return this.#hash.copy().digest('hex');
  }
}

describeWithCorosync('three nodes', () => {
  let cluster: CorosyncCluster;
  let nextPid = 600_000;

  beforeAll(async () => {
    cluster = await startCorosync({ nodes: 3 });
  });
  afterAll(() => cluster.stop());

  test('nine clients, 100,000 messages: one sequence, none lost, none twice', async () => {
    const perClient = 11_112;
    const total = 9 * perClient;
    const members = await Promise.all(
      [...NODES, ...NODES, ...NODES].map((nodeId) =>
        Member.join(cluster, nodeId, 'sequence', nextPid++, false),
      ),
    );
    const checks = members.map(({ client }) => new SequenceCheck(client, total));
    await everybodySees(members, 9);
    await Promise.all(
      members.map(({ client }, index) => sendNumbered(client, NODES[index % 3]!, perClient, 64)),
    );
    await Promise.all(checks.map(({ complete }) => complete));
    expect(checks.flatMap(({ wrong }) => wrong)).toEqual([]);
    expect(checks.map(({ received }) => received)).toEqual(members.map(() => total));
    expect(new Set(checks.map((check) => check.digest())).size).toBe(1);
    await Promise.all(members.map(({ client }) => client.close()));
  });

  test('a killed process is reason 5, a dead node 3, its return 4', async () => {
    const observer = await Member.join(cluster, 1, 'fate', nextPid++);
    const far = await Member.join(cluster, 3, 'fate', nextPid++);
    const { child, pid } = await memberProcess(cluster, 2, 'fate');
    const seen = observer.seen!;
    await seen.until('three members', ({ confchgs }) => confchgs.at(-1)?.members.length === 3);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await seen.until('the death', ({ confchgs }) => confchgs.at(-1)!.left.length > 0);
    expect(seen.confchgs.at(-1)!.left).toEqual([{ nodeId: 2, pid, reason: 5 }]);

    await cluster.node(3).kill();
    await seen.until('the death of a node', ({ confchgs }) => confchgs.at(-1)!.left[0]?.nodeId === 3);
    expect(seen.confchgs.at(-1)!.left).toEqual([{ nodeId: 3, pid: far.client.pid, reason: 3 }]);
    expect(seen.confchgs.at(-1)!.members.map(({ pid: one }) => one)).toEqual([observer.client.pid]);
    expect(seen.totem.at(-1)!.members).toEqual([1, 2]);
    await far.seen!.until('its end', ({ closed }) => closed !== undefined);
    await far.client.close();

    await cluster.node(3).start();
    const back = await Member.join(cluster, 3, 'fate', nextPid++);
    await seen.until('a join on the new node', ({ confchgs }) => confchgs.at(-1)!.joined.length > 0);
    expect(reasons(seen.confchgs.at(-1)!.joined)).toEqual(['3:1']);

    // A node that comes back with its members on it is what a healed partition looks like.
    await cluster.partition([1, 2], [3]);
    await seen.until('the partition', ({ confchgs }) => confchgs.at(-1)!.left.length > 0);
    expect(reasons(seen.confchgs.at(-1)!.left)).toEqual(['3:3']);
    await cluster.heal();
    await seen.until('the merge', ({ confchgs }) => confchgs.at(-1)!.joined.length > 0);
    expect(reasons(seen.confchgs.at(-1)!.joined)).toEqual(['3:4']);
    await back.seen!.until(
      'the merge on the other side',
      ({ confchgs }) => confchgs.at(-1)!.joined.length > 0,
    );
    expect(reasons(back.seen!.confchgs.at(-1)!.joined)).toEqual(['1:4']);
    await Promise.all([observer.client.close(), back.client.close()]);
  });

  test('large messages arrive whole or not at all while the membership changes', async () => {
    const sender = await Member.join(cluster, 1, 'large', nextPid++);
    const witness = await Member.join(cluster, 2, 'large', nextPid++);
    await everybodySees([sender, witness], 2);
    const message = Buffer.alloc(12 * 1024 * 1024, 'whole ');
    const outcomes = Promise.allSettled([1, 2, 3].map(() => sender.client.mcast(message)));
    for (let round = 0; round < 3; round++) {
      const guest = await Member.join(cluster, 3, 'large', nextPid++, false);
      await guest.client.leave();
      await guest.client.close();
    }
    const sent = (await outcomes).filter(({ status }) => status === 'fulfilled').length;
    await sender.client.mcast('end', { confirm: true });
    await witness.seen!.until('the end', ({ texts }) => texts.at(-1) === 'end');
    expect(witness.seen!.deliveries.length).toBe(sent + 1);
    expect(witness.seen!.deliveries.slice(0, -1).every((delivery) => message.equals(delivery.message))).toBe(
      true,
    );
    expect(witness.seen!.errors).toEqual([]);
    await Promise.all([sender.client.close(), witness.client.close()]);
  });
});

describeWithPeer('together with libcpg', () => {
  let cluster: CorosyncCluster;
  let nextPid = 700_000;

  beforeAll(async () => {
    cluster = await startCorosync({ nodes: 3 });
  });
  afterAll(() => cluster.stop());

  test('nine members of both kinds, 100,000 messages: one sequence, none lost, none twice', async () => {
    const perSender = 11_112;
    const total = 9 * perSender;
    const ours = await Promise.all(
      [...NODES, ...NODES].map((nodeId) => Member.join(cluster, nodeId, 'mixed', nextPid++, false)),
    );
    const digests = ours.map(() => new DeliveryDigest());
    const checks = ours.map(({ client }) => new SequenceCheck(client, total));
    ours.forEach(({ client }, index) => {
      client.on('deliver', ({ nodeId, pid, message }) => digests[index]!.add(nodeId, pid, message));
    });
    const ready = everybodySees(ours, 9);
    const options = {
      send: perSender,
      size: 64,
      members: 9,
      expect: total,
      digest: true,
      timeoutSeconds: 100,
    };
    const peers = await Promise.all(NODES.map((nodeId) => startPeer(cluster.node(nodeId), 'mixed', options)));
    await ready;
    await Promise.all(
      ours.map(({ client }, index) => sendNumbered(client, NODES[index % 3]!, perSender, 64)),
    );
    const summaries = await Promise.all(peers.map((peer) => peer.done(100_000)));
    await Promise.all(checks.map(({ complete }) => complete));
    expect(checks.flatMap(({ wrong }) => wrong)).toEqual([]);
    expect([...checks, ...summaries].map(({ received }) => received)).toEqual(Array(9).fill(total));
    expect(
      new Set([...digests.map((digest) => digest.hex()), ...summaries.map(({ digest }) => digest)]).size,
    ).toBe(1);
    await Promise.all(ours.map(({ client }) => client.close()));
  });

  test('10 MiB reach a libcpg member whole, and its own reach us', async () => {
    const size = 10 * 1024 * 1024;
    const { client, seen } = await Member.join(cluster, 1, 'big', nextPid++);
    const peer = await startPeer(cluster.node(2), 'big', {
      expect: 2,
      stay: true,
      send: 1,
      size,
      members: 2,
    });
    await seen!.until('the message of libcpg', ({ deliveries }) => deliveries.length === 1, 60_000);
    const echoed = seen!.deliveries[0]!.message;
    expect(echoed.length).toBe(size);
    await client.mcast(echoed, { confirm: true });
    await peer.untilComplete(60_000);
    // Both deliveries have the same bytes, so libcpg hashed the same.
    const [own, ourEcho] = peer.deliveries;
    expect(own!.length).toBe(size);
    expect(ourEcho!.hash).toBe(own!.hash);
    await peer.quit();
    await client.close();
  });
});

async function everybodySees(members: readonly Member[], count: number): Promise<void> {
  await Promise.all(
    members.map(async ({ client }) => {
      // Before asking: the answer is that of the moment at which it was asked.
      const seen = new Promise<void>((resolve) => {
        client.on('confchg', (event) => {
          if (event.members.length >= count) resolve();
        });
      });
      if ((await client.membership()).length < count) await seen;
    }),
  );
}

function reasons(list: readonly CpgAddress[]): string[] {
  return list.map(({ nodeId, reason }) => `${nodeId}:${reason}`);
}

/** A member in a process of its own, which can be killed. */
async function memberProcess(
  cluster: CorosyncCluster,
  nodeId: number,
  group: string,
): Promise<{ child: ChildProcess; pid: number }> {
  const program = `
    const { connect } = require(${JSON.stringify(require.resolve('../../dist/index.js'))});
    connect({ address: ${JSON.stringify(cluster.node(nodeId).address)} }).then(async (client) => {
      await client.join(${JSON.stringify(group)});
      console.log(client.pid);
    });`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [bytes] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, pid: Number(bytes.toString()) };
}
