/** The tap on programs that use libcpg and libcmap, on a private real corosync. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, mkdtempSync, rmSync } from 'node:fs';
import { getPriority, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { readCapture } from '../../src/tap/capture/reader';
import { Conversations, type TapMessage } from '../../src/tap/decode/messages';
import { builtCli, cli, CliProcess, eventually } from '../cli/harness';
import { startCorosync, type CorosyncCluster, type CorosyncNode } from '../support/corosync';
import { DeliveryDigest, startPeer } from '../support/peer';
import { describeWithPeer } from '../support/suites';

jest.setTimeout(120_000);

const DISSECTOR = resolve(__dirname, '..', '..', 'dissector', 'qbcpg.lua');

async function messagesOf(file: string): Promise<TapMessage[]> {
  const messages: TapMessage[] = [];
  await readInto(messages, file);
  return messages;
}

/** What a capture that is still being written holds. */
async function messagesSoFar(file: string): Promise<TapMessage[]> {
  const messages: TapMessage[] = [];
  await readInto(messages, file).catch((error: unknown) => {
    if (!/ends in the middle|is empty|too short/.test(String(error))) throw error;
  });
  return messages;
}

async function readInto(messages: TapMessage[], file: string): Promise<void> {
  const conversations = new Conversations();
  for await (const frame of readCapture(createReadStream(file))) messages.push(conversations.add(frame));
}

