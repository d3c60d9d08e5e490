/**
 * The error of every public call for invalid arguments. The list of calls comes from the exports, so that a new one without an entry
 * here fails.
 */
import { inspect } from 'node:util';
import * as client from '../src';
import * as codec from '../src/codec';
import * as server from '../src/server';
import * as tap from '../src/tap';

const { connect, CpgError, isCpgError } = client;
const { startServer, SimulatedCluster } = server;

let embedded: server.CpgServer;
let cluster: server.SimulatedCluster;
let member: client.CpgClient;
let manual: client.CpgClient;

beforeAll(async () => {
  embedded = await startServer();
  cluster = await SimulatedCluster.start({ nodes: 2, clock: 'manual' });
  member = await embedded.connect();
  await member.join('g');
  manual = await embedded.connect({ dispatch: 'manual' });
});
afterAll(async () => {
  await embedded.close();
  await cluster.stop();
});

/** A wrong value, and the call that gets it. */
interface Case {
  given: unknown;
  call: () => unknown;
}
type Call = (value: never) => unknown;

const notText = [null, 7, NaN, true, {}, ['x'], Symbol('s'), 10n];
const notBytes = [undefined, null, 7, 'text', {}, [1, 2], new Uint16Array(2), new ArrayBuffer(2)];
const notFlags = [null, 0, 1, 'false', 'true', {}];
const notNumbers = [null, '3', NaN, true, {}, [1], 3n];
const notUint32 = [...notNumbers, -1, 0.5, 2 ** 32, Infinity];
const notIds = [...notUint32, 0];
const notFunctions = [null, 'x', 5, {}];
const notSignals = [null, true, 'abort', {}, new AbortController(), { aborted: false }];
const notObjects = [null, 'x', 5, NaN, true, [], () => 1, Symbol('s')];
const notOptions = [...notObjects, new Map(), new AbortController().signal, Buffer.from('x'), new Error('x')];
const notGroups = [null, 7, {}, ['g'], '', new Uint8Array(0), new Uint16Array(1)];
const notMessages = [undefined, null, 7, true, {}, [1], ['text'], new ArrayBuffer(1), new Array(2)];
const notAddresses = [...notText, '', '@', 'cpg', '/a\0b', `/${'x'.repeat(200)}`];
const notStreams = [undefined, null, 7, 'x', {}, { write: 1 }];

const SETTLING = { timeoutMs: [...notNumbers, -1], signal: notSignals };

const values = (call: Call, given: readonly unknown[]): Case[] =>
  given.map((value) => ({ given: value, call: () => call(value as never) }));

/** Values that are no options, an option nobody knows, and wrong values of those there are. */
const options = (call: Call, table: Record<string, readonly unknown[]>): Case[] => [
  ...values(call, notOptions),
  ...['nope', ...Object.keys(table).map((name) => `${name}x`)].map((name) => ({
    given: name,
    call: () => call({ [name]: 1 } as never),
  })),
  ...Object.entries(table).flatMap(([name, wrong]) =>
    wrong.map((value) => ({ given: value, call: () => call({ [name]: value } as never) })),
  ),
];

