/**
 * Captures of several machines in one file, with the same numbers, pids and names in all of them, as containers have
 * them that start in the same way: conversations stay apart.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { encodeEvent } from '../../src/codec/events';
import { encodeRequest } from '../../src/codec/requests';
import { encodeResponse } from '../../src/codec/responses';
import { readCapture } from '../../src/tap/capture/reader';
import { CaptureWriter } from '../../src/tap/capture/writer';
import type { TapConnection } from '../../src/tap/connections';
import type { TapFrame } from '../../src/tap/frames';
import { Conversations, type TapMessage } from '../../src/tap/decode/messages';
import { ReplayPlan } from '../../src/tap/decode/replay';
import { Tap } from '../../src/tap/live/tap';
import { TimelineBuilder } from '../../src/tap/timeline/model';
import { CONNECTION, frame, makeConnection, numberedFrame } from './support';

const DISSECTOR = resolve(__dirname, '..', '..', 'dissector', 'qbcpg.lua');
const has = (tool: string): boolean => spawnSync(tool, ['--version']).error === undefined;
const START_NS = 1_700_000_000_000_000_000n;
/** Goes in parts: Wireshark takes no larger packets. */
const LARGE = 600_000;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-merged-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** What a program on a machine does. All machines do it at the same moments, so that their frames alternate. */
function story(name: string, connection: TapConnection, nodeId: number): TapFrame[] {
  const group = Buffer.from(name);
  const fragments = [1, 2, 3].map((fragmentType) => {
    const fragment = Buffer.from(`${name}${fragmentType}`);
    const messageLength = 3 * fragment.length;
    return encodeRequest({ type: 'partialMcast', guarantee: 2, messageLength, fragmentType, fragment });
  });
  const me = { nodeId, pid: 5_000_000, reason: 1 };
  const steps: [TapFrame['ring'], Buffer][] = [
    ['request', encodeRequest({ type: 'join', group, pid: me.pid, flags: 0 })],
    ['response', encodeResponse({ type: 'join', error: 1 })],
    ['event', encodeEvent({ type: 'confchg', group, members: [me], left: [], joined: [me] })],
    // From another node, where somebody has the same pid.
    ['event', encodeEvent({ type: 'deliver', group, ...me, nodeId: 99, message: Buffer.from('x') })],
    ...fragments.map((bytes): [TapFrame['ring'], Buffer] => ['request', bytes]),
    ['event', encodeEvent({ type: 'deliver', group, ...me, message: Buffer.alloc(LARGE, name) })],
  ];
  return steps.map(([ring, bytes], index) =>
    frame(ring, bytes, { connection, timeNs: START_NS + BigInt(index) * 1_000_000n }),
  );
}

const UNSEEN = { ...CONNECTION, clientPid: 0, clientName: '' };
/** Two connections on each of two machines; the second of each has the pid of the first, or none as well. */
const MACHINES = ['ann', 'ben'].map((name, index) =>
  [1, 2].map((id) => story(`${name}-${id}`, { ...UNSEEN, id }, index + 1)),
);

function capture(frames: readonly TapFrame[]): Buffer {
  const writer = new CaptureWriter();
  return Buffer.concat([writer.begin(), writer.frames(frames), writer.end()]);
}

function inTurn(lists: readonly TapFrame[][]): TapFrame[] {
  return lists[0]!.flatMap((_, index) => lists.map((list) => list[index]!));
}

