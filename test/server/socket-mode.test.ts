/** A socket file is never there for others, whatever the umask is. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { builtCli } from '../cli/harness';

jest.setTimeout(60_000);

const DIST = resolve(builtCli(), '../..');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-test-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Modes that a thread sees which looks all the time, while servers come and go at `address` in process or worker. */
function modesSeen(address: string, inWorker: boolean): string[] {
  const serve = `
    const { startServer } = require(${JSON.stringify(join(DIST, 'server'))});
    const serve = async () => {
      for (let count = 0; count < 30; count++)
        await (await startServer({ address: ${JSON.stringify(address)} })).close();
    };`;
  const program = `
    const { Worker } = require('node:worker_threads');
    process.umask(0);
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const watcher = new Worker(\`
      const { lstatSync } = require('node:fs');
      const { parentPort, workerData } = require('node:worker_threads');
      parentPort.postMessage('ready');
      const seen = new Set();
      while (Atomics.load(workerData.stop, 0) === 0) {
        const stat = lstatSync(workerData.address, { throwIfNoEntry: false });
        if (stat !== undefined) seen.add((stat.mode & 0o7777).toString(8));
      }
      parentPort.postMessage([...seen]);
    \`, { eval: true, workerData: { stop, address: ${JSON.stringify(address)} } });
    ${serve}
    watcher.once('message', async () => {
      if (${inWorker}) {
        const server = new Worker(${JSON.stringify(`${serve} serve();`)}, { eval: true });
        await new Promise((resolve, reject) => server.once('exit', resolve).once('error', reject));
      } else await serve();
      watcher.once('message', (seen) => console.log(JSON.stringify(seen)));
      Atomics.store(stop, 0, 1);
    });`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout) as string[];
}

test.each([
  ['in a process', false],
  ['in a worker', true],
])('%s', (_, inWorker) => {
  expect(modesSeen(join(directory, 'cpg'), inWorker)).toEqual(['600']);
  expect(readdirSync(directory)).toEqual([]);
});

test('at an address as long as an address can be', () => {
  const address = join(directory, 'x'.repeat(107 - directory.length - 1));
  expect(modesSeen(address, false)).toEqual(['600']);
  expect(readdirSync(directory)).toEqual([]);
});
