/** tap, decode, replay, timeline and serve, on the embedded server and on files. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { connect } from '../../src';
import { startServer, type CpgServer } from '../../src/server';
import { CaptureWriter } from '../../src/tap/capture/writer';
import { makeConnection, numberedFrame, recordedFrames } from '../tap/support';
import { builtCli, cli, CliProcess, eventually, interrupted, startCli, type Running } from './harness';

jest.setTimeout(60_000);

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-cli-'));
  builtCli();
});
afterAll(() => rmSync(directory, { recursive: true }));

const path = (name: string): string => join(directory, name);

function recorded(name: 'one-node' | 'three-nodes'): string {
  const file = path(`${name}.pcapng`);
  const writer = new CaptureWriter();
  writeFileSync(
    file,
    Buffer.concat([writer.begin(), ...recordedFrames(name).map((one) => writer.frame(one)), writer.end()]),
  );
  return file;
}

describe('serve', () => {
  test('prints the address first, serves until it is interrupted', async () => {
    const server = CliProcess.start(['serve', '--address', path('served')]);
    await server.until(/\n/);
    expect(server.stdout).toBe(`${path('served')}\n`);
    const member = await cli(['join', 'g', '--address', path('served')], { stdin: 'hello\n' });
    expect(member).toMatchObject({ code: 0, stderr: '' });
    expect(member.stdout).toMatch(/^message 1:\d+ hello$/m);
    server.child.kill('SIGINT');
    expect(await server.done()).toMatchObject({ code: 130, stderr: '' });
  });

  test.each([
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s ends it with %i, and nothing stays behind', async (signal, code) => {
    const server = CliProcess.start(['serve', '--address', path('ended')]);
    await server.until(/\n/);
    const member = CliProcess.start(['join', 'g', '--stay', '--address', path('ended')]);
    await member.until(/\n/);
    const rings = (): string[] =>
      readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${server.child.pid}-`));
    expect(rings()).toHaveLength(1);
    server.child.kill(signal);
    expect(await server.done()).toMatchObject({ code, stderr: '' });
    await member.done();
    expect(rings()).toEqual([]);
    expect(existsSync(path('ended'))).toBe(false);
  });

  test('cpg info and tap say what a server that was killed left', async () => {
    // Servers of other tests remove what is left where they find its claim.
    const env = { ...process.env, TMPDIR: mkdtempSync(path('own-')) };
    const server = CliProcess.start(['serve', '--address', path('killed')], { env });
    await server.until(/\n/);
    const member = CliProcess.start(['join', 'g', '--stay', '--address', path('killed')]);
    await member.until(/\n/);
    const { pid } = server.child;
    const left = readdirSync('/dev/shm').find((name) => name.startsWith(`qb-${pid}-`))!;
    // Neither can clean up: the client first, so that it does not do it for the server.
    server.child.kill('SIGSTOP');
    member.child.kill('SIGKILL');
    server.child.kill('SIGKILL');
    await Promise.all([server.done(), member.done()]);
    try {
      const gone = new RegExp(`${left}: its daemon \\(pid ${pid}\\).* gone: a crash left it behind`);
      // Rings that are new may be about to be removed: that is not said of them at once.
      await eventually('what was left', async () => {
        const { code, stderr } = await CliProcess.start(['info', '--address', path('killed')]).done();
        expect(code).toBe(1);
        expect(stderr).toContain('nobody listens behind it: its daemon has ended.');
        return gone.test(stderr);
      });
      const interrupt = new AbortController();
      const tapped = startCli(['tap', '--pid', String(pid)], { interrupt: interrupt.signal });
      await tapped.until(gone, 'stderr');
      interrupt.abort(interrupted());
      expect((await tapped.finished).code).toBe(0);
    } finally {
      const next = CliProcess.start(['serve', '--timeout', '0.1'], {
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      expect((await next.done()).code).toBe(0);
    }
    expect(existsSync(join('/dev/shm', left))).toBe(false);
  });

  test('several nodes of one cluster', async () => {
    const interrupt = new AbortController();
    const address = path('cluster');
    const started = startCli(['serve', '--nodes', '3', '--json', '--address', address], {
      interrupt: interrupt.signal,
    });
    await started.until(new RegExp(`"${address}-3"`));
    const listener = CliProcess.start(['join', 'g', '--count', '1', '--json', '--address', `${address}-3`]);
    await listener.until(/confchg/);
    expect((await cli(['join', 'g', '--address', address], { stdin: 'across' })).code).toBe(0);
    expect((await listener.done()).json()).toContainEqual(
      expect.objectContaining({ type: 'deliver', nodeId: 1, message: 'across' }),
    );
    interrupt.abort(interrupted());
    const { code, json } = await started.finished;
    expect(code).toBe(130);
    expect(json().map(({ nodeId, address: where }) => [nodeId, where])).toEqual([
      [1, address],
      [2, `${address}-2`],
      [3, `${address}-3`],
    ]);
  });

  test('an address in use is a failure with advice', async () => {
    const server = await startServer({ address: path('taken') });
    try {
      const { code, stderr } = await cli(['serve', '--address', path('taken')]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^cpg: .*CS_ERR_EXIST \(14\): .+\n$/);
    } finally {
      await server.close();
    }
  });
});

describe('tap on the embedded server', () => {
  let server: CpgServer;
  beforeAll(async () => {
    server = await startServer({ address: path('tapped') });
  });
  afterAll(() => server.close());

  const ours = ['--pid', String(process.pid)];
  /**
   * What the tap sees while a member says something. The member stays until it was seen: what is not yet
   * found when it goes may be missed.
   */
  const tapped = async (
    group: string,
    said: string,
    untilSeen: (tap: Running) => Promise<void>,
    ...args: string[]
  ): ReturnType<typeof cli> => {
    const interrupt = new AbortController();
    const tap = startCli(['tap', ...ours, ...args], { interrupt: interrupt.signal });
    await tap.until(/following/, 'stderr');
    const stdin = new PassThrough();
    const member = cli(['join', group, '--address', server.address], { stdin });
    stdin.write(said);
    await untilSeen(tap);
    stdin.end();
    expect((await member).code).toBe(0);
    interrupt.abort(interrupted());
    return tap.finished;
  };
  const untilShown =
    (pattern: RegExp) =>
    (tap: Running): Promise<void> =>
      tap.until(pattern);
  const untilWritten = (file: string, last: string) => (): Promise<void> =>
    eventually(`${last} in the capture`, async () =>
      (await cli(['decode', file, '--message', 'deliver'])).stdout.includes(`: ${last}\n`),
    );

  test('a conversation from its beginning to its end, in order', async () => {
    const { code, json, stderr } = await tapped(
      'seen',
      'one\ntwo\n',
      untilShown(/"deliver".*"two"/),
      '--json',
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(/messages of 1 connection, none missed\n$/);
    const lines = json();
    const story = lines.map(({ direction, type }) => `${String(direction)} ${String(type)}`);
    expect(story.slice(0, 2)).toEqual(['request localGet', 'response localGet']);
    for (const part of [
      'request join',
      'response join',
      'event confchg',
      'request mcast',
      'event deliver',
      'request leave',
      'response leave',
    ]) {
      expect(story).toContain(part);
    }
    expect(
      lines.filter(({ type }) => type === 'mcast').map(({ message, group }) => [group, message]),
    ).toEqual([
      ['seen', 'one'],
      ['seen', 'two'],
    ]);
    const requests = new Map(lines.map((line) => [line['number'], line]));
    for (const reply of lines.filter(({ direction }) => direction === 'response')) {
      expect(requests.get(reply['answers'])).toMatchObject({ type: reply['type'], direction: 'request' });
      expect(reply['afterMs']).toBeGreaterThanOrEqual(0);
    }
  });

  test('filters, --count and --hex', async () => {
    const { stdout } = await tapped(
      'filtered',
      'hit\n',
      untilShown(/ hit +message\n/),
      '--message',
      'deliver',
      '--group',
      'filtered',
      '--count',
      '1',
      '--hex',
    );
    expect(stdout).toMatch(/deliver filtered from 1:\d+ 3 bytes: hit\n/);
    expect(stdout).toMatch(/68 69 74 +hit +message\n/);
    expect(stdout.match(/^#/gm)).toHaveLength(1);
  });

  test('a count that is not reached in time is a failure', async () => {
    const { code, stderr } = await cli(['tap', '--pid', '1', '--timeout', '0.2', '--count', '1']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/cpg: tap: 0 of 1 message: CS_ERR_TIMEOUT \(5\)/);
  });

  test('a capture that the user ends is complete', async () => {
    const file = path('interrupted.pcapng');
    const tap = await tapped('broken', 'x\n', untilWritten(file, 'x'), '--write', file);
    expect(tap.code).toBe(0);
    const { code, json } = await cli(['decode', file, '--json']);
    expect(code).toBe(0);
    expect(json()).toContainEqual(expect.objectContaining({ type: 'mcast', message: 'x', group: 'broken' }));
  });

  test('one that was to have a count is cut off before it', async () => {
    const file = path('short.pcapng');
    const tap = await tapped('short', 'x\n', untilWritten(file, 'x'), '--write', file, '--count', '100000');
    expect(tap.code).toBe(130);
  });

  const asRoot = process.getuid?.() === 0 ? test : test.skip;
  asRoot('without the right to read any connection it says so once, and fails', async () => {
    const clients = await Promise.all([1, 2].map(() => connect({ address: server.address })));
    process.seteuid!(65534);
    try {
      const { code, stdout, stderr } = await cli(['tap', '--pid', String(process.pid), '--timeout', '5']);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toBe(
        'cpg: tap: 2 connections, none of which can be followed: permission denied: CS_ERR_ACCESS (11): run it as the user of these programs, or as root\n',
      );
    } finally {
      process.seteuid!(0);
      await Promise.all(clients.map((client) => client.close()));
    }
  });

  test.each([
    ['as text', []],
    ['to a file', ['--write', 'malformed.pcapng']],
  ])('frames that cannot be decoded are counted, %s', async (_, [option, file]) => {
    const { directory: rings, rings: ring } = makeConnection('/dev/shm', {
      serverPid: process.pid,
      clientPid: process.pid,
      suffix: 'Bad0ne',
      service: 'own',
    });
    try {
      ring.request.put(numberedFrame(1, 40));
      ring.request.put(Buffer.alloc(24));
      const args = ['tap', '--service', 'own', '--history', '--count', '2', '--timeout', '20'];
      const { code, stderr } = await cli([...args, ...(option === undefined ? [] : [option, path(file!)])]);
      expect(stderr).toContain('2 messages of 1 connection, 1 frame cannot be decoded\n');
      expect(code).toBe(0);
    } finally {
      for (const each of Object.values(ring)) each.close();
      rmSync(rings, { recursive: true });
    }
  });

  test('a missing service is reported, and fails the command if it never appears', async () => {
    const { code, stderr } = await cli(['tap', '--service', 'cgp', '--timeout', '0.3']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^cpg: tap: no connection of a service 'cgp' yet: did you mean 'cpg'\? /m);
    expect(stderr).toMatch(
      /^cpg: tap: no connection of a service 'cgp': CS_ERR_NOT_EXIST \(12\): did you mean/m,
    );
    expect(await cli(['tap', '--service', 'quorum', '--timeout', '0.1'])).toMatchObject({ code: 0 });
  });

  test('recorded messages are replayed in order to a chosen group', async () => {
    const file = path('replay.pcapng');
    const messages = Array.from({ length: 50 }, (_, index) => `message ${index}`);
    const untilLast = untilWritten(file, messages.at(-1)!);
    await tapped('origin', `${messages.join('\n')}\n`, untilLast, '--write', file);
    const listener = CliProcess.start([
      'join',
      'copy',
      '--count',
      '50',
      '--json',
      '--address',
      server.address,
    ]);
    await listener.until(/confchg/);
    const { code, stdout } = await cli([
      'replay',
      file,
      '--group',
      'copy',
      '--fast',
      '--address',
      server.address,
    ]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^50 messages to copy in /);
    const delivered = (await listener.done())
      .json()
      .flatMap(({ type, message }) => (type === 'deliver' ? [message] : []));
    expect(delivered).toEqual(messages);
    const slow = await cli([
      'replay',
      file,
      '--rate',
      '100',
      '--count',
      '30',
      '--json',
      '--address',
      server.address,
    ]);
    expect(slow.json()).toMatchObject([{ type: 'replay', messages: 30, groups: [{ group: 'origin' }] }]);
    expect(slow.json()[0]!['seconds']).toBeGreaterThan(0.28);
    const cutShort = await cli([
      ...['replay', file, '--rate', '2', '--timeout', '0.7'],
      ...['--address', server.address],
    ]);
    expect(cutShort).toMatchObject({ code: 1, stdout: '' });
    expect(cutShort.stderr).toMatch(
      /^cpg: replay: [1-9] of 50 messages sent within the time: CS_ERR_TIMEOUT \(5\)/,
    );
  });

  test('a capture on standard output', async () => {
    const tap = CliProcess.start(['tap', ...ours, '--write', '-']);
    const chunks: Buffer[] = [];
    tap.child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk));
    await tap.until(/following/, 'stderr');
    const stdin = new PassThrough();
    const member = cli(['join', 'piped', '--address', server.address], { stdin });
    stdin.write('through\n');
    await eventually('the message in the output', () => Buffer.concat(chunks).includes('through'));
    stdin.end();
    expect((await member).code).toBe(0);
    tap.child.kill('SIGTERM');
    expect((await tap.done()).code).toBe(0);
    const { code, stdout } = await cli(['decode', '-', '--message', 'mcast'], {
      stdin: Buffer.concat(chunks),
    });
    expect(code).toBe(0);
    expect(stdout).toMatch(/mcast piped 7 bytes: through\n$/);
  });
});

