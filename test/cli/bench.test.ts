/** cpg bench on the embedded server: it counts right, and finds what is lost. */
import { startServer, type CpgServer } from '../../src/server';
import { cli, CliProcess } from './harness';

let server: CpgServer;

beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server.close();
});

test.each(['tryMcast', 'mcast', 'alloc'])('flood by %s: every message comes back', async (sending) => {
  const args = ['--size', '64,1600,100000', '--count', '300', '--sending', sending, '--json'];
  const { code, json, stderr } = await cli([
    'bench',
    '--address',
    server.address,
    '--workload',
    'flood',
    ...args,
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(json()).toMatchObject(
    [64, 1600, 100_000].map((size) => ({
      type: 'bench',
      workload: 'flood',
      size,
      count: 300,
      received: 300,
      wrong: 0,
      messagesPerSecond: expect.any(Number) as number,
    })),
  );
  // The same numbers in the same order.
  expect(new Set(json().map(({ checksum }) => checksum)).size).toBe(1);
});

test('a message for fragments, too', async () => {
  const args = ['--workload', 'flood', '--size', '2000000', '--count', '3'];
  const { code, stdout } = await cli(['bench', '--address', server.address, ...args]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^flood +2,000,000 B +\d+ messages\/s/);
});

test.each(['', '--busy-poll=100', '--lend', '--mapped', '--files'])('latency %s', async (option) => {
  const args = ['--workload', 'latency', '--count', '200', ...(option === '' ? [] : [option])];
  const { code, stdout, stderr } = await cli(['bench', '--address', server.address, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^latency +64 B +p50 [\d.]+ µs +p90 [\d.]+ µs +p99 [\d.]+ µs\n$/);
});

test('receive counts messages of another process, and idle runs until it is interrupted', async () => {
  const common = ['bench', '--address', server.address, '--group', 'shared', '--json'];
  const receiver = CliProcess.start([...common, '--workload', 'receive', '--count', '500', '--warmup', '0']);
  await receiver.until(/ready/, 'stderr');
  const sender = await cli([
    ...common,
    '--workload',
    'flood',
    '--size',
    '64',
    '--count',
    '500',
    '--warmup',
    '0',
  ]);
  expect(sender.code).toBe(0);
  const { code, json } = await receiver.done();
  expect(code).toBe(0);
  expect(json()).toMatchObject([{ workload: 'receive', received: 500, wrong: 0 }]);
  expect(json()[0]!['checksum']).toBe(sender.json()[0]!['checksum']);

  const idle = CliProcess.start([...common, '--workload', 'idle', '--count', '3']);
  await idle.until(/"connections":3/);
  idle.child.kill('SIGINT');
  expect((await idle.done()).code).toBe(130);
});

test('foreign messages in its group are reported, and fail it', async () => {
  const args = [
    'bench',
    '--address',
    server.address,
    '--group',
    'busy',
    '--workload',
    'flood',
    '--size',
    '64',
  ];
  const other = CliProcess.start(['join', 'busy', '--address', server.address, '--stay']);
  try {
    other.write('mine\n');
    await other.until(/mine/);
    const noise = setInterval(() => other.write('noise\n'), 1);
    const { code, stderr } = await cli([...args, '--count', '20000']);
    clearInterval(noise);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^cpg: bench: flood of 20000 messages of 64 bytes: \d+ came back, \d+ of them out of turn/m,
    );
  } finally {
    other.child.kill('SIGKILL');
    await other.done();
  }
});

test('no time, and sizes that cannot be', async () => {
  const args = ['bench', '--address', server.address];
  const late = await cli([...args, '--timeout', '0.05', '--count', '10000000', '--size', '64']);
  expect(late.code).toBe(1);
  expect(late.stderr).toMatch(
    /^cpg: bench: the time limit expired before the run was complete: CS_ERR_TIMEOUT/m,
  );
  for (const wrong of [
    ['--size', '3'],
    ['--size', '70000000'],
    ['--workload', 'latency', '--size', '2000000'],
  ]) {
    const { code, stderr } = await cli([...args, ...wrong]);
    expect(code).toBe(2);
    expect(stderr).toContain('option --size');
  }
});