const signalOnly = { signal: notSignals };
const connecting = {
  timeoutMs: [...notNumbers, 0, -1],
  signal: notSignals,
  dispatch: [null, 'never', true, 1],
  pid: notIds,
  lend: notFlags,
  busyPollUs: [...notNumbers, -1, 1e7],
  coalesceMs: [...notNumbers, -1, 1e7],
  mapped: [null, 'false', 1, {}],
};
const serving = {
  strict: notFlags,
  maxConnections: notIds.filter((value) => value !== 2 ** 32),
  seed: [...notNumbers, 0.5, Infinity],
};
const group = Buffer.from('g');
const message = Buffer.from('m');
const request = { type: 'join', group, pid: 1, flags: 0 };
const deliver = { type: 'deliver', group, nodeId: 1, pid: 1, message };
const confchg = { type: 'confchg', group, members: [], left: [], joined: [] };
const fragment = { guarantee: 2, messageLength: 1, fragmentLength: 1, fragmentType: 1 };
const answer = {
  error: 0,
  connectionType: 1,
  maxMessageSize: 1,
  connection: 0n,
  request: '',
  response: '',
  event: '',
};
const connection = { id: 1, service: 'cpg', clientPid: 1, serverPid: 2, clientName: '', serverName: '' };
const frame = {
  connection,
  ring: 'event',
  timeNs: 1n,
  bytes: message,
  old: false,
  consumed: false,
  missed: 0,
};
const notConnections = [
  undefined,
  ...notObjects,
  {},
  { ...connection, service: 5 },
  { ...connection, id: -1 },
];
const notFrames = [
  undefined,
  ...notObjects,
  {},
  { ...frame, bytes: 'x' },
  { ...frame, ring: 'rong' },
  { ...frame, timeNs: 5 },
  { ...frame, timeNs: -1n },
  { ...frame, missed: -1 },
  { ...frame, connection: null },
];
const seen = { frame, name: 'mcast', content: undefined };
const notSeen = [
  undefined,
  ...notObjects,
  {},
  { ...seen, frame: {} },
  { ...seen, name: 1 },
  { ...seen, content: 5 },
];
const notContent = [null, 5, 'x', {}];
const timeline = { title: 't', lanes: [], steps: [], omitted: 0 };
const notTimelines = [
  undefined,
  ...notObjects,
  {},
  { ...timeline, lanes: [1] },
  { ...timeline, steps: [null] },
  { ...timeline, steps: [{ kind: 'note', timeNs: 1, text: 'x' }] },
  { ...timeline, steps: [{ kind: 'message', timeNs: 1n, from: 'a', label: 'x' }] },
];
const notFilters = [undefined, ...notObjects, {}, { ...tap.EVERYTHING, pids: 5 }];

const fieldsOf = (call: Call, whole: object, wrong: Record<string, readonly unknown[]>): Case[] => [
  ...values(call, [undefined, ...notObjects]),
  ...Object.entries(wrong).flatMap(([name, given]) =>
    given.map((value) => ({ given: value, call: () => call({ ...whole, [name]: value } as never) })),
  ),
];

