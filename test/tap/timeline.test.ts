/** One chart of what all members saw: a simulated cluster is cut and healed, and the rings of all members are recorded. */
import { setTimeout as pause } from 'node:timers/promises';
import type { CpgClient } from '../../src/client';
import { encodeEvent } from '../../src/codec/events';
import { encodeRequest } from '../../src/codec/requests';
import { SimulatedCluster } from '../../src/server';
import type { TapConnection } from '../../src/tap/connections';
import { Conversations } from '../../src/tap/decode/messages';
import type { TapFrame } from '../../src/tap/frames';
import { Tap } from '../../src/tap/live/tap';
import { mermaid } from '../../src/tap/timeline/mermaid';
import { TimelineBuilder, type Step, type Timeline } from '../../src/tap/timeline/model';
import { svg } from '../../src/tap/timeline/svg';
import { CONNECTION, frame } from './support';

const GROUP = 'ledger';

function timelineOf(frames: readonly TapFrame[]): Timeline {
  const conversations = new Conversations();
  const builder = new TimelineBuilder();
  for (const one of frames) builder.add(conversations.add(one));
  return builder.build(GROUP)!;
}

type Sent = Extract<Step, { kind: 'message' }>;
const messagesOf = ({ steps }: Timeline): Sent[] =>
  steps.filter((step): step is Sent => step.kind === 'message');
const notesOf = ({ steps }: Timeline): { text: string; over: string[] | undefined }[] =>
  steps.flatMap((step) => (step.kind === 'note' ? [{ text: step.text, over: step.over }] : []));

/** A member, and what it was delivered. */
interface Member {
  lane: string;
  client: CpgClient;
  delivered: string[];
  /** How many members it sees. */
  sees: number;
}

describe('a cluster that is cut and healed', () => {
  const sent: string[] = [];
  const members: Member[] = [];
  let frames: TapFrame[];

  beforeAll(async () => {
    const cluster = await SimulatedCluster.start({ nodes: 3 });
    const abort = new AbortController();
    const found: TapFrame[] = [];
    const recording = (async () => {
      const accept = ({ serverPid }: TapConnection): boolean => serverPid === process.pid;
      for await (const batch of new Tap({ signal: abort.signal, accept, maxCpuShare: 1 }).batches())
        for (const one of batch.frames) if (!one.old) found.push({ ...one, bytes: Buffer.from(one.bytes) });
    })();
    try {
      for (const nodeId of [1, 2, 3, 3]) {
        const client = await cluster.node(nodeId).connect();
        const member: Member = { lane: '', client, delivered: [], sees: 0 };
        client.on('confchg', (event) => (member.sees = event.members.length));
        client.on('deliver', ({ message }) => member.delivered.push(Buffer.from(message).toString()));
        await client.join(GROUP);
        member.lane = `${client.nodeId}:${client.pid}`;
        members.push(member);
      }
      const all = (): Promise<void> => untilAll(() => members.every(({ sees }) => sees === 4));
      const say = async (...texts: string[]): Promise<void> => {
        for (const text of texts) {
          const index = Number(text[0]);
          sent.push(text);
          await members[index]!.client.mcast(text, { confirm: true });
        }
      };
      await all();
      await say('0 a', '1 b', '2 c', '3 d', '0 twice', '0 twice');
      cluster.partition([1, 2], [3]);
      await untilAll(() => members.every(({ sees }) => sees === 2));
      await say('0 left', '2 right', '1 left too', '3 right too', '0 twice', '2 right again');
      cluster.heal();
      await all();
      await say('3 together', '0 twice', '1 end');
      await untilAll(() => members.every(({ delivered }) => delivered.at(-1) === '1 end'));
    } finally {
      // What is in the rings by now is recorded.
      abort.abort();
      await recording;
      for (const { client } of members) await client.close();
      await cluster.stop();
    }
    frames = found;
  });

  /** An event of a client and its place in the ring are not one moment. */
  async function untilAll(condition: () => boolean): Promise<void> {
    while (!condition()) await pause(1);
  }

  test('every message that was sent is drawn once, for exactly those to whom it was delivered', () => {
    const chart = timelineOf(frames);
    expect(new Set(chart.lanes)).toEqual(new Set(members.map(({ lane }) => lane)));
    expect(chart).toMatchObject({ omitted: 0, unseen: [] });
    const drawn = messagesOf(chart);
    expect(drawn.map(({ label }) => label).sort()).toEqual([...sent].sort());
    for (const { lane, delivered } of members) {
      const seen = drawn
        .filter(({ from, to }) => from === lane || to.includes(lane))
        .map(({ label }) => label);
      expect(seen).toEqual(delivered);
    }
  });

  test('two sides are drawn as two sides', () => {
    const chart = timelineOf(frames);
    const [first, second, third, fourth] = members.map(({ lane }) => lane) as [
      string,
      string,
      string,
      string,
    ];
    const sides = [
      [first, second],
      [third, fourth],
    ];
    const cuts = notesOf(chart).filter(({ text }) => text.startsWith('partition or crash'));
    expect(cuts).toHaveLength(2);
    for (const [index, side] of sides.entries()) {
      const cut = cuts.find(({ over }) => over?.includes(side[0]!));
      expect([...cut!.over!].sort()).toEqual([...side].sort());
      for (const other of sides[1 - index]!) expect(cut!.text).toContain(other);
    }
    // The lanes of a side stand together.
    const place = (lane: string): number => chart.lanes.indexOf(lane);
    for (const [one, other] of sides) expect(Math.abs(place(one!) - place(other!))).toBe(1);
    const text = mermaid(chart);
    const name = (lane: string): string => `m${place(lane) + 1}`;
    for (const side of sides) {
      const [from, to] = side.map(name).sort();
      expect(text).toMatch(new RegExp(`Note over ${from!},${to!}: partition or crash`));
    }
    const boxes = svg(chart).match(/<g class="note grave"><rect x="[\d.]+" y="[\d.]+" width="[\d.]+"/g)!;
    const wide = boxes.map((box) => Number(/width="([\d.]+)"/.exec(box)![1]));
    expect(wide).toEqual([380, 380]);
  });

  test('the same picture whatever the order in which captures are put together', () => {
    const byConnection = new Map<TapConnection, TapFrame[]>();
    for (const one of frames)
      byConnection.set(one.connection, [...(byConnection.get(one.connection) ?? []), one]);
    const expected = svg(timelineOf(frames));
    for (const lists of [[...byConnection.values()], [...byConnection.values()].reverse()])
      expect(svg(timelineOf(lists.flat()))).toBe(expected);
  });

  test('of members that were not recorded it says so', () => {
    const [{ lane }] = members as [Member];
    const pid = Number(lane.split(':')[1]);
    const conversations = new Conversations();
    const messages = frames.map((one) => conversations.add(one));
    const builder = new TimelineBuilder();
    for (const message of messages) if (message.announcedPid === pid) builder.add(message);
    const chart = builder.build(GROUP)!;
    expect(chart.unseen!.sort()).toEqual(
      members
        .slice(1)
        .map((member) => member.lane)
        .sort(),
    );
    for (const picture of [svg(chart), mermaid(chart)])
      expect(picture).toMatch(/The capture has no events of .*: what only they saw is not here/);
    expect(messagesOf(chart).map(({ label }) => label)).toEqual(members[0]!.delivered);
  });
});

