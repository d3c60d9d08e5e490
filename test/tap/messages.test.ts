/** What is made of frames: meaning, filters, text, JSON, hex, replay and timelines. */
import { encodeEvent } from '../../src/codec/events';
import { encodeRequest } from '../../src/codec/requests';
import { encodeResponse } from '../../src/codec/responses';
import { describeMessage, jsonOf } from '../../src/tap/decode/describe';
import { accepts, acceptsConnection, EVERYTHING } from '../../src/tap/decode/filter';
import { hexLines } from '../../src/tap/decode/hex';
import { Conversations, type TapMessage } from '../../src/tap/decode/messages';
import { CausalOrder, type Round } from '../../src/tap/live/order';
import type { TapConnection } from '../../src/tap/connections';
import type { TapFrame } from '../../src/tap/frames';
import { ReplayPlan } from '../../src/tap/decode/replay';
import { mermaid } from '../../src/tap/timeline/mermaid';
import { TimelineBuilder } from '../../src/tap/timeline/model';
import { svg } from '../../src/tap/timeline/svg';
import { utf8 } from '../../src/codec/groups';
import { cut, visible } from '../../src/tap/decode/text';
import { CONNECTION, frame, recordedFrames } from './support';

const group = Buffer.from('demo');
const text = (message: TapMessage): string => describeMessage(message).what;

function understand(...frames: ReturnType<typeof frame>[]): TapMessage[] {
  const conversations = new Conversations();
  return frames.map((one) => conversations.add(one));
}

test.each(['one-node', 'three-nodes'] as const)('every recorded frame of %s is understood', (name) => {
  const messages = understand(...recordedFrames(name));
  for (const message of messages) {
    expect(message.problem).toBeUndefined();
    expect(message.name).not.toMatch(/^id /);
    expect(describeMessage(message).what).not.toMatch(/undefined|NaN|object/);
    expect(() =>
      JSON.stringify(jsonOf(message), (_, value: unknown) =>
        typeof value === 'bigint' ? Number(value) : value,
      ),
    ).not.toThrow();
  }
  // Each reply belongs to a request.
  const replies = messages.filter(({ frame: { ring } }) => ring === 'response');
  expect(replies.length).toBeGreaterThan(5);
  for (const { answers } of replies) expect(answers).toBeDefined();
});

test('the hex of a frame covers every byte once, and names every field', () => {
  for (const message of understand(...recordedFrames('one-node'))) {
    const lines = hexLines(message);
    const shown = lines
      .filter((line) => !line.includes('more bytes'))
      .map((line) => line.slice(12, 60).trim().split(/\s+/).length);
    const total = shown.reduce((sum, count) => sum + count, 0);
    if (!lines.some((line) => line.includes('more bytes'))) expect(total).toBe(message.frame.bytes.length);
    expect(lines[0]).toMatch(/id$/);
  }
});

test('a conversation: the group is known, replies are paired', () => {
  const timeNs = 1_700_000_000_000_000_000n;
  const [join, joined, mcast, delivered] = understand(
    frame('request', encodeRequest({ type: 'join', group, pid: 4711, flags: 0 }), { timeNs }),
    frame('response', encodeResponse({ type: 'join', error: 1 }), { timeNs: timeNs + 2_500_000n }),
    frame('request', encodeRequest({ type: 'mcast', guarantee: 2, message: Buffer.from('hi\u001b[2J') })),
    frame(
      'event',
      encodeEvent({ type: 'deliver', group, nodeId: 1, pid: 4711, message: Buffer.from([0xff, 1]) }),
    ),
  );
  expect(text(join!)).toBe('join demo as pid 4711');
  expect(text(joined!)).toBe('join CS_OK demo (answers #1 after 2.500 ms)');
  expect(text(mcast!)).toBe('mcast demo 6 bytes: hi\\x1b[2J');
  expect(text(delivered!)).toBe('deliver demo from 1:4711 2 bytes: 0xff01');
  expect(jsonOf(mcast!)).toMatchObject({
    type: 'mcast',
    direction: 'request',
    group: 'demo',
    message: 'hi\u001b[2J',
    clientPid: 4711,
  });
  expect(jsonOf(delivered!)).toMatchObject({ type: 'deliver', nodeId: 1, pid: 4711, messageBase64: '/wE=' });
});

