/** What is left in /dev/shm when a connection ends, whatever becomes of the process and of its daemon. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect } from '../../src';
import { startCorosync, type CorosyncCluster, type CorosyncNode } from '../support/corosync';
import { describeWithCorosync } from '../support/suites';

jest.setTimeout(60_000);

const PACKAGE = JSON.stringify(require.resolve('../../dist/index.js'));

function ringsOf({ pid }: CorosyncNode): string[] {
  return readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${pid}-`));
}

async function readyToBeLeft(child: ChildProcess): Promise<void> {
  let output = '';
  for await (const bytes of child.stdout!) {
    output += String(bytes);
    if (output.includes('ready')) return;
  }
  throw new Error(`it ended too early: ${output}`);
}

/** Programs that end with their daemon; `clients` are joined to a group. */
const PROGRAMS: Record<string, string> = {
  "by exit in a listener of 'close'": `clients[0].on('close', () => process.exit(3));`,
  "by exit in a listener of 'close', with other connections that do not know yet": `
    for (const client of clients) client.on('close', () => process.exit(3));
    // All of them have something to read when the turn begins.
    fs.writeSync(1, 'ready'); while (!gone()) {}`,
  "by an exception in a listener of 'close'": `clients[0].on('close', () => { throw new Error('of the test'); });`,
  'by a loop that throws': `(async () => { for await (const event of clients[0]) event; })();`,
  'by exit after a rejected mcast': `
    (async () => { for (;;) await clients[0].mcast('x', { confirm: true }); })().catch(() => process.exit(3));`,
  'by exit while it is busy': `fs.writeSync(1, 'ready'); while (!gone()) {} process.exit(3);`,
  'by the end of all work': ``,
};

describeWithCorosync('files of connections', () => {
  let cluster: CorosyncCluster;
  let node: CorosyncNode;

  beforeAll(async () => {
    cluster = await startCorosync();
    node = cluster.nodes[0]!;
  });
  beforeEach(async () => {
    if (!node.running) await node.start();
  });
  afterAll(() => cluster.stop());

  function start(body: string, prefix: string[] = [], mapped = false): ChildProcess {
    const program = `
      const fs = require('node:fs');
      const { connect } = require(${PACKAGE});
      const gone = () => { try { process.kill(${node.pid}, 0); return false; } catch { return true; } };
      (async () => {
        const clients = [];
        for (let pid = 1; pid <= 3; pid++) {
          clients.push(await connect({ address: ${JSON.stringify(node.address)}, pid, mapped: ${mapped} }));
          await clients.at(-1).join('leaving');
        }
        ${body}
        fs.writeSync(1, 'ready');
      })();`;
    const [command, ...args] = [...prefix, process.execPath, '-e', program];
    return spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  }

  async function leftBy(child: ChildProcess): Promise<string[]> {
    const exited = once(child, 'exit');
    try {
      await readyToBeLeft(child);
      expect(ringsOf(node)).toHaveLength(3);
      await node.kill();
      await exited;
      return ringsOf(node);
    } finally {
      child.kill('SIGKILL');
    }
  }

  test.each(Object.keys(PROGRAMS))('a process that ends with its daemon, %s, leaves none', async (how) => {
    expect(await leftBy(start(PROGRAMS[how]!))).toEqual([]);
  });

  test('nor one with mapped rings', async () => {
    expect(await leftBy(start(Object.values(PROGRAMS)[0]!, [], true))).toEqual([]);
  });

  test('nor one that cannot see the pid of its daemon', async () => {
    const inNamespace = ['unshare', '--pid', '--fork', '--kill-child'];
    expect(await leftBy(start(Object.values(PROGRAMS)[0]!, inNamespace))).toEqual([]);
  });

  test('nor a thread that ends itself', async () => {
    const body = `
      const { Worker } = require('node:worker_threads');
      for (const client of clients.splice(0)) await client.close();
      const work = "const { connect } = require(" + ${JSON.stringify(PACKAGE)} + ");" +
        "connect({ address: '${node.address}', pid: process.pid + require('node:worker_threads').threadId }).then((client) => {" +
        "client.on('close', () => process.exit(3)); require('node:worker_threads').parentPort.postMessage('ready'); });";
      await Promise.all([1, 2, 3].map(() => new Promise((resolve) => new Worker(work, { eval: true }).once('message', resolve))));`;
    expect(await leftBy(start(body))).toEqual([]);
  });

  test('a stopped daemon that dies after the close leaves none', async () => {
    const client = await connect({ address: node.address, timeoutMs: 300 });
    node.pause();
    try {
      await client.close();
      expect(ringsOf(node)).toEqual([]);
    } finally {
      await node.kill();
    }
  });

  test('a daemon that dies while a client connects leaves none', async () => {
    const connecting = Array.from({ length: 20 }, (_, index) =>
      connect({ address: node.address, pid: index + 1 }).catch(() => undefined),
    );
    await connecting[0];
    await node.kill();
    for (const client of await Promise.all(connecting)) await client?.close();
    expect(ringsOf(node)).toEqual([]);
  });

  test('a daemon that lives is not troubled: connections come and go, and a member stays', async () => {
    const from = node.log().length;
    const staying = await connect({ address: node.address, pid: 1 });
    await staying.join('stays');
    for (let round = 0; round < 200; round++) {
      const client = await connect({ address: node.address, pid: 2 });
      await client.join('stays');
      await client.mcast('x');
      // Every other one is gone before the daemon has read all.
      if (round % 2 === 0) void client.mcast('y').catch(() => undefined);
      await client.close();
      expect(ringsOf(node)).toHaveLength(1);
    }
    await staying.mcast('still here', { confirm: true });
    await staying.close();
    expect(node.log().slice(from)).not.toMatch(/error|warn|crit/i);
  });
});
