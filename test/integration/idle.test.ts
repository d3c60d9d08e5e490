/** What an idle client costs. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { startCorosync } from '../support/corosync';
import { describeWithCorosync } from '../support/suites';

jest.setTimeout(60_000);

const CONNECTIONS = 50;
/** Long enough for any timer of ours to show itself. */
const WATCH_MS = 1500;
/** Node's own start-up work in other threads has ended by then. */
const SETTLE_MS = 1000;

describeWithCorosync('an idle process', () => {
  test(`with ${CONNECTIONS} connections sleeps in one system call`, async () => {
    const cluster = await startCorosync();
    const program = `
      const { connect } = require(${JSON.stringify(require.resolve('../../dist/index.js'))});
      (async () => {
        for (let pid = 1; pid <= ${CONNECTIONS}; pid++) {
          const client = await connect({ address: ${JSON.stringify(cluster.nodes[0]!.address)}, pid });
          client.on('deliver', () => undefined);
          await client.join('idle');
          await client.mcast('once', { confirm: true });
        }
        console.log('ready');
      })();`;
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(child.stdout, 'data');
      await pause(SETTLE_MS);
      const before = switches(child.pid!);
      await pause(WATCH_MS);
      // A thread that makes a system call and sleeps again is switched.
      expect(switches(child.pid!)).toBe(before);
    } finally {
      child.kill();
      await once(child, 'exit');
      await cluster.stop();
    }
  });
});

/** Voluntary context switches of the main thread so far. */
function switches(pid: number): number {
  const [main] = readdirSync(`/proc/${pid}/task`);
  const status = readFileSync(`/proc/${pid}/task/${main!}/status`, 'utf8');
  return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1]);
}
