/**
 * Compares this package with libcpg, on private corosync daemons, in one run.
 *
 *     npm run bench                                everything; takes about half an hour
 *     npm run bench -- --nodes 1 --workload latency --rounds 9
 *     npm run bench -- --write docs/bench          keep the results
 *
 * It needs what the suites on real corosync need: root, corosync, libcpg-dev, gcc and iproute2.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { corosyncUnavailable, startCorosync } from '../test/support/corosync';
import { bareLoop, buildLibcpg, catchUp, ours, withWork } from './contestants';
import { describeMachine } from './machine';
import { measure, type Plan } from './measure';
import { plotOf } from './plot';
import { reportOf, type Results } from './report';
import { measureTap, tapCommands } from './tap';

const EXIT_INTERRUPTED = 130;
const MAPPED = '--mapped';
/** Not mapped, which is the default where koffi is installed. */
const FILES = '--files';
const MANUAL = '--manual';
const BUSY_POLLING = ['--busy-poll', '200'];
/** Microseconds that the receiver of libcpg works on each message. */
const WORK_US = [1, 2, 5, 10, 20];
const MAX_LATENCY_WORK_US = 10;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      nodes: { type: 'string', default: '1,3' },
      rounds: { type: 'string', default: '5' },
      workload: { type: 'string', default: 'flood,margin,latency,receive,catchup,idle,tap' },
      write: { type: 'string' },
      quiet: { type: 'boolean', default: false },
    },
  });
  // An exit stops the cluster. A daemon that is killed with us would leave its rings in /dev/shm.
  process.once('SIGINT', () => process.exit(EXIT_INTERRUPTED));
  const obstacle = corosyncUnavailable();
  if (obstacle !== undefined) throw new Error(`cannot run a private corosync: ${obstacle}`);
  const libcpg = buildLibcpg();
  const plan: Plan = {
    rounds: Number(values.rounds),
    workloads: values.workload.split(','),
    libcpg,
    others: [
      { workloads: ['flood', 'latency', 'receive', 'idle'], contestant: ours('corosync-cpg', FILES) },
      { workloads: ['flood'], contestant: ours('mcast awaited', FILES, '--sending', 'mcast') },
      { workloads: ['flood', 'receive'], contestant: ours('lent', FILES, '--lend') },
      { workloads: ['flood', 'latency', 'receive', 'idle'], contestant: ours('mapped', MAPPED) },
      { workloads: ['flood'], contestant: ours('mapped, lent', MAPPED, '--lend') },
      { workloads: ['latency'], contestant: ours('busy polling', FILES, ...BUSY_POLLING) },
      { workloads: ['latency'], contestant: ours('mapped, busy polling', MAPPED, ...BUSY_POLLING) },
      { workloads: ['catchup'], contestant: catchUp('corosync-cpg') },
      { workloads: ['catchup'], contestant: catchUp('manual', MANUAL) },
      { workloads: ['catchup'], contestant: catchUp('mapped', MAPPED) },
      { workloads: ['catchup'], contestant: catchUp('mapped, manual', MAPPED, MANUAL) },
      { workloads: ['margin'], contestant: bareLoop('own') },
      { workloads: ['margin'], contestant: bareLoop('reused') },
      ...WORK_US.map((micros) => ({
        workloads: micros <= MAX_LATENCY_WORK_US ? (['margin', 'latency'] as const) : (['margin'] as const),
        contestant: withWork(libcpg, micros),
      })),
    ],
    progress: (line) => {
      if (!values.quiet) process.stderr.write(`${line}\n`);
    },
  };
  const clusters = [];
  for (const nodes of values.nodes.split(',').map(Number)) {
    // Without encryption, because the bench does not compare its CPU time.
    const totem = { crypto_cipher: 'none', crypto_hash: 'none' };
    const cluster = await startCorosync({ nodes, sockets: 'abstract', config: { totem } });
    try {
      const disciplines = await measure(cluster, plan);
      const measuresTap = nodes === 1 && plan.workloads.includes('tap');
      const taps = measuresTap ? await measureTap(cluster.node(1), tapCommands(), plan) : [];
      clusters.push({ nodes, disciplines, taps });
    } finally {
      await cluster.stop();
    }
  }
  const date = new Date().toISOString().slice(0, 10);
  const results: Results = { date, rounds: plan.rounds, machine: describeMachine(), clusters };
  const report = reportOf(results);
  process.stdout.write(report);
  if (values.write === undefined) return;
  mkdirSync(values.write, { recursive: true });
  writeFileSync(join(values.write, 'results.json'), `${JSON.stringify(results, null, 2)}\n`);
  writeFileSync(join(values.write, 'results.md'), `# Benchmark results\n\n${report}`);
  writeFileSync(join(values.write, 'flood.svg'), plotOf(results));
}

main().catch((error: unknown) => {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