describe('incomplete input', () => {
  const group = Buffer.from(GROUP);
  const me = { nodeId: 1, pid: 4711, reason: 1 };
  const other = { nodeId: 2, pid: 4712, reason: 1 };
  const confchg = encodeEvent({ type: 'confchg', group, members: [me, other], left: [], joined: [me] });
  const deliver = (text: string, to = group): Buffer =>
    encodeEvent({ type: 'deliver', group: to, nodeId: 1, pid: 4711, message: Buffer.from(text) });
  const peer = { ...CONNECTION, id: 2, clientPid: 4712 };

  test('an event that makes no sense, and fragments without their beginning, are in the chart', () => {
    const part = encodeEvent({
      ...{ type: 'partialDeliver', group, nodeId: 2, pid: 4712, messageLength: 9 },
      ...{ fragmentType: 3, fragment: Buffer.from('end') },
    });
    const chart = timelineOf([
      frame('event', confchg),
      frame('event', deliver('x').subarray(0, 30)),
      frame('event', part),
      frame('event', deliver('y'), { missed: 3 }),
    ]);
    expect(notesOf(chart).map(({ text }) => text)).toEqual([
      expect.stringMatching(/1:4711 joined/),
      expect.stringMatching(/^an event that cannot be decoded: /),
      'about 3 events were missed',
    ]);
    expect(messagesOf(chart).map(({ label }) => label)).toEqual([
      '9 bytes in fragments, the first of them not seen',
      'y',
    ]);
  });

  test('a connection that goes from one group to another is in the charts of both', () => {
    const second = Buffer.from('other');
    const joined = encodeEvent({ type: 'confchg', group: second, members: [me], left: [], joined: [me] });
    const frames = [confchg, deliver('x'), joined, deliver('z', second)].map((bytes) =>
      frame('event', bytes),
    );
    expect(messagesOf(timelineOf(frames)).map(({ label }) => label)).toEqual(['x']);
    const builder = new TimelineBuilder();
    const conversations = new Conversations();
    for (const one of frames) builder.add(conversations.add(one));
    expect(messagesOf(builder.build('other')!).map(({ label }) => label)).toEqual(['z']);
  });

  test('a tap that came late: equal messages are not counted twice', () => {
    const join = (pid: number): Buffer => encodeRequest({ type: 'join', group, pid, flags: 0 });
    const texts = ['a', 'x', 'x', 'b', 'x'];
    const early = [confchg, ...texts.map((text) => deliver(text))].map((bytes, index) =>
      frame('event', bytes, { timeNs: BigInt(1_000 * index) }),
    );
    const late = texts
      .slice(2)
      .map((text, index) =>
        frame('event', deliver(text), { connection: peer, timeNs: BigInt(3_010 + 1_000 * index) }),
      );
    const chart = timelineOf([frame('request', join(4711)), ...early, ...late]);
    // A row of one sender is folded.
    const drawn = chart.steps.flatMap((step) =>
      step.kind === 'note' ? [] : step.kind === 'folded' ? [step.count] : [1],
    );
    expect(drawn.reduce((sum, count) => sum + count, 0)).toBe(texts.length);
  });
});
