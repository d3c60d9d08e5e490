/** What a server leaves that had no chance to clean up is removed by the next one, and nothing else is. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { builtCli } from '../cli/harness';

jest.setTimeout(60_000);

const DIST = resolve(builtCli(), '../..');
const IN_NAMESPACE = spawnSync('unshare', ['-pf', 'true']).status === 0;
const inNamespace = IN_NAMESPACE ? test : test.skip;

let directory: string;
let children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-test-'));
});
afterEach(async () => {
  for (const child of children) {
    const exited = child.exitCode ?? child.signalCode ?? once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  children = [];
  // Also what a failed test left.
  await next();
  rmSync(directory, { recursive: true, force: true });
});

const PROGRAM = `
  const { SimulatedCluster, startServer } = require(${JSON.stringify(join(DIST, 'server'))});
  const ready = (what) => require('node:fs').writeSync(1, JSON.stringify(what) + '\\n');`;
const SERVE = `(async () => {
    const cluster = await SimulatedCluster.start({ nodes: 2 });
    const client = await cluster.node(1).connect();
    await client.join('g');
    ready({ address: cluster.node(1).address });
  })();`;

/** Runs `body` in a process of its own, until it says that it is ready. */
async function start(body: string, prefix: string[] = []): Promise<{ child: ChildProcess; address: string }> {
  const [command, ...args] = [...prefix, process.execPath, '-e', PROGRAM + body];
  const child = spawn(command, args, {
    env: { ...process.env, TMPDIR: directory },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, ...(JSON.parse(String(line)) as { address: string }) };
}

/** Starts a server and stops it. */
async function next(): Promise<void> {
  const { child } = await start(`startServer().then((server) => server.close()).then(() => ready({}));`);
  if (child.exitCode === null) await once(child, 'exit');
}

/** Directories of rings by the number of the process in their names. */
const rings = (pid: number): string[] =>
  readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${pid}-`));

/** What servers have in the directory for temporary files and in shared memory beside rings. */
const claims = (): string[] => readdirSync(directory);

test('after SIGKILL', async () => {
  const { child, address } = await start(SERVE);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(rings(child.pid!)).toHaveLength(1);
  expect(existsSync(address)).toBe(true);
  await next();
  expect(rings(child.pid!)).toEqual([]);
  expect(claims()).toEqual([]);
});

test('after the end of a worker whose process lives on', async () => {
  const { child } = await start(`
    const { Worker } = require('node:worker_threads');
    const worker = new Worker(${JSON.stringify(PROGRAM + SERVE.replace('ready({', "require('node:worker_threads').parentPort.postMessage({"))}, { eval: true });
    worker.once('message', async ({ address }) => {
      await worker.terminate();
      setInterval(() => {}, 1000);
      ready({ address });
    });`);
  expect(rings(child.pid!)).toHaveLength(1);
  await next();
  expect(rings(child.pid!)).toEqual([]);
  expect(claims()).toEqual([]);
  expect(child.exitCode).toBeNull();
});

test('in the same process after the end of a worker', async () => {
  const { child } = await start(`
    const { Worker } = require('node:worker_threads');
    const worker = new Worker(${JSON.stringify(PROGRAM + SERVE.replace('ready({', "require('node:worker_threads').parentPort.postMessage({"))}, { eval: true });
    worker.once('message', async ({ address }) => {
      await worker.terminate();
      await startServer();
      ready({ address });
    });`);
  expect(rings(child.pid!)).toEqual([]);
});

test('not of a server that lives, also one that is stopped and answers nobody', async () => {
  const { child, address } = await start(SERVE);
  const stopped = await start(SERVE);
  stopped.child.kill('SIGSTOP');
  await Promise.all([next(), next(), next()]);
  for (const { pid } of [child, stopped.child]) expect(rings(pid!)).toHaveLength(1);
  for (const path of [address, stopped.address]) expect(lstatSync(path).isSocket()).toBe(true);
});

inNamespace('whatever pid its process had in its own namespace', async () => {
  const dead = await start(SERVE, ['unshare', '-pf', '--kill-child']);
  const living = await start(SERVE, ['unshare', '-pf', '--kill-child']);
  // Both have pid 1 there, as init has here.
  const before = rings(1).length;
  dead.child.kill('SIGKILL');
  await once(dead.child, 'exit');
  await next();
  expect(rings(1)).toHaveLength(before - 1);
  expect(existsSync(dead.address)).toBe(false);
  expect(existsSync(living.address)).toBe(true);
});

test('leftovers without proof stay', async () => {
  const lookalike = join(directory, 'cpg-AbCdEf');
  mkdirSync(lookalike);
  await next();
  expect(existsSync(lookalike)).toBe(true);
});

test('not of another machine that shares the directory', async () => {
  const { child, address } = await start(SERVE);
  child.kill('SIGKILL');
  await once(child, 'exit');
  const claim = resolve(address, '../..');
  const alive = join(
    claim,
    readdirSync(claim).find((name) => name.startsWith('alive-'))!,
  );
  const elsewhere = join(claim, 'alive-of-them');
  renameSync(alive, elsewhere);
  await next();
  expect(existsSync(address)).toBe(true);
  renameSync(elsewhere, alive);
  await next();
  expect(existsSync(address)).toBe(false);
});

test('several next ones at a time', async () => {
  const dead = await Promise.all([1, 2, 3].map(() => start(SERVE)));
  for (const { child } of dead) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await Promise.all([1, 2, 3, 4].map(() => next()));
  for (const { child } of dead) expect(rings(child.pid!)).toEqual([]);
  expect(claims()).toEqual([]);
});

test('the socket at an address of its own is left to the next server there', async () => {
  const address = join(directory, 'own');
  const body = `startServer({ address: ${JSON.stringify(address)} }).then(() => ready({}));`;
  const { child } = await start(body);
  child.kill('SIGKILL');
  await once(child, 'exit');
  await next();
  expect(existsSync(address)).toBe(true);
  await start(body);
  expect(readdirSync(dirname(address))).toEqual(['own']);
});