function mergecap(captures: readonly Buffer[], ...options: string[]): Buffer {
  const files = captures.map((bytes, index) => {
    const file = join(directory, `${index}.pcapng`);
    writeFileSync(file, bytes);
    return file;
  });
  const output = join(directory, 'merged.pcapng');
  const { status, stderr } = spawnSync('mergecap', [...options, '-w', output, ...files], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return readFileSync(output);
}

async function understood(bytes: Uint8Array): Promise<TapMessage[]> {
  const conversations = new Conversations();
  const messages: TapMessage[] = [];
  for await (const one of readCapture([bytes])) messages.push(conversations.add(one));
  return messages;
}

const captures = MACHINES.map((machine) => capture(inTurn(machine)));
const merging = has('mergecap') ? test.each : test.skip.each;

merging<[string, () => Buffer]>([
  ['one behind the other', () => Buffer.concat(captures)],
  ['by mergecap', () => mergecap(captures)],
  ['by mergecap, equal interfaces made one', () => mergecap(captures, '-I', 'any')],
  ['by mergecap, all interfaces kept', () => mergecap(captures, '-I', 'none')],
  ['by mergecap, one behind the other', () => mergecap(captures, '-a')],
])('%s', async (_, merged) => {
  const messages = await understood(merged());
  const connections = [...new Set(messages.map(({ frame: { connection } }) => connection))];
  expect(connections.map(({ id }) => id).sort()).toEqual([1, 2, 3, 4]);
  const plan = new ReplayPlan();
  const timeline = new TimelineBuilder();
  for (const message of messages) {
    plan.add(message);
    timeline.add(message);
  }
  const stories = connections.map((connection) => {
    const own = messages.filter(({ frame: { connection: of } }) => of === connection);
    const requests = new Map(own.map(({ number, name }) => [number, name]));
    for (const { answers, name } of own) if (answers !== undefined) expect(requests.get(answers)).toBe(name);
    expect(own.filter(({ answers }) => answers !== undefined)).toHaveLength(1);
    const [group, ...others] = new Set(own.map(({ group: name }) => name));
    expect(others).toEqual([]);
    const frames = own.map(({ frame: { bytes } }) => Buffer.from(bytes).toString('latin1'));
    return { group: group as string, frames };
  });
  const expected = MACHINES.flat().map((list) =>
    list.map(({ bytes }) => Buffer.from(bytes).toString('latin1')),
  );
  for (const { group, frames } of stories) {
    const index = ['ann-1', 'ann-2', 'ben-1', 'ben-2'].indexOf(group);
    // Jest would take long to compare them, and to print them.
    expect(frames.join() === expected[index]!.join()).toBe(true);
  }
  expect(timeline.groups.sort()).toEqual(['ann-1', 'ann-2', 'ben-1', 'ben-2']);
  expect(plan.messages.map(({ group, message }) => [group, Buffer.from(message).toString()]).sort()).toEqual(
    ['ann-1', 'ann-2', 'ben-1', 'ben-2'].map((name) => [name, `${name}1${name}2${name}3`]),
  );
});

test('a pid that is used again later, in one capture', async () => {
  const later = { ...UNSEEN, id: 2 };
  const messages = await understood(
    capture([...story('before', UNSEEN, 1).slice(0, 1), ...story('after', later, 1).slice(1, 2)]),
  );
  // The reply belongs to no request: the one that was asked is of another connection.
  expect(messages.map(({ answers, group }) => [answers, group])).toEqual([
    [undefined, 'before'],
    [undefined, undefined],
  ]);
});

/** What a tap sees of two directories of one name on two machines: the same pids, the same descriptor. */
test('two taps', async () => {
  const files: Buffer[] = [];
  for (const name of ['one', 'two']) {
    const root = mkdtempSync(join(directory, `${name}-`));
    const { rings } = makeConnection(root, { clientPid: 0 });
    const other = makeConnection(root, { clientPid: 0, suffix: 'other_' });
    rings.request.put(encodeRequest({ type: 'join', group: Buffer.from(name), pid: 5_000_000, flags: 0 }));
    other.rings.request.put(numberedFrame(2, 40));
    const batches = new Tap({ directory: root }).batches();
    const { value } = await batches.next();
    const writer = new CaptureWriter();
    files.push(Buffer.concat([writer.begin(), writer.frames(value!.frames), writer.end()]));
    await batches.return();
    for (const { rings: all } of [{ rings }, other]) for (const ring of Object.values(all)) ring.close();
  }
  const messages = await understood(Buffer.concat(files));
  expect(messages).toHaveLength(4);
  expect(messages.map(({ frame: { connection } }) => connection.id).sort()).toEqual([1, 2, 3, 4]);
  expect(messages.map(({ frame: { connection } }) => connection.directory).sort()).toEqual(
    ['AbCdEf', 'AbCdEf', 'other_', 'other_'].map((suffix) => `qb-815-0-27-${suffix}`),
  );
});

const withWireshark = has('tshark') && has('mergecap') ? test : test.skip;
withWireshark('Wireshark: groups, nodes and replies are those of the own connection', () => {
  const file = join(directory, 'wireshark.pcapng');
  writeFileSync(file, mergecap(captures));
  const fields = ['qbcpg.message', 'qbcpg.group', 'qbcpg.local_nodeid', 'qbcpg.request_in', '_ws.expert'];
  const { stdout } = spawnSync(
    'tshark',
    [
      ...['-X', `lua_script:${DISSECTOR}`, '-r', file, '-T', 'fields', '-E', 'separator=|'],
      ...['-e', 'frame.number', '-e', 'qbcpg.origin'],
      ...fields.flatMap((field) => ['-e', field]),
    ],
    { encoding: 'utf8' },
  );
  const rows = stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.split('|'));
  const groupOf = new Map(rows.map(([number, , , group]) => [number, group]));
  const answers = rows.filter(([, , , , , request]) => request !== '');
  expect(answers).toHaveLength(4);
  for (const [, , , group, , request] of answers) expect(groupOf.get(request)).toBe(group);
  for (const name of ['ann-1', 'ann-2', 'ben-1', 'ben-2']) {
    const own = rows.filter(([, , , group]) => group === name);
    // The large message is in three packets.
    expect(own.map(([, , message]) => message)).toEqual([
      ...['join', 'join', 'confchg', 'deliver', 'partialMcast', 'partialMcast', 'partialMcast'],
      ...['deliver', 'deliver', 'deliver'],
    ]);
    const nodes = own.slice(3, 8).map(([, , , , node]) => node);
    expect(new Set(nodes)).toEqual(new Set([name.startsWith('ann') ? '1' : '2']));
  }
  expect(rows.every(([, , , , , , expert]) => expert === '')).toBe(true);
});