test('errors, malformed frames, other services, unknown ids', () => {
  const cmap = { ...CONNECTION, service: 'cmap' };
  const odd = { ...CONNECTION, service: 'pacemaker' };
  const header = Buffer.alloc(24);
  header.writeInt32LE(2, 0);
  header.writeInt32LE(24, 8);
  const messages = understand(
    frame('response', encodeResponse({ type: 'join', error: 14 })),
    frame('event', Buffer.from('0500000000000000ff00000000000000', 'hex')),
    frame('request', Buffer.alloc(2)),
    frame('request', header, { connection: cmap }),
    frame('request', header, { connection: odd }),
  );
  expect(messages.map(text)).toEqual([
    'join CS_ERR_EXIST (14)',
    expect.stringMatching(/^deliver MALFORMED: /),
    expect.stringMatching(/MALFORMED/),
    'get 24 bytes',
    'id 2 24 bytes',
  ]);
  for (const message of messages) expect(hexLines(message)).toBeDefined();
});

test.each([
  ['request', 8, 8, '8 bytes, where a header has 16'],
  ['response', 16, 16, '16 bytes, where a header has 24'],
  ['event', 23, 23, '23 bytes, where a header has 24'],
  ['request', 24, 23, 'a header that says 23 bytes on a frame of 24'],
  ['response', 32, 1, 'a header that says 1 byte on a frame of 32'],
  ['event', 24, -1, 'a header that says -1 bytes on a frame of 24'],
  ['request', 24, 24, undefined],
] as const)('%s of a service of others, %i bytes that say %i', (ring, length, size, problem) => {
  const bytes = Buffer.alloc(length);
  if (length >= 12) bytes.writeInt32LE(size, 8);
  const connection = { ...CONNECTION, service: 'cib_rw' };
  const message = new Conversations().add(frame(ring, bytes, { connection }));
  expect(message.problem).toBe(problem);
});

test('a join whose header says another size', () => {
  const bytes = Buffer.alloc(168);
  bytes.writeInt32LE(167, 8);
  bytes.writeUInt32LE(1, 16);
  expect(new Conversations().add(frame('request', bytes)).problem).toMatch('says 167 bytes');
});

test.each([
  ['cmap', 1, 'CS_OK'],
  ['cmap', 12, 'CS_ERR_NOT_EXIST'],
  ['cpg', 200, undefined],
  ['cib_rw', 0, undefined],
  ['cib_rw', 12, undefined],
  ['attrd', -110, undefined],
])('a reply of %s with error %i is called %s', (service, error, code) => {
  const bytes = Buffer.alloc(24);
  bytes.writeInt32LE(24, 8);
  bytes.writeInt32LE(error, 16);
  const message = new Conversations().add(
    frame('response', bytes, { connection: { ...CONNECTION, service } }),
  );
  expect(jsonOf(message)).toMatchObject({ error });
  expect((jsonOf(message) as { code?: string }).code).toBe(code);
  expect(describeMessage(message).what).toContain(code ?? `error ${error}`);
});

test('filters', () => {
  const messages = understand(...recordedFrames('three-nodes'));
  const count = (filter: Partial<typeof EVERYTHING>): number =>
    messages.filter((message) => accepts({ ...EVERYTHING, ...filter }, message)).length;
  expect(count({})).toBe(messages.length);
  expect(count({ pids: [4711] })).toBe(messages.length);
  expect(count({ pids: [1] })).toBe(0);
  expect(count({ services: ['cmap'] })).toBe(0);
  expect(count({ rings: ['event'] }) + count({ rings: ['request', 'response'] })).toBe(messages.length);
  const confchgs = count({ names: ['confchg'] });
  expect(confchgs).toBeGreaterThan(0);
  expect(count({ names: ['confchg'], nodes: [1, 2, 3] })).toBe(confchgs);
  expect(count({ nodes: [99] })).toBe(0);
  expect(count({ groups: ['no such group'] })).toBe(0);
});

