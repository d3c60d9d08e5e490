/**
 * One random simulation of a cluster: members join, send, leave and die while nodes crash or stop and the network splits
 * and heals. The seed decides everything and the cluster's clock is manual, so equal seeds give equal histories.
 */
import { Reason } from '../../src/codec/addresses';
import type { CpgWireEvent } from '../../src/codec/events';
import { groupText } from '../../src/codec/groups';
import { encodeRequest, Guarantee } from '../../src/codec/requests';
import { decodeResponse } from '../../src/codec/responses';
import { CS_OK } from '../../src/errors';
import { SimulatedCluster } from '../../src/server';
import { Random } from '../../src/server/random';
import { RawClient } from '../conformance/raw-client';

const NODES = 3;
const ACTIONS = 60;
const MAX_MEMBERS = 8;
const GROUPS = ['red', 'blue'];

/** The actions and events of one member. */
export interface MemberHistory {
  pid: number;
  nodeId: number;
  group: string;
  /** Numbers of the messages it sent as a member, in order. */
  sent: number[];
  /** Events in order: 'totem ...', 'confchg ...' (of processes), 'nodes ...' (confchg of nodes), 'deliver pid number'. */
  log: string[];
  /** It was a member to the end. */
  survived: boolean;
  left: boolean;
}

interface Member extends MemberHistory {
  client: RawClient;
}

/** Runs until the network is whole and everything has been delivered. */
export async function simulate(seed: number): Promise<MemberHistory[]> {
  const random = new Random(seed);
  const cluster = await SimulatedCluster.start({ nodes: NODES, clock: 'manual', seed });
  const everybody: Member[] = [];
  let nextPid = 100;
  let nextMessage = 0;
  const alive = (): Member[] => everybody.filter(({ client, survived }) => survived && !client.lost);
  const listen = (): void => {
    for (const member of everybody) member.log.push(...member.client.takeEvents().map(show));
  };

  const actions: [weight: number, action: () => Promise<void> | void][] = [
    [
      3,
      async () => {
        const running = cluster.nodes.filter((node) => node.running);
        if (running.length === 0 || alive().length >= MAX_MEMBERS) return;
        const { nodeId, address } = random.pick(running);
        const client = await RawClient.connect(address);
        const [pid, group] = [nextPid++, random.pick(GROUPS)];
        const join = { type: 'join', group: Buffer.from(group), pid, flags: 0 } as const;
        const { error } = decodeResponse(await client.request(encodeRequest(join)));
        if (error !== CS_OK) throw new Error(`a join was refused: ${error}`);
        everybody.push({ pid, nodeId, group, sent: [], log: [], survived: true, left: false, client });
      },
    ],
    [
      12,
      async () => {
        const speakers = alive().filter(({ left }) => !left);
        if (speakers.length === 0) return;
        const member = random.pick(speakers);
        for (let count = 1 + random.below(5); count > 0; count--) {
          const number = nextMessage++;
          member.sent.push(number);
          const message = Buffer.from(String(number));
          await member.client.send(encodeRequest({ type: 'mcast', guarantee: Guarantee.AGREED, message }));
        }
      },
    ],
    [
      1,
      async () => {
        const members = alive().filter(({ left }) => !left);
        if (members.length === 0) return;
        const member = random.pick(members);
        const leave = { type: 'leave', group: Buffer.from(member.group), pid: member.pid } as const;
        // Too early after its join, it stays.
        const { error } = decodeResponse(await member.client.request(encodeRequest(leave)));
        member.left = error === CS_OK;
      },
    ],
    [
      1,
      async () => {
        const members = alive();
        if (members.length === 0) return;
        const member = random.pick(members);
        member.survived = false;
        await member.client.kill();
      },
    ],
    [
      2,
      () => {
        const sides: number[][] = [[], [], []];
        for (const { nodeId } of cluster.nodes) sides[random.below(random.below(3) + 1)]!.push(nodeId);
        cluster.partition(...sides);
      },
    ],
    [1, () => cluster.heal()],
    [
      1,
      () => {
        const node = cluster.node(1 + random.below(NODES));
        for (const member of everybody) if (member.nodeId === node.nodeId) member.survived = false;
        if (random.below(3) === 0) node.stop();
        else node.crash();
      },
    ],
    [
      2,
      async () => {
        const stopped = cluster.nodes.filter((node) => !node.running);
        if (stopped.length > 0) await random.pick(stopped).restart();
      },
    ],
    [
      10,
      async () => {
        for (let count = random.below(8); count > 0 && (await cluster.step()); count--);
      },
    ],
  ];
  const tickets = actions.flatMap(([weight, action]) => Array.from({ length: weight }, () => action));

  try {
    for (let count = 0; count < ACTIONS; count++) {
      await random.pick(tickets)();
      listen();
    }
    for (const node of cluster.nodes) if (!node.running) await node.restart();
    cluster.heal();
    await cluster.run();
    // What was ordered last still has to reach the clients.
    for (let count = 0; count < 10; count++) await cluster.step();
    listen();
    for (const member of everybody) if (member.client.lost) member.survived = false;
    return everybody.map(({ pid, nodeId, group, sent, log, survived, left }) => {
      return { pid, nodeId, group, sent, log, survived, left };
    });
  } finally {
    await Promise.all(everybody.map(({ client }) => client.kill()));
    await cluster.stop();
  }
}

function show(event: CpgWireEvent): string {
  switch (event.type) {
    case 'totemConfchg':
      return `totem ${event.ringId.nodeId}.${event.ringId.seq}`;
    case 'confchg': {
      const pids = (list: readonly { pid: number }[]): string => list.map(({ pid }) => pid).join(' ');
      const { group, members, left, joined } = event;
      // Those that belong to the coming ring are told before it, and differ from side to side.
      const reason = [...left, ...joined][0]?.reason;
      const what = reason === Reason.NODEDOWN || reason === Reason.NODEUP ? 'nodes' : 'confchg';
      return `${what} ${String(groupText(group))} members ${pids(members)} left ${pids(left)} joined ${pids(joined)}`;
    }
    case 'deliver':
      return `deliver ${event.pid} ${Buffer.from(event.message).toString()}`;
    case 'partialDeliver':
      throw new Error('nobody sent fragments');
  }
}