const CALLS: Record<string, () => Case[]> = {
  connect: () => options(connect, { ...connecting, address: notAddresses }),
  CpgError: () => values((code) => new CpgError(code), [undefined, null, 5, 'NOPE', 'toString']),
  'CpgClient.join': () => [
    ...values((name) => embedded.connect().then((one) => one.join(name)), [undefined, ...notGroups]),
    ...options((o) => manual.join('g', o), { initialTotemConfchg: notFlags, ...signalOnly }),
  ],
  'CpgClient.leave': () => [
    ...values((name) => member.leave(name), notGroups),
    ...options((o) => member.leave('g', o), signalOnly),
  ],
  'CpgClient.mcast': () => [
    ...values((m) => member.mcast(m), notMessages),
    ...options((o) => member.mcast('m', o), {
      guarantee: [null, 'SOMETIMES', 'toString', 4, -1, 0.5, {}],
      confirm: notFlags,
      ...signalOnly,
    }),
  ],
  'CpgClient.tryMcast': () => values((m) => member.tryMcast(m), notMessages),
  'CpgClient.alloc': () =>
    values((size) => member.alloc(size), [undefined, ...notNumbers, -1, 1.5, Infinity]),
  'CpgClient.membership': () => [
    ...values((name) => member.membership(name), notGroups),
    ...options((o) => member.membership('g', o), signalOnly),
  ],
  'CpgClient.groups': () =>
    options((o) => member.groups(o).next(), { group: notGroups, namesOnly: notFlags, ...signalOnly }),
  'CpgClient.localNodeId': () => options((o) => member.localNodeId(o), signalOnly),
  'CpgClient.events': () => options((o) => member.events(o), signalOnly),
  'CpgClient.dispatch': () => [
    ...values((flag) => manual.dispatch(flag), [undefined, null, 'some', '', 1, {}]),
    ...options((o) => manual.dispatch('all', o), signalOnly),
  ],

  startServer: () => options(startServer, { ...serving, address: notAddresses, nodeId: notIds }),
  'CpgServer.connect': () => options((o) => embedded.connect(o), connecting),
  'CpgServer.handle': () => values((stream) => embedded.handle(stream), notStreams),
  'SimulatedCluster.start': () => [
    ...options((o) => SimulatedCluster.start(o), {
      ...serving,
      nodes: [null, '3', {}, 0, -1, 1.5, NaN, 129, [], [1, 1], [0], ['1'], new Array(3)],
      address: notFunctions,
      clock: [null, 'x', true, 1],
    }),
    ...values((address) => SimulatedCluster.start({ address: () => address }), notAddresses),
  ],
  'CpgServer.settled': () => options((o) => embedded.settled(o), SETTLING),
  'SimulatedCluster.settled': () => options((o) => cluster.settled(o), SETTLING),
  Random: () => values((seed) => new server.Random(seed), [undefined, ...notNumbers, 0.5, Infinity]),
  'Random.below': () =>
    values((end) => new server.Random(1).below(end), [undefined, ...notNumbers, 0.5, 0, -1, Infinity]),
  'Random.pick': () => values((list) => new server.Random(1).pick(list), [undefined, null, 7, 'x', {}, []]),
  'SimulatedCluster.node': () => values((id) => cluster.node(id), [undefined, ...notIds, 9]),
  'SimulatedCluster.partition': () => [
    ...values((side) => cluster.partition(side, [2]), [undefined, null, 1, '1', {}, [2]]),
    ...values((nodeId) => cluster.partition([nodeId], [2]), [undefined, ...notIds, 9]),
    { given: 1, call: () => cluster.partition(1 as never, 2 as never) },
  ],
  'SimulatedCluster.advance': () =>
    values((ms) => cluster.advance(ms), [undefined, ...notNumbers, -1, Infinity]),
  'ClusterNode.connect': () => options((o) => cluster.node(1).connect(o), { ...connecting, address: ['@x'] }),
  'ClusterNode.handle': () => values((stream) => cluster.node(1).handle(stream), notStreams),
  'ClusterNode.inject': () =>
    options((o) => cluster.node(1).inject(o), {
      drop: [...notNumbers, -1, 2],
      loss: [0.5],
      delayMs: [null, '5', NaN, -1, Infinity, [], [1], [2, 1], [1, NaN], [1, 2, 3], {}],
      tryAgain: [null, false, -1, 0.5, '1'],
      refuse: [null, 'ENOENT', 13, true],
    }),
  'ClusterNode.disconnect': () => values((pid) => cluster.node(1).disconnect(pid), notIds),

  decodeHandshakeRequest: () => values(codec.decodeHandshakeRequest, notBytes),
  decodeHandshakeResponse: () => values(codec.decodeHandshakeResponse, notBytes),
  decodeRequest: () => values(codec.decodeRequest, notBytes),
  decodeResponse: () => values(codec.decodeResponse, notBytes),
  decodeEvent: () => values(codec.decodeEvent, notBytes),
  checkDeliver: () => values(codec.checkDeliver, notBytes),
  frameId: () => values(codec.frameId, notBytes),
  frameSize: () => values(codec.frameSize, notBytes),
  groupBytes: () => values(codec.groupBytes, [undefined, ...notGroups]),
  groupLabel: () => values(codec.groupLabel, [undefined, null, 7, {}, ['g'], new Uint16Array(1)]),
  groupText: () => values(codec.groupText, notBytes),
  parseGroup: () => values(codec.parseGroup, [undefined, null, 7, {}, new Uint8Array(1)]),
  encodeHandshakeRequest: () =>
    fieldsOf(codec.encodeHandshakeRequest, {}, { maxMessageSize: [undefined, ...notUint32] }),
  encodeHandshakeResponse: () =>
    fieldsOf(codec.encodeHandshakeResponse, answer, {
      error: [undefined, ...notNumbers, 2 ** 31],
      connection: [undefined, null, 5, -1n, 2n ** 64n],
      request: [undefined, ...notText, 'a\0b', 'x'.repeat(4096)],
    }),
  encodeRequest: () => [
    ...fieldsOf(codec.encodeRequest, request, {
      type: [undefined, null, 'nope', 'toString', 5],
      group: [undefined, null, 'text', 5, [1]],
      pid: [undefined, ...notUint32],
    }),
    ...fieldsOf(codec.encodeRequest, { type: 'mcast', guarantee: 2, message }, { message: notBytes }),
    ...fieldsOf(codec.encodeRequest, { type: 'zeroCopyFree' }, { body: notBytes }),
    ...fieldsOf(codec.encodeRequest, { ...fragment, type: 'partialMcast' }, { fragment: notBytes }),
    ...fieldsOf(codec.encodeRequest, { type: 'iterationNext' }, { handle: [undefined, 5, '5', -1n] }),
  ],
  encodePartialMcastHeader: () =>
    fieldsOf(codec.encodePartialMcastHeader, fragment, {
      guarantee: [undefined, ...notUint32],
      fragmentLength: [undefined, ...notUint32],
    }),
  writeMcastHeader: () => [
    ...values((target) => codec.writeMcastHeader(target, 0, 2, 1), notBytes),
    ...values((at) => codec.writeMcastHeader(Buffer.alloc(50), at, 2, 1), [...notUint32, 11]),
    ...values((guarantee) => codec.writeMcastHeader(Buffer.alloc(50), 0, guarantee, 1), notUint32),
    ...values(
      (length) => codec.writeMcastHeader(Buffer.alloc(50), 0, 2, length),
      [...notUint32, 2 ** 31 - 1],
    ),
  ],
  encodeResponse: () => [
    ...fieldsOf(
      codec.encodeResponse,
      { type: 'join', error: 1 },
      {
        type: [undefined, 'nope', 'toString', 5],
        error: [undefined, ...notNumbers],
      },
    ),
    ...fieldsOf(
      codec.encodeResponse,
      { type: 'membershipGet', error: 1 },
      {
        members: [undefined, null, 5, {}, [null], [{ nodeId: '1', pid: 1, reason: 0 }]].slice(0, 5),
      },
    ),
    ...fieldsOf(codec.encodeResponse, { type: 'localGet', error: 1 }, { nodeId: notUint32 }),
    ...fieldsOf(codec.encodeResponse, { type: 'iterationInitialize', error: 1 }, { handle: [null, 5, -1n] }),
  ],
  encodeEvent: () => [
    ...fieldsOf(codec.encodeEvent, deliver, {
      type: [undefined, 'nope', 'toString', 5],
      group: [undefined, null, 'text'],
      nodeId: [undefined, ...notUint32],
      message: notBytes,
    }),
    ...fieldsOf(codec.encodeEvent, confchg, {
      members: [undefined, null, 5, [5], new Array(1)],
      left: [null],
      joined: ['x'],
    }),
    ...fieldsOf(
      codec.encodeEvent,
      { type: 'totemConfchg', ringId: { nodeId: 1, seq: 1n }, members: [] },
      {
        ringId: [undefined, null, 5],
        members: [undefined, null, 5, ['1'], new Array(1)],
      },
    ),
    ...fieldsOf(
      codec.encodeEvent,
      { ...deliver, type: 'partialDeliver', messageLength: 1, fragmentType: 1 },
      {
        fragment: notBytes,
      },
    ),
  ],

  Tap: () =>
    options((o) => new tap.Tap(o), {
      directory: notText,
      accept: notFunctions,
      maxCpuShare: [...notNumbers, 0, -1, 1.5],
      ...signalOnly,
    }),
  'Conversations.add': () => values((f) => new tap.Conversations().add(f), notFrames),
  'Conversations.pass': () => values((f) => new tap.Conversations().pass(f), notFrames),
  'Conversations.end': () => values((c) => new tap.Conversations().end(c), notConnections),
  nodesOf: () => values(tap.nodesOf, notContent),
  payloadOf: () => values(tap.payloadOf, notContent),
  accepts: () => [
    ...values((filter) => tap.accepts(filter, seen as never), notFilters),
    ...values((m) => tap.accepts(tap.EVERYTHING, m), notSeen),
  ],
  acceptsConnection: () => [
    ...values((filter) => tap.acceptsConnection(filter, connection), notFilters),
    ...values((c) => tap.acceptsConnection(tap.EVERYTHING, c), notConnections),
  ],
  describeMessage: () => values(tap.describeMessage, notSeen),
  jsonOf: () => values(tap.jsonOf, notSeen),
  hexLines: () => values(tap.hexLines, notSeen),
  messageName: () => [
    ...values((service) => tap.messageName(service, 'event', 1), notText),
    ...values((ring) => tap.messageName('cpg', ring, 1), [undefined, ...notText, 'rong']),
    ...values((id) => tap.messageName('cpg', 'event', id), [undefined, null, '1', {}]),
  ],
  'CaptureWriter.frame': () => values((f) => new tap.CaptureWriter().frame(f), notFrames),
  'CaptureWriter.frames': () =>
    values(
      (f) => new tap.CaptureWriter().frames(f),
      [undefined, null, 5, {}, [null], [{ ...frame, bytes: 5 }]],
    ),
  'CaptureReader.push': () => values((b) => new tap.CaptureReader().push(b), notBytes),
  readCapture: () => [
    ...values((chunks) => tap.readCapture(chunks), [undefined, null, 5, 'file', {}]),
    ...values((chunk) => tap.readCapture([chunk]).next(), notBytes),
  ],
  'ReplayPlan.add': () => values((m) => new tap.ReplayPlan().add(m), notSeen),
  'TimelineBuilder.add': () => values((m) => new tap.TimelineBuilder().add(m), notSeen),
  'TimelineBuilder.build': () => values((name) => new tap.TimelineBuilder().build(name), notText),
  svg: () => values(tap.svg, notTimelines),
  mermaid: () => values(tap.mermaid, notTimelines),
};