test('clients of which the daemon sees no pid: distinguished, and found by their announced pid', () => {
  const clients = [1, 2].map((id) => ({ ...CONNECTION, id, clientPid: 0, clientName: '' }));
  const seen = { ...CONNECTION, id: 3, clientPid: 77 };
  const join = (pid: number): Buffer => encodeRequest({ type: 'join', group, pid, flags: 0 });
  const mcast = encodeRequest({ type: 'mcast', guarantee: 2, message: group });
  const messages = understand(
    // The first pid that it drew was taken.
    frame('request', join(4), { connection: clients[0]! }),
    frame('request', join(5), { connection: clients[0]! }),
    frame('request', join(6), { connection: clients[1]! }),
    frame('request', mcast, { connection: clients[0]! }),
    frame('request', mcast, { connection: clients[1]! }),
    frame('request', mcast, { connection: seen }),
  );
  const found = (...pids: number[]): number[] =>
    messages.filter((message) => accepts({ ...EVERYTHING, pids }, message)).map(({ number }) => number);
  expect(found(5)).toEqual([2, 4]);
  expect(found(6)).toEqual([3, 5]);
  expect(found(0)).toEqual([1, 2, 3, 4, 5]);
  expect(found(77)).toEqual([6]);
  expect(found(8)).toEqual([]);
  const ends = messages.map((message) => describeMessage(message).ends);
  expect(new Set(ends).size).toBe(3);
  // Which of them announces the pid that is asked for is known only from what it sends.
  const follows = (connection: TapConnection): boolean =>
    acceptsConnection({ ...EVERYTHING, pids: [5] }, connection);
  expect([...clients, seen].map(follows)).toEqual([true, true, false]);
});

describe('the order of rounds', () => {
  const request = (type: 'localGet' | 'finalize') => frame('request', encodeRequest({ type }));
  const mcast = frame('request', encodeRequest({ type: 'mcast', guarantee: 2, message: group }));
  const response = (nodeId: number) =>
    frame('response', encodeResponse({ type: 'localGet', error: 1, nodeId }));
  const event = frame('event', encodeEvent({ type: 'deliver', group, nodeId: 1, pid: 1, message: group }));
  const [a, b, c] = [request('localGet'), request('finalize'), request('localGet')];
  const [ra, rb] = [response(1), response(2)];
  const { timeNs } = a;
  const rounds = (...list: Partial<Round>[]): TapFrame[][] => {
    const order = new CausalOrder();
    const all = list.map((round) =>
      order.order(new Map([[CONNECTION, { request: [], response: [], event: [], ...round }]]), timeNs),
    );
    return [...all, order.flush()];
  };

  test('each request is followed by its reply, events come last', () => {
    expect(rounds({ event: [event], response: [ra, rb], request: [a, mcast, b, mcast] })).toEqual([
      [a, ra, mcast, b, rb, mcast, event],
      [],
    ]);
  });

  test('the reply to a request of an earlier round comes first', () => {
    expect(rounds({ request: [a] }, { response: [ra], request: [b] }, { response: [rb] })).toEqual([
      [a],
      [ra, b],
      [rb],
      [],
    ]);
  });

  test('a request after an unseen reply waits for it', () => {
    expect(rounds({ request: [a, mcast, b] }, { response: [ra, rb], event: [event] })).toEqual([
      [a],
      [ra, mcast, b, rb, event],
      [],
    ]);
  });

  test('nothing waits for longer than a round, or for ever', () => {
    expect(rounds({ request: [a, mcast] }, {}, { request: [c] })).toEqual([[a], [mcast], [], [c]]);
  });

  test('replies whose requests are overwritten already are the oldest', () => {
    expect(rounds({ request: [b], response: [ra, rb] })).toEqual([[ra, b, rb], []]);
  });
});

describe('replay', () => {
  const fragments = ['abc', 'def', 'g'].map((part, index) =>
    frame(
      'request',
      encodeRequest({
        type: 'partialMcast',
        guarantee: 2,
        messageLength: 7,
        fragmentType: index + 1,
        fragment: Buffer.from(part),
      }),
    ),
  );
  const plan = (...frames: ReturnType<typeof frame>[]): string[] => {
    const all = new ReplayPlan();
    for (const message of understand(...frames)) all.add(message);
    return all.messages.map(({ group: to, message }) => `${String(to)} ${Buffer.from(message).toString()}`);
  };
  const join = frame('request', encodeRequest({ type: 'join', group, pid: 1, flags: 0 }));
  const deliver = frame(
    'event',
    encodeEvent({ type: 'deliver', group, nodeId: 1, pid: 1, message: Buffer.from('d') }),
  );

  test('messages are all that can be sent again, never a request that ends a daemon', () => {
    const body = Buffer.alloc(16);
    const others = [
      { type: 'zeroCopyAlloc', body },
      { type: 'zeroCopyFree', body },
      { type: 'zeroCopyExecute', body },
      { type: 'membershipGet', group },
      { type: 'leave', group, pid: 1 },
      { type: 'finalize' },
    ] as const;
    expect(plan(join, ...others.map((request) => frame('request', encodeRequest(request))))).toEqual([]);
  });

  test('fragments of connections that have the same number', () => {
    const twin = { ...CONNECTION };
    const others = fragments.map((one) => ({ ...one, connection: twin }));
    const joins = [join, { ...join, connection: twin }];
    expect(plan(...joins, ...fragments.flatMap((one, index) => [one, others[index]!]))).toEqual([
      'demo abcdefg',
      'demo abcdefg',
    ]);
  });

  test('sent messages, with fragments reassembled', () => {
    const mcast = frame('request', encodeRequest({ type: 'mcast', guarantee: 2, message: Buffer.from('m') }));
    expect(plan(join, mcast, ...fragments, deliver)).toEqual(['demo m', 'demo abcdefg']);
    expect(plan(mcast)).toEqual(['undefined m']);
  });

  test('delivered messages, once, if none were sent', () => {
    const other = { ...CONNECTION, id: 2 };
    expect(plan(deliver, { ...deliver, connection: other }, deliver)).toEqual(['demo d', 'demo d']);
  });

  test('incomplete messages are left out', () => {
    expect(plan(join, ...fragments.slice(1))).toEqual([]);
    expect(plan(join, fragments[0]!, fragments[2]!)).toEqual([]);
  });
});

