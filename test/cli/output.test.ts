/** Output that cannot be written: said, counted, and a failure; also what is written last, or only in part. */
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { startServer, type CpgServer } from '../../src/server';
import { connect, type CpgClient } from '../../src';
import { CaptureWriter } from '../../src/tap/capture/writer';
import { Output } from '../../src/cli/output';
import { run } from '../../src/cli/run';
import { recordedFrames } from '../tap/support';
import { builtCli, cli, CliProcess, Collected, eventually, interrupted } from './harness';

jest.setTimeout(120_000);

let directory: string;
let server: CpgServer;
let client: CpgClient;
let capture: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-output-'));
  server = await startServer({ address: join(directory, 'cpg') });
  client = await connect({ address: server.address });
  await client.join('listed');
  client.on('deliver', () => undefined);
  capture = join(directory, 'one-node.pcapng');
  const writer = new CaptureWriter();
  writeFileSync(
    capture,
    Buffer.concat([
      writer.begin(),
      ...recordedFrames('one-node').map((one) => writer.frame(one)),
      writer.end(),
    ]),
  );
  builtCli();
});
afterAll(async () => {
  await client.close();
  await server.close();
  rmSync(directory, { recursive: true });
});

/** Runs the command as a process with its standard output, or error, on a device that has no room. */
async function onFullDevice(
  args: readonly string[],
  { stream = 'stdout', stdin = 'ignore' }: { stream?: 'stdout' | 'stderr'; stdin?: 'ignore' | 'pipe' } = {},
): ReturnType<CliProcess['done']> {
  const full = openSync('/dev/full', 'w');
  try {
    const stdio = stream === 'stdout' ? [stdin, full, 'pipe'] : [stdin, 'pipe', full];
    const started = CliProcess.start(args, {
      stdio: stdio as ('ignore' | 'pipe' | number)[],
      env: { ...process.env, CPG_ADDRESS: server.address },
    });
    if (stdin === 'pipe') started.write('hello\n');
    return await started.done();
  } finally {
    closeSync(full);
  }
}

describe('standard output without room is CS_ERR_NO_SPACE, and reports the loss', () => {
  const own = ['--pid', String(process.pid)];
  test.each<[string, string[]]>([
    ['--version', ['--version']],
    ['--help', ['--help']],
    ['the help of a command', ['join', '--help']],
    ['members', ['members', 'listed']],
    ['groups', ['groups']],
    ['groups --json', ['groups', '--json']],
    ['info', ['info']],
    ['join', ['join', 'g']],
    ['serve', ['serve', '--address', '@cpg-output-test']],
    ['tap', ['tap', ...own, '--history', '--timeout', '5']],
    ['tap --json', ['tap', ...own, '--history', '--json', '--timeout', '5']],
    ['tap --write -', ['tap', ...own, '--history', '--write', '-', '--timeout', '5']],
    ['decode', ['decode', 'CAPTURE']],
    ['decode --json', ['decode', 'CAPTURE', '--json']],
    ['decode of one message', ['decode', 'CAPTURE', '--count', '1']],
    ['timeline', ['timeline', 'CAPTURE']],
    ['timeline --json', ['timeline', 'CAPTURE', '--json']],
    ['replay', ['replay', 'CAPTURE', '--group', 'again', '--fast', '--count', '2']],
    ['dissector', ['dissector']],
    ['bench', ['bench', '--workload', 'flood', '--size', '64', '--count', '100']],
    ['bench of idle connections', ['bench', '--workload', 'idle', '--count', '1']],
    ['completion', ['completion', 'bash']],
    ['manual', ['manual']],
  ])('%s', async (_, args) => {
    const { code, stderr } = await onFullDevice(
      args.map((arg) => (arg === 'CAPTURE' ? capture : arg)),
      { stdin: args[0] === 'join' && args[1] === 'g' ? 'pipe' : 'ignore' },
    );
    expect(stderr).toMatch(
      /^cpg: standard output cannot be written, (?:\d+ messages? \()?\d+ bytes?\)? lost \(ENOSPC\): CS_ERR_NO_SPACE \(15\): .+$/m,
    );
    expect(stderr).not.toMatch(/none missed|^\s+at /m);
    expect(code).toBe(1);
  });
});

test('a file of tap that has no room', async () => {
  const { code, stderr } = await cli([
    ...['tap', '--pid', String(process.pid), '--history', '--write', '/dev/full', '--timeout', '5'],
  ]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^cpg: \/dev\/full cannot be written, .*lost \(ENOSPC\): CS_ERR_NO_SPACE \(15\): /m);
  expect(stderr).not.toContain('none missed');
});

test('a capture that cannot be written when the user has ended it', async () => {
  const interrupt = new AbortController();
  const stderr = new Collected();
  const full = Object.assign(new Error('write ENOSPC'), { code: 'ENOSPC', syscall: 'write' });
  const stdout = new Writable({
    highWaterMark: 1 << 20,
    write: (_, __, done) =>
      interrupt.signal.addEventListener('abort', () => setImmediate(() => done(full)), { once: true }),
  });
  const running = run({
    args: ['tap', '--pid', String(process.pid), '--history', '--write', '-'],
    stdin: process.stdin,
    stdout,
    stderr,
    env: {},
    interrupt: interrupt.signal,
  });
  await eventually('the tap follows', () => stderr.text.includes('following'));
  interrupt.abort(interrupted());
  expect(await running).toBe(1);
  expect(stderr.text).toMatch(/^cpg: tap: \d+ messages of \d+ connections?, \d+ not written$/m);
  expect(stderr.text).toMatch(
    /^cpg: standard output cannot be written, .* lost \(ENOSPC\): CS_ERR_NO_SPACE/m,
  );
});

