/** Messages in fragments, whose senders do what CpgClient does not: on real corosync, and on a simulated cluster. */
import { connect, type ConnectOptions, type CpgClient } from '../../src';
import { decodeResponse, encodeRequest, type CpgRequest } from '../../src/codec';
import { CS_OK } from '../../src/errors';
import { SimulatedCluster } from '../../src/server';
import { RawClient } from '../conformance/raw-client';
import { Collector } from '../support/collector';
import { startCorosync } from '../support/corosync';
import { describeWithCorosync } from '../support/suites';

jest.setTimeout(60_000);

const MIB = 1024 * 1024;
const [FIRST, CONTINUED, LAST] = [1, 2, 3] as const;
const GROUP = 'fragments';

/** A process that sends single fragments. */
class Sender {
  constructor(
    private readonly client: RawClient,
    readonly pid: number,
  ) {}

  static async join(address: string, pid: number): Promise<Sender> {
    const sender = new Sender(await RawClient.connect(address), pid);
    await sender.ask({ type: 'join', group: Buffer.from(GROUP), pid, flags: 0 });
    return sender;
  }

  fragment(fragmentType: number, messageLength: number, bytes: string | Buffer): Promise<void> {
    const fragment = Buffer.from(bytes);
    return this.ask({ type: 'partialMcast', guarantee: 2, messageLength, fragmentType, fragment });
  }

  leave(): Promise<void> {
    return this.ask({ type: 'leave', group: Buffer.from(GROUP), pid: this.pid });
  }

  kill(): Promise<void> {
    return this.client.kill();
  }

  private async ask(request: CpgRequest): Promise<void> {
    const { error } = decodeResponse(await this.client.request(encodeRequest(request)));
    if (error !== CS_OK) throw new Error(`${request.type} was answered with ${error}`);
  }
}

