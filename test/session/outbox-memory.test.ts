/** The outbox never takes more memory than its limit. */
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { MAX_QUEUED_BYTES } from '../../src/session/outbox';
import { builtCli } from '../cli/harness';

jest.setTimeout(120_000);

const DIST = resolve(builtCli(), '../..');
/** Allowance for the garbage collector and the measurement itself. */
const TOLERANCE = 1.1;

/** Fills the outbox of a client with a stopped daemon until it refuses, and measures the memory. */
function fill(call: string, atOnce: number): { bytes: number; code: string } {
  const program = `
    const { spawn } = require('node:child_process');
    const { connect } = require(${JSON.stringify(DIST)});
    const serve = "require(process.argv[1] + '/server').startServer().then(({ address }) => console.log(address))";
    const server = spawn(process.execPath, ['-e', serve, ${JSON.stringify(DIST)}], { stdio: ['ignore', 'pipe', 'inherit'] });
    server.stdout.once('data', async (line) => {
      try {
        const client = await connect({ address: String(line).trim(), timeoutMs: 600_000 });
        await client.join('g');
        const { signal } = new AbortController();
        process.kill(server.pid, 'SIGSTOP');
        const large = Buffer.alloc(2_000_000);
        const call = (index) => ${call};
        const taken = () => { gc(); const { heapUsed, external } = process.memoryUsage(); return heapUsed + external; };
        // The ring is full after that.
        let code;
        const note = (error) => (code ??= error.code);
        const waiting = Array.from({ length: 3 }, () => client.mcast(Buffer.alloc(900_000)));
        for (const one of waiting) one.catch(note);
        const before = taken();
        while (code === undefined) {
          for (let index = 0; index < ${atOnce}; index++) {
            waiting.push(call(index));
            waiting.at(-1).catch(note);
          }
          await new Promise(setImmediate);
        }
        console.log(JSON.stringify({ bytes: taken() - before, code }));
      } finally {
        server.kill('SIGKILL');
        server.once('exit', () => process.exit());
      }
    });`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '-e', program], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout) as ReturnType<typeof fill>;
}

test.each<[what: string, call: string, atOnce?: number]>([
  ['messages of one byte', "client.mcast('x')"],
  ['confirmed messages with a signal', "client.mcast('x', { confirm: true, signal })"],
  ['messages in many parts', "client.mcast(Array.from({ length: 100 }, () => Buffer.from('x')))"],
  ['queries with a signal', 'client.localNodeId({ signal })'],
  ['large messages', 'client.mcast(Buffer.alloc(2_000_000))', 10],
])('%s', (_, call, atOnce = 1000) => {
  const { bytes, code } = fill(call, atOnce);
  expect(code).toBe('CS_ERR_TRY_AGAIN');
  expect(bytes).toBeLessThan(MAX_QUEUED_BYTES * TOLERANCE);
});
