/** The package inside Jest, as a user has it: fake timers, and a stop() that is forgotten. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { builtCli } from '../cli/harness';

jest.setTimeout(60_000);

const DIST = JSON.stringify(resolve(builtCli(), '../..'));
const JEST = join(dirname(require.resolve('jest/package.json')), 'bin', 'jest.js');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(realpathSync(tmpdir()), 'cpg-test-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Run {
  status: number | null;
  pid: number;
  stderr: string;
}

/** Runs Jest on one test with this body; null as status when it does not end. */
function runJest(body: string, config: object = {}): Run {
  writeFileSync(join(directory, 'jest.config.json'), JSON.stringify({ rootDir: '.', ...config }));
  writeFileSync(
    join(directory, 'of-a-user.test.js'),
    `const { connect } = require(${DIST});
     const { startServer } = require(${DIST} + '/server');
     ${body}`,
  );
  const args = [JEST, '--rootDir', directory, '--runInBand', '--no-cache', '--no-watchman'];
  const { status, pid, stderr } = spawnSync(process.execPath, args, {
    cwd: directory,
    encoding: 'utf8',
    env: { ...process.env, TMPDIR: directory },
    timeout: 25_000,
  });
  return { status, pid, stderr };
}

const rings = (pid: number): string[] =>
  readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${pid}-`));

const LIFE = `
  const server = await startServer();
  const client = await connect({ address: server.address, timeoutMs: 3000 });
  const events = client.events();
  await client.join('g');
  await client.mcast('small', { confirm: true });
  await client.mcast(Buffer.alloc(3_000_000), { confirm: true });
  await Promise.all(Array.from({ length: 2000 }, () => client.mcast('many')));
  await client.membership();
  expect((await events.next()).value.type).toBe('confchg');
  await server.settled();
  await client.leave();
  await client.close();
  await server.close();`;

test.each([
  ['modern', 'jest.useFakeTimers()'],
  ['legacy', 'jest.useFakeTimers({ legacyFakeTimers: true })'],
  ['modern with a date', "jest.useFakeTimers({ now: new Date('2001-01-01') })"],
])('everything works with fake timers: %s', (_, fake) => {
  const { status, stderr } = runJest(`test('t', async () => { ${fake}; ${LIFE} });`);
  expect(stderr).toMatch(/1 passed/);
  expect(status).toBe(0);
});

test('connections from before fake timers keep working, also after the real ones return', () => {
  const { status, stderr } = runJest(`
    test('t', async () => {
      const server = await startServer();
      const client = await server.connect();
      await client.join('g');
      jest.useFakeTimers();
      await client.mcast('a', { confirm: true });
      jest.advanceTimersByTime(3_600_000);
      await client.mcast('b', { confirm: true });
      jest.useRealTimers();
      await client.mcast('c', { confirm: true });
      await server.close();
    });`);
  expect(stderr).toMatch(/1 passed/);
  expect(status).toBe(0);
});

test('fake timers from the beginning, as the guide says', () => {
  const { status, stderr } = runJest(`test('t', async () => { ${LIFE} });`, {
    fakeTimers: { enableGlobally: true, doNotFake: ['nextTick'] },
  });
  expect(stderr).toMatch(/1 passed/);
  expect(status).toBe(0);
});

test('a forgotten stop() after unref(): Jest ends, and the next server removes what stayed', () => {
  const { status, pid, stderr } = runJest(`
    test('t', async () => {
      const server = (await startServer()).unref();
      const client = await server.connect();
      await client.join('g');
      await client.mcast('m', { confirm: true });
    });`);
  expect(stderr).toMatch(/1 passed/);
  expect(status).toBe(0);
  // Jest gives modules a copy of process, which does not say 'exit': this is what the next server is for.
  expect(rings(pid)).toHaveLength(1);
  runJest(`test('t', async () => { await (await startServer()).close(); });`);
  expect(rings(pid)).toEqual([]);
});

test('timers of the modules that are replaced after loading do not count either', () => {
  const fakeTimers = require.resolve('@sinonjs/fake-timers');
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      '-e',
      `const { connect } = require(${DIST});
       const { startServer } = require(${DIST} + '/server');
       const expect = () => ({ toBe() {} });
       require(${JSON.stringify(fakeTimers)}).install({
         toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'setImmediate', 'clearImmediate', 'Date', 'performance'],
       });
       (async () => { ${LIFE} })();
       process.once('beforeExit', () => (process.exitCode ??= 0));`,
    ],
    { encoding: 'utf8', timeout: 25_000 },
  );
  expect(stderr).toBe('');
  expect(status).toBe(0);
});