describeWithPeer('the tap on corosync', () => {
  let cluster: CorosyncCluster;
  let node: CorosyncNode;
  let directory: string;
  const taps: CliProcess[] = [];

  beforeAll(async () => {
    cluster = await startCorosync();
    node = cluster.nodes[0]!;
    directory = mkdtempSync(join(tmpdir(), 'cpg-live-'));
    builtCli();
  });
  afterEach(() => {
    for (const { child } of taps.splice(0)) child.kill('SIGKILL');
  });
  afterAll(async () => {
    rmSync(directory, { recursive: true });
    await cluster.stop();
  });

  /** Follows this daemon's connections in a process of its own. */
  const startTap = async (...args: string[]): Promise<CliProcess> => {
    // Corosync runs with real-time priority, and on a busy machine with two processors it keeps ordinary
    // processes waiting for longer than a ring holds; docs/debugging.md advises the same.
    const command = [process.execPath, builtCli(), 'tap', '--pid', String(node.pid), ...args];
    const tap = new CliProcess(spawn('chrt', ['--rr', '1', ...command]));
    taps.push(tap);
    await tap.until(/^cpg: tap: following/m, 'stderr');
    return tap;
  };
  const endTap = async (tap: CliProcess): Promise<string> => {
    tap.child.kill('SIGINT');
    const { code, stderr } = await tap.done();
    expect(code).toBe(0);
    return stderr;
  };
  /**
   * A tap follows what it found for as long as it likes, but it must have found it: a peer may therefore end
   * only when the capture shows that. What is there, it must hold; how soon is not what is tested.
   */
  const untilCaptured = (
    file: string,
    what: string,
    condition: (message: TapMessage) => boolean,
  ): Promise<void> =>
    eventually(`${what} in the capture`, async () => (await messagesSoFar(file)).some(condition), 60_000);
  const says =
    (text: string) =>
    ({ name, content }: TapMessage): boolean =>
      name === 'deliver' &&
      content?.type === 'deliver' &&
      Buffer.from(content.message).equals(Buffer.from(text));
  const isNumber =
    (number: number) =>
    ({ content }: TapMessage): boolean =>
      content?.type === 'deliver' && Buffer.from(content.message).readUInt32LE(0) === number;

  /**
   * What a capture holds of one program, with the messages that it says are missing. How many those are is an estimate
   * on a busy machine, where a tap may wait for longer than a ring holds; budget.test.ts shows that the count is right
   * otherwise.
   */
  const accountOf = async (file: string, pid: number) => {
    const messages = (await messagesOf(file)).filter(({ frame }) => frame.connection.clientPid === pid);
    const requests = new DeliveryDigest();
    const deliveries = new DeliveryDigest();
    const numbers: number[] = [];
    for (const { content } of messages) {
      if (content?.type === 'mcast' && 'message' in content) requests.add(1, pid, content.message);
      if (content?.type !== 'deliver') continue;
      deliveries.add(content.nodeId, content.pid, content.message);
      numbers.push(Buffer.from(content.message).readUInt32LE(0));
    }
    const missed = { request: 0, response: 0, event: 0 };
    for (const { frame } of messages) missed[frame.ring] += frame.missed;
    // What was taken from the rings is in order, without anything invented.
    expect(messages.filter(({ problem }) => problem !== undefined)).toEqual([]);
    expect(numbers.every((number, index) => index === 0 || number > numbers[index - 1]!)).toBe(true);
    return { requests, deliveries, missed };
  };

  test('a C program at 20,000 messages per second: nothing is missing that was not reported', async () => {
    const total = 40_000;
    const file = join(directory, 'moderate.pcapng');
    const tap = await startTap('--write', file);
    const peer = await startPeer(node, 'moderate', {
      send: total,
      rate: 20_000,
      digest: true,
      expect: total,
      stay: true,
    });
    await peer.untilComplete(60_000);
    await untilCaptured(file, 'the last message', isNumber(total - 1));
    const { sent, received, digest } = await peer.quit();
    expect({ sent, received }).toEqual({ sent: total, received: total });
    const summary = await endTap(tap);
    const { requests, deliveries, missed } = await accountOf(file, peer.pid);
    if (requests.count < total) expect(missed.request).toBeGreaterThan(0);
    if (deliveries.count < total) expect(missed.event).toBeGreaterThan(0);
    if (!summary.includes('none missed')) return;
    // The peer was alone in the group, so what it sent has the digest of what it got.
    for (const seen of [requests, deliveries]) {
      expect({ count: seen.count, digest: seen.hex() }).toEqual({ count: total, digest });
    }
  });

  test('at full speed nothing is missing that was not reported, and the tap keeps its priority', async () => {
    const file = join(directory, 'flood.pcapng');
    const total = 100_000;
    const tap = await startTap('--write', file);
    const priority = getPriority(tap.child.pid);
    const peer = await startPeer(node, 'flood', {
      send: total,
      members: 2,
      expect: total,
      size: 64,
      digest: true,
      flood: true,
      stay: true,
    });
    await untilCaptured(file, 'the join', ({ name }) => name === 'join');
    // A second member sets it off, and is gone again before it could slow it down.
    await (await startPeer(node, 'flood')).quit();
    await peer.untilComplete(60_000);
    expect(getPriority(tap.child.pid)).toBe(priority);
    // Nothing comes behind it that could overwrite it.
    await untilCaptured(file, 'the last message', isNumber(total - 1));
    await peer.quit();
    const summary = await endTap(tap);
    const { deliveries, missed } = await accountOf(file, peer.pid);
    expect(deliveries.count).toBeGreaterThan(0);
    if (deliveries.count < total) expect(missed.event).toBeGreaterThan(0);
    if (missed.event > 0) expect(summary).toMatch(/about \d+ missed/);
  });

  test('frames from before the tap are still there', async () => {
    const peer = await startPeer(node, 'earlier');
    peer.send('said before');
    await peer.untilDelivered(1);
    const args = ['tap', '--pid', String(peer.pid), '--timeout', '0.5'];
    const { stdout } = await cli([...args, '--history']);
    expect(stdout).toMatch(/before +cpg peer-\w+\[\d+\] > corosync\[\d+\] join earlier as pid/);
    expect(stdout).toMatch(/mcast earlier 11 bytes: said before/);
    expect(stdout).toMatch(/deliver earlier from 1:\d+ 11 bytes: said before/);
    expect((await cli(args)).stdout).toBe('');
    await peer.quit();
  });

  test('other services, by name', async () => {
    const tap = await startTap('--service', 'cmap', '--json');
    // It follows a key until its standard input ends.
    const follower = node.spawn('corosync-cmapctl', ['-t', 'totem.cluster_name'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const ended = once(follower, 'close');
    await tap.until(/"direction":"response".*"type":"trackAdd"|"type":"trackAdd".*"direction":"response"/);
    follower.stdin!.end('q\n');
    await ended;
    await endTap(tap);
    const lines = (await tap.done()).json().filter(({ service }) => service === 'cmap');
    expect(lines.map(({ type, direction }) => `${String(direction)} ${String(type)}`)).toEqual(
      expect.arrayContaining(['request trackAdd', 'response trackAdd']),
    );
  });

  test('a connection of a few milliseconds is shown, or it is said that it was too short', async () => {
    const tap = await startTap('--service', 'cmap', '--json');
    for (let attempt = 1; !tap.stdout.includes('"get"'); attempt++) {
      await node.run('corosync-cmapctl', ['-g', 'totem.cluster_name']);
      const told = (): number => tap.stderr.split('gone before it could be opened').length - 1;
      await eventually('word of a connection', () => tap.stdout.includes('"get"') || told() >= attempt);
    }
    await endTap(tap);
  });

  const tshark = spawnSync('tshark', ['--version']);
  const withTshark = tshark.error === undefined ? test : test.skip;
  withTshark('Wireshark shows group, node and name of every message with the dissector', async () => {
    const file = join(directory, 'wireshark.pcapng');
    const tap = await startTap('--service', 'cpg', '--write', file);
    const peer = await startPeer(node, 'shark');
    for (let count = 0; count < 5; count++) peer.send(`number ${count}`);
    await untilCaptured(file, 'the last message', says('number 4'));
    await peer.quit();
    await endTap(tap);
    const fields = ['message', 'ring', 'group', 'nodeid', 'local_nodeid', 'request_in', 'response_in'];
    const args = [
      '-X',
      `lua_script:${DISSECTOR}`,
      '-r',
      file,
      '-T',
      'fields',
      '-E',
      'separator=|',
      '-E',
      'occurrence=f',
    ];
    const shown = spawnSync('tshark', [...args, ...fields.flatMap((field) => ['-e', `qbcpg.${field}`])], {
      encoding: 'utf8',
    });
    const rows = shown.stdout.split('\n').filter((line) => line !== '');
    const messages = await messagesOf(file);
    expect(rows).toHaveLength(messages.length);
    const parsed = rows.map((row) => row.split('|'));
    expect(parsed.map(([name]) => name)).toEqual(messages.map(({ name }) => name));
    const afterJoin = parsed.slice(parsed.findIndex(([name]) => name === 'join'));
    for (const [name, , group, node, localNode] of afterJoin) {
      expect(`${name} ${group} ${node} ${localNode}`).toBe(`${name} shark 1 1`);
    }
    expect(parsed.filter(([name]) => name === 'deliver').map(([, , , nodeId]) => nodeId)).toEqual([
      '1',
      '1',
      '1',
      '1',
      '1',
    ]);
    messages.forEach(({ answers }, index) =>
      expect(parsed[index]![5]).toBe(answers === undefined ? '' : String(answers)),
    );
    const problems = spawnSync(
      'tshark',
      [
        '-X',
        `lua_script:${DISSECTOR}`,
        '-r',
        file,
        '-Y',
        'qbcpg.malformed || _ws.malformed || _ws.lua.error',
      ],
      {
        encoding: 'utf8',
      },
    );
    expect(problems.stdout).toBe('');
  });
});