test('characters that XML forbids are escaped, too', () => {
  expect(visible('a\ufffe\uffffb')).toBe('a\\ufffe\\uffffb');
});

test('text is cut between letters', () => {
  const letters = 'aü€𝄞'.repeat(20);
  for (let max = 4; max < 60; max++) {
    const text = utf8(cut(Buffer.from(letters), max));
    expect(letters.startsWith(text!)).toBe(true);
    expect(Buffer.byteLength(text!)).toBeGreaterThan(max - 4);
  }
  expect(cut(Buffer.alloc(9, 0x80), 5)).toHaveLength(5);
});

describe('timeline', () => {
  const builder = (): TimelineBuilder => {
    const result = new TimelineBuilder();
    for (const message of understand(...recordedFrames('three-nodes'))) result.add(message);
    return result;
  };

  test('three nodes that come, go and are cut off', () => {
    const chart = builder().build(undefined)!;
    expect(new Set(chart.lanes.map((lane) => lane.split(':')[0]))).toEqual(new Set(['1', '2', '3']));
    const notes = chart.steps.flatMap((step) => (step.kind === 'note' ? [step.text] : [])).join('\n');
    expect(notes).toMatch(/joined \(join\)/);
    expect(notes).toMatch(/left \(leave\)/);
    expect(notes).toMatch(/partition or crash: .* left \(node down\)/);
    expect(notes).toMatch(/left \(process down\)/);
    const diagram = mermaid(chart);
    expect(diagram).toMatch(/^sequenceDiagram\n {2}title /);
    expect(diagram.match(/participant/g)).toHaveLength(chart.lanes.length);
    const picture = svg(chart);
    expect(picture).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg"[^]*<\/svg>\n$/);
    expect(picture).not.toMatch(/href|url\(|<script/);
  });

  test('the picture is as wide as its longest text', () => {
    const width = (text: string): number => {
      const step = { kind: 'note', timeNs: 0n, text, grave: false } as const;
      const picture = svg({ title: 'g', lanes: ['1:1'], steps: [step], omitted: 0 });
      return Number(/width="(\d+)"/.exec(picture)![1]);
    };
    expect(width('x'.repeat(200))).toBeGreaterThan(width('x') + 1000);
  });

  test('long rows are folded, and names cannot break out of the picture', () => {
    const nasty = Buffer.from('<script>"&');
    const events = [
      encodeEvent({
        type: 'confchg',
        group: nasty,
        members: [{ nodeId: 1, pid: 2, reason: 0 }],
        left: [],
        joined: [{ nodeId: 1, pid: 2, reason: 1 }],
      }),
      ...Array.from({ length: 1000 }, (_, index) =>
        encodeEvent({
          type: 'deliver',
          group: nasty,
          nodeId: 1,
          pid: 2,
          message: Buffer.from(`<b>${index}`),
        }),
      ),
    ];
    const all = new TimelineBuilder();
    for (const message of understand(...events.map((bytes) => frame('event', bytes)))) all.add(message);
    const chart = all.build(undefined)!;
    expect(chart.steps).toHaveLength(5);
    expect(chart.steps.at(-1)).toMatchObject({ kind: 'folded', count: 997 });
    expect(svg(chart)).not.toMatch(/<script|<b>/);
    expect(mermaid(chart)).not.toMatch(/<script|<b>/);
    expect(all.groups).toEqual(['<script>"&']);
    expect(all.build('other')).toBeUndefined();
  });
});