function suite(start: () => Promise<{ address: string; stop: () => Promise<unknown> }>): void {
  let address: string;
  let stop: () => Promise<unknown>;
  let nextPid = 700_000;
  const clients: CpgClient[] = [];
  const senders: Sender[] = [];

  beforeAll(async () => {
    ({ address, stop } = await start());
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.close()));
    await Promise.all(senders.splice(0).map((sender) => sender.kill()));
  });
  afterAll(() => stop());

  const member = async (options: ConnectOptions = {}): Promise<Collector & { client: CpgClient }> => {
    const client = await connect({ address, pid: nextPid++, ...options });
    clients.push(client);
    const seen = new Collector(client);
    await client.join(GROUP);
    await seen.until('its own confchg', ({ confchgs }) => confchgs.length > 0);
    return Object.assign(seen, { client });
  };
  /** A member that others see: until then, and when others come or go, the daemon interrupts a message. */
  const sender = async (witness: Collector, pid = nextPid++): Promise<Sender> => {
    const joined = await Sender.join(address, pid);
    senders.push(joined);
    await witness.until(`member ${pid}`, ({ confchgs }) =>
      confchgs.at(-1)!.members.some((one) => one.pid === pid),
    );
    return joined;
  };
  /** What members have got when a message sent now has reached them. */
  const texts = async (...members: (Collector & { client: CpgClient })[]): Promise<string[][]> => {
    await members[0]!.client.mcast('end', { confirm: true });
    for (const seen of members) await seen.until('the end', (now) => now.texts.at(-1) === 'end');
    return members.map((seen) => seen.texts.slice(0, -1));
  };

  test('20 senders that give up messages of 64 MiB: members old and new deliver the same afterwards', async () => {
    const old = await member();
    const quitters = await Promise.all(Array.from({ length: 20 }, () => sender(old)));
    for (const quitter of quitters) await quitter.fragment(FIRST, 64 * MIB, Buffer.alloc(1000));
    await quitters[0]!.fragment(CONTINUED, 64 * MIB, Buffer.alloc(1000));
    const late = await member();
    const large = Buffer.alloc(2 * MIB, 'large');
    await late.client.mcast(large, { confirm: true });
    for (const quitter of quitters) {
      await quitter.fragment(FIRST, 6, 'abc');
      await quitter.fragment(LAST, 6, 'def');
    }
    await texts(old, late);
    for (const { deliveries, errors } of [old, late]) {
      expect(Buffer.from(deliveries[0]!.message).equals(large)).toBe(true);
      expect(
        deliveries.slice(1, -1).map(({ pid, message }) => [pid, Buffer.from(message).toString()]),
      ).toEqual(quitters.map(({ pid }) => [pid, 'abcdef']));
      expect(errors).toEqual([]);
    }
  });

  test('an mcast aborted in the middle has no lasting effect', async () => {
    const old = await member();
    const quitter = await member();
    const begun = new AbortController();
    const large = quitter.client.mcast(Buffer.alloc(64 * MIB), { signal: begun.signal });
    setImmediate(() => begun.abort(new Error('given up')));
    await expect(large).rejects.toThrow('given up');
    await quitter.client.mcast(Buffer.alloc(2 * MIB, 'x'), { confirm: true });
    const late = await member();
    await quitter.client.mcast(Buffer.alloc(2 * MIB, 'y'), { confirm: true });
    const [seenByOld, seenByLate] = await texts(old, late);
    expect(seenByOld!.map((text) => `${text.length}${text[0]}`)).toEqual([`${2 * MIB}x`, `${2 * MIB}y`]);
    expect(seenByLate!.map((text) => `${text.length}${text[0]}`)).toEqual([`${2 * MIB}y`]);
  });

  test.each([
    ['leaves', (one: Sender) => one.leave()],
    ['dies', (one: Sender) => one.kill()],
  ])('a sender that %s in the middle is forgotten, and its pid can come again', async (_, end) => {
    const seen = await member();
    const first = await sender(seen);
    await first.fragment(FIRST, 6, 'abc');
    await end(first);
    await seen.until('its end', ({ confchgs }) => confchgs.at(-1)!.left.some(({ pid }) => pid === first.pid));
    await first.kill();
    const second = await sender(seen, first.pid);
    await second.fragment(FIRST, 4, 'uv');
    await second.fragment(LAST, 4, 'wx');
    expect(await texts(seen)).toEqual([['uvwx']]);
    expect(seen.errors).toEqual([]);
  });

  test('every member reports inconsistent fragments once', async () => {
    const members = [await member(), await member()];
    const [one, other] = [await sender(members[0]!), await sender(members[0]!)];
    const bad: [type: number, length: number, text: string][] = [
      [FIRST, 64 * MIB + 1, 'x'],
      [CONTINUED, 64 * MIB + 1, 'x'],
      [LAST, 64 * MIB + 1, 'x'],
      [FIRST, 6, 'abc'],
      [LAST, 6, 'd'],
      [LAST, 6, 'ef'],
      [FIRST, 6, 'abc'],
      [CONTINUED, 7, 'd'],
      [LAST, 7, 'ef'],
      [CONTINUED, 6, 'abc'],
    ];
    for (const [type, length, text] of bad) {
      await one.fragment(type, length, text);
      await other.fragment(FIRST, 4, 'go');
      await other.fragment(LAST, 4, 'od');
    }
    await one.fragment(FIRST, 2, 'o');
    await one.fragment(LAST, 2, 'k');
    const expected = [...bad.map(() => 'good'), 'ok'];
    expect(await texts(...members)).toEqual([expected, expected]);
    for (const { errors } of members) {
      const codes = errors.map((error) => (error as { code?: string }).code);
      expect(codes).toEqual(['CS_ERR_TOO_BIG', 'CS_ERR_MESSAGE_ERROR', 'CS_ERR_MESSAGE_ERROR']);
    }
  });

  test('beyond maxReassemblyBytes the connection ends, that of others does not', async () => {
    const small = await member({ maxReassemblyBytes: 1500 });
    const large = await member();
    const [one, other] = [await sender(large), await sender(large)];
    await one.fragment(FIRST, 4000, Buffer.alloc(1000));
    await other.fragment(FIRST, 4000, Buffer.alloc(1000));
    await small.until('its end', ({ closed }) => closed !== undefined);
    expect(small.closed).toMatchObject([{ code: 'CS_ERR_NO_MEMORY' }]);
    await large.until('its leave', ({ confchgs }) => confchgs.at(-1)!.left.length === 1);
    await other.fragment(FIRST, 4, 'pa');
    await other.fragment(LAST, 4, 'rt');
    expect(await texts(large)).toEqual([['part']]);
  });
}