test('what an output is given after it has failed is lost as well', async () => {
  const full = Object.assign(new Error('no room'), { code: 'ENOSPC' });
  const stream = new Writable({ write: (_, __, done) => done(full) });
  const output = new Output(stream, {}, { name: 'it' });
  await output.write('abc', 1).catch(() => undefined);
  await output.flushed();
  await expect(output.write('defg', 2)).rejects.toMatchObject({ code: 'CS_ERR_NO_SPACE' });
  expect(output.unwritten).toBe(3);
  expect(await output.flushed()).toMatchObject({
    what: 'it cannot be written, 3 messages (7 bytes) lost (ENOSPC)',
  });
});

test('a picture that has no room', async () => {
  const { code, stderr } = await cli(['timeline', capture, '--output', '/dev/full']);
  expect(stderr).toMatch(/^cpg: \/dev\/full cannot be written, \d+ bytes lost \(ENOSPC\): CS_ERR_NO_SPACE/m);
  expect(code).toBe(1);
});

describe('standard error without room', () => {
  test('a command goes on without it, and fails', async () => {
    const file = join(directory, 'silent.pcapng');
    const { code } = await onFullDevice(
      ['tap', '--pid', String(process.pid), '--history', '--timeout', '0.5', '--write', file],
      { stream: 'stderr' },
    );
    expect(code).toBe(1);
    expect(await cli(['decode', file])).toMatchObject({ code: 0 });
  });

  test('a command that writes nothing there succeeds', async () => {
    expect(await onFullDevice(['groups', '--names'], { stream: 'stderr' })).toMatchObject({
      code: 0,
      stdout: 'listed\n',
    });
  });
});

test('an error of the last write alone counts, whatever the stream does in between', async () => {
  const late = new Writable({
    write: (_, __, done) =>
      void setImmediate(() => done(Object.assign(new Error('write EIO'), { code: 'EIO', syscall: 'write' }))),
  });
  const stderr = new Collected();
  const code = await run({
    args: ['--version'],
    stdin: process.stdin,
    stdout: late,
    stderr,
    env: {},
    interrupt: new AbortController().signal,
  });
  expect(stderr.text).toMatch(
    /^cpg: --version standard output cannot be written, \d+ bytes lost: EIO: .+\n$/,
  );
  expect(code).toBe(1);
});

const canMount = spawnSync('unshare', ['-m', 'true']).status === 0 ? test : test.skip;

canMount('a file system that takes only a part of a write', () => {
  const mounted = mkdtempSync(join(directory, 'small-'));
  const script = `
    mount -t tmpfs -o size=4k none "$1" && shift
    "$@"
    echo "exit $?"
  `;
  const onSmall = (command: string): ReturnType<typeof spawnSync> =>
    spawnSync('unshare', ['-m', 'bash', '-c', script, 'bash', mounted, 'bash', '-c', command], {
      encoding: 'utf8',
    });
  const node = `${process.execPath} ${builtCli()}`;
  for (const command of [
    `${node} decode ${capture} --hex > ${mounted}/decoded`,
    `${node} manual > ${mounted}/manual`,
    `echo > ${mounted}/full; ${node} timeline ${capture} --output ${mounted}/picture.svg`,
  ]) {
    const { stdout, stderr } = onSmall(command);
    expect(stderr).toMatch(/cannot be written, .* lost \(ENOSPC\): CS_ERR_NO_SPACE \(15\)/);
    expect(stdout).toBe('exit 1\n');
  }
});

describe('files that are made', () => {
  test.each([
    ['tap', ['tap', '--pid', '1', '--timeout', '0.1', '--write']],
    ['timeline', ['timeline', 'CAPTURE', '--output']],
  ])('%s: for this user alone', async (name, args) => {
    const file = join(directory, `private-${name}`);
    const before = process.umask(0);
    try {
      await cli([...args.map((arg) => (arg === 'CAPTURE' ? capture : arg)), file]);
    } finally {
      process.umask(before);
    }
    expect((statSync(file).mode & 0o777).toString(8)).toBe('600');
    expect(readFileSync(file).length).toBeGreaterThan(0);
  });

  test.each([
    ['tap', ['tap', '--write']],
    ['timeline', ['timeline', 'CAPTURE', '--output']],
  ])('%s: where no file can be', async (name, args) => {
    const place = join(directory, 'nowhere', 'file');
    const { code, stderr } = await cli([...args.map((arg) => (arg === 'CAPTURE' ? capture : arg)), place]);
    expect(stderr).toContain(`cpg: ${name} ${place}: ENOENT: check the path\n`);
    expect(code).toBe(1);
    expect(existsSync(place)).toBe(false);
  });
});

test('a closed pipe is quiet, for standard error as well', async () => {
  const command = `${process.execPath} ${builtCli()} tap --pid ${process.pid} --history --timeout 1 2>&1 >/dev/null | true; echo "\${PIPESTATUS[0]}"`;
  const shell = spawn('bash', ['-c', command], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  shell.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await new Promise((resolve) => shell.once('close', resolve));
  expect(output).toBe('0\n');
});