/** Calls without arguments, or with any. */
const NOTHING_TO_CHECK = [
  'isCpgError',
  'CpgError.fromReply',
  'CpgClient.close',
  'CpgClient.ref',
  'CpgClient.unref',
  // Node's own, of the EventEmitter.
  'CpgClient.removeAllListeners',
  'CpgServer.close',
  'CpgServer.unref',
  'SimulatedCluster.unref',
  'Random.next',
  'SimulatedCluster.heal',
  'SimulatedCluster.step',
  'SimulatedCluster.run',
  'SimulatedCluster.stop',
  'ClusterNode.crash',
  'ClusterNode.stop',
  'ClusterNode.restart',
  'Tap.batches',
  'CaptureWriter.begin',
  'CaptureWriter.end',
  'CaptureReader.end',
  // Made by connect(), startServer() and start(), not by users; or without arguments.
  ...['CpgClient', 'CpgServer', 'SimulatedCluster', 'ClusterNode'],
  ...['Conversations', 'CaptureWriter', 'CaptureReader', 'ReplayPlan', 'TimelineBuilder'],
];

function publicCalls(): string[] {
  const exported: Record<string, unknown> = { ...client, ...codec, ...server, ...tap };
  return Object.entries(exported).flatMap(([name, value]) => {
    if (typeof value !== 'function') return [];
    const prototype = (value as { prototype?: object }).prototype;
    const methodsOf = (owner: object | undefined): string[] =>
      Object.entries(Object.getOwnPropertyDescriptors(owner ?? {}))
        .filter(([key, { value: method }]) => typeof method === 'function' && key !== 'constructor')
        .map(([key]) => `${name}.${key}`);
    return [name, ...methodsOf(prototype), ...methodsOf(value)];
  });
}

test('every public call has an entry', () => {
  expect(publicCalls().filter((name) => !(name in CALLS) && !NOTHING_TO_CHECK.includes(name))).toEqual([]);
});

describe.each(Object.keys(CALLS))('%s', (name) => {
  test('states the given value and the expected kind', async () => {
    const unfit: string[] = [];
    for (const { given, call } of CALLS[name]!()) {
      const error: unknown = await Promise.resolve()
        .then(call)
        .then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
      const start = inspect(given, { breakLength: Infinity, depth: 1 }).split('\n')[0]!.slice(0, 30);
      const fits =
        isCpgError(error) &&
        error.code === 'CS_ERR_INVALID_PARAM' &&
        error.what.includes(name.split('.').at(-1)!) &&
        (error.what.includes(start) || (Array.isArray(given) && name === 'encodeEvent')) &&
        error.remedy.includes('give ') &&
        error.message.length < 1000;
      if (!fits) unfit.push(`${inspect(given)}: ${error instanceof Error ? error.stack! : inspect(error)}`);
    }
    expect(unfit).toEqual([]);
  });
});