describe('files', () => {
  test('decode prints every message, as text and as JSON', async () => {
    const file = recorded('one-node');
    const count = recordedFrames('one-node').length;
    const asText = await cli(['decode', file]);
    expect(asText.stdout.split('\n')).toHaveLength(count + 1);
    expect((await cli(['decode', file, '--json', '--hex'])).json()).toHaveLength(count);
    expect((await cli(['decode', file, '--count', '3'])).stdout.split('\n')).toHaveLength(4);
  });

  test('timeline as SVG and Mermaid', async () => {
    const file = recorded('three-nodes');
    const output = path('timeline.svg');
    expect(await cli(['timeline', file, '--output', output])).toMatchObject({ code: 0, stdout: '' });
    expect(readFileSync(output, 'utf8')).toMatch(/^<svg [^]*<\/svg>\n$/);
    expect((await cli(['timeline', file, '--mermaid'])).stdout).toMatch(/^sequenceDiagram\n/);
    const missing = await cli(['timeline', file, '--group', 'nobody']);
    expect(missing).toMatchObject({ code: 1, stdout: '' });
    expect(missing.stderr).toMatch(/CS_ERR_NOT_EXIST \(12\)/);
  });

  test('a truncated capture is printed up to the damage, and is a failure', async () => {
    const whole = readFileSync(recorded('one-node'));
    const file = path('cut.pcapng');
    writeFileSync(file, whole.subarray(0, whole.length >> 1));
    const { code, stdout, stderr } = await cli(['decode', file]);
    expect(code).toBe(1);
    expect(stdout.split('\n').length).toBeGreaterThan(3);
    expect(stderr).toMatch(
      /^cpg: the capture ends in the middle of a block, at byte \d+: CS_ERR_MESSAGE_ERROR \(22\): .+\n$/,
    );
  });

  test.each([['decode'], ['timeline'], ['replay']])(
    '%s of no file, a directory, of text',
    async (command) => {
      const missing = await cli([command, path('missing')]);
      expect(missing.code).toBe(1);
      expect(missing.stderr).toBe(`cpg: ${command} ${path('missing')}: ENOENT: check the path\n`);
      expect(await cli([command, directory])).toMatchObject({
        code: 1,
        stderr: `cpg: ${command} ${directory}: EISDIR: give a file, not a directory\n`,
      });
      expect((await cli([command, '--read', path('missing')])).stderr).toBe(missing.stderr);
      writeFileSync(path('text'), 'this is no capture');
      expect((await cli([command, path('text')])).stderr).toMatch(
        /not a pcapng file.*CS_ERR_MESSAGE_ERROR \(22\)/,
      );
    },
  );

  test('a pipe that says nothing keeps nobody from ending', async () => {
    const interrupt = new AbortController();
    const waiting = cli(['decode', '-'], { interrupt: interrupt.signal });
    interrupt.abort(interrupted());
    expect((await waiting).code).toBe(130);
    expect(await cli(['decode', '-', '--timeout', '0.05'])).toMatchObject({ code: 0, stderr: '' });
    const short = await cli(['decode', '-', '--timeout', '0.05', '--count', '2']);
    expect(short.code).toBe(1);
    expect(short.stderr).toMatch(
      /^cpg: decode: 0 of 2 messages within the time: CS_ERR_TIMEOUT \(5\): .+\n$/,
    );
  });

  test('a service of the capture that is mistyped', async () => {
    const file = recorded('one-node');
    const { code, stdout, stderr } = await cli(['decode', '-r', file, '--service', 'cgp']);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toBe(
      "cpg: decode: no connection of a service 'cgp': CS_ERR_NOT_EXIST (12): did you mean 'cpg'? there are cpg\n",
    );
  });

  test('replies name their result', async () => {
    const file = recorded('one-node');
    const replies = (await cli(['decode', file, '--direction', 'response', '--json'])).json();
    expect(replies.map(({ error, code }) => [error, code])).toContainEqual([1, 'CS_OK']);
    for (const { code } of replies) expect(code).toMatch(/^CS_/);
  });

  test('speeds exclude each other', async () => {
    expect((await cli(['replay', 'x', '--fast', '--rate', '1'])).code).toBe(2);
  });

  test('dissector', async () => {
    const { stdout } = await cli(['dissector']);
    expect(readFileSync(stdout.trim(), 'utf8')).toContain('Proto("qbcpg"');
  });
});