describeWithCorosync('fragments on corosync', () => {
  suite(async () => {
    const cluster = await startCorosync();
    return { address: cluster.nodes[0]!.address, stop: () => cluster.stop() };
  });
});

describe('fragments on a simulated cluster', () => {
  suite(async () => {
    const cluster = await SimulatedCluster.start();
    return { address: cluster.nodes[0]!.address, stop: () => cluster.stop() };
  });

  describe('of two nodes', () => {
    let cluster: SimulatedCluster;
    let near: Collector;
    let far: Collector;
    let speaker: CpgClient;
    let one: Sender;

    beforeEach(async () => {
      cluster = await SimulatedCluster.start({ nodes: 2 });
      [near, far] = await Promise.all([join(1), join(2)]);
      speaker = await cluster.node(1).connect({ pid: 8 });
      await speaker.join(GROUP);
      one = await Sender.join(cluster.node(1).address, 9);
      for (const seen of [near, far]) await seen.until('all', hasMembers(4));
    });
    afterEach(() => cluster.stop());

    const join = async (nodeId: number): Promise<Collector> => {
      const client = await cluster.node(nodeId).connect();
      const seen = new Collector(client);
      await client.join(GROUP);
      return seen;
    };
    const hasMembers =
      (count: number) =>
      ({ confchgs }: Collector): boolean =>
        confchgs.at(-1)?.members.length === count;

    test('a partition in the middle: the message is forgotten where the sender is gone, and begins again', async () => {
      await one.fragment(FIRST, 6, 'abc');
      cluster.partition([1], [2]);
      await near.until('the partition', hasMembers(3));
      // CS_ERR_INTERRUPT.
      await expect(one.fragment(LAST, 6, 'def')).rejects.toThrow('16');
      cluster.heal();
      await far.until('the end of it', hasMembers(4));
      await expect(one.fragment(CONTINUED, 6, 'd')).rejects.toThrow('16');
      await one.fragment(FIRST, 6, 'uvw');
      await one.fragment(LAST, 6, 'xyz');
      await speaker.mcast('end', { confirm: true });
      await far.until('the end', ({ texts }) => texts.at(-1) === 'end');
      for (const { texts, errors } of [near, far]) expect([texts, errors]).toEqual([['uvwxyz', 'end'], []]);
    });

    test('a member that joins between the first and the last fragment does not get the message', async () => {
      await one.fragment(FIRST, 5, 'la');
      // The last fragment is taken before the join, and ordered behind it.
      cluster.node(1).inject({ delayMs: 1000 });
      await one.fragment(LAST, 5, 'rge');
      const late = await join(2);
      await late.until('its own confchg', ({ confchgs }) => confchgs.length === 1);
      await near.until('the message', ({ texts }) => texts.at(-1) === 'large');
      cluster.node(1).inject({});
      await speaker.mcast('end', { confirm: true });
      for (const seen of [near, far, late]) {
        await seen.until('the end', ({ texts }) => texts.at(-1) === 'end');
        expect(seen.errors).toEqual([]);
      }
      expect([near, far, late].map(({ texts }) => texts)).toEqual([
        ['large', 'end'],
        ['large', 'end'],
        ['end'],
      ]);
    });
  });
});
