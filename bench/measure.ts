/** All measurements on one cluster: rounds in which the contestants run in turn, and the medians of all rounds. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { floodCount, FLOOD_SIZES, warmupCount } from '../src/bench';
import type { CorosyncCluster, CorosyncNode } from '../test/support/corosync';
import { Run, type Contestant, type Job, type Numbers } from './contestants';

/** One node moves a gigabyte per second. The network between several nodes moves much less. */
const FLOOD_BYTES = 1_000_000_000;
const FLOOD_BYTES_OVER_NETWORK = 200_000_000;
const SIZES = { flood: FLOOD_SIZES, margin: [8000, 40_000, 1_000_000] };
const LATENCY = { workload: 'latency', size: 64, count: 20_000, warmup: 40_000 } as const;
const RECEIVE = { workload: 'receive', size: 0, count: 200_000, warmup: 40_000 } as const;
/** Limits, because the daemon keeps in memory what waits for a blocked receiver. */
const CATCH_UP_SIZES = [64, 1000, 20_000];
const CATCH_UP_COUNT = 300_000;
const CATCH_UP_BYTES = 400_000_000;
const CATCH_UP_WARMUP = 20_000;
const CATCH_UP_WARMUP_BYTES = 100_000_000;
const IDLE_CONNECTIONS = [1, 50];
const IDLE_SECONDS = 5;

/** The result of one contestant in one discipline: the median of each number over the rounds. */
export interface Entry {
  readonly contestant: string;
  readonly numbers: Numbers;
}

export interface Discipline {
  readonly workload: Job['workload'];
  readonly size: number;
  readonly count: number;
  readonly entries: Entry[];
}

export interface Plan {
  readonly rounds: number;
  readonly workloads: readonly string[];
  readonly libcpg: Contestant;
  /** The contestants that are compared with libcpg, and their workloads. */
  readonly others: readonly { workloads: readonly Job['workload'][]; contestant: Contestant }[];
  readonly progress: (line: string) => void;
}

export async function measure(cluster: CorosyncCluster, plan: Plan): Promise<Discipline[]> {
  const node = cluster.node(1);
  const disciplines: Discipline[] = [];
  const wanted = (workload: string): boolean => plan.workloads.includes(workload);
  const bytes = cluster.nodes.length === 1 ? FLOOD_BYTES : FLOOD_BYTES_OVER_NETWORK;
  for (const workload of ['flood', 'margin'] as const) {
    for (const size of wanted(workload) ? SIZES[workload] : []) {
      const count = floodCount(size, bytes);
      disciplines.push(await inTurn(node, plan, { workload, size, count, warmup: warmupCount(count) }));
    }
  }
  if (wanted('latency')) disciplines.push(await inTurn(node, plan, LATENCY));
  if (wanted('receive')) disciplines.push(await inTurn(node, plan, RECEIVE));
  for (const size of wanted('catchup') ? CATCH_UP_SIZES : []) {
    const count = Math.min(CATCH_UP_COUNT, CATCH_UP_BYTES / size);
    const warmup = Math.min(CATCH_UP_WARMUP, CATCH_UP_WARMUP_BYTES / size);
    disciplines.push(await inTurn(node, plan, { workload: 'catchup', size, count, warmup }));
  }
  if (wanted('idle')) {
    for (const count of IDLE_CONNECTIONS) {
      disciplines.push(
        await inTurn(node, { ...plan, rounds: 1 }, { workload: 'idle', size: 0, count, warmup: 0 }),
      );
    }
  }
  return disciplines;
}

let groups = 0;

async function inTurn(node: CorosyncNode, plan: Plan, job: Job): Promise<Discipline> {
  const others = plan.others.filter(({ workloads }) => workloads.includes(job.workload));
  const contestants = [plan.libcpg, ...others.map(({ contestant }) => contestant)];
  const all = new Map<string, Numbers[]>(contestants.map(({ name }) => [name, []]));
  for (let round = 0; round < plan.rounds; round++) {
    // Every other round runs in reverse order, so that no contestant always runs after the same one.
    for (const contestant of round % 2 === 0 ? contestants : [...contestants].reverse()) {
      const numbers = await runOnce(node, plan, contestant, job, `bench-${groups++}`);
      all.get(contestant.name)!.push(numbers);
      plan.progress(`${job.workload} ${job.size} ${contestant.name} ${JSON.stringify(numbers)}`);
    }
  }
  const entries = [...all].map(([contestant, rounds]) => ({ contestant, numbers: medians(rounds) }));
  return { workload: job.workload, size: job.size, count: job.count, entries };
}

async function runOnce(
  node: CorosyncNode,
  plan: Plan,
  contestant: Contestant,
  job: Job,
  group: string,
): Promise<Numbers> {
  const receives = job.workload === 'receive' || job.workload === 'catchup';
  const all = job.count + (receives ? job.warmup : 0);
  const run = new Run(node, contestant, job, group);
  try {
    if (receives) {
      await run.ready();
      const { size } = job.workload === 'receive' ? LATENCY : job;
      const flood = { workload: 'flood', size, count: all, warmup: 0 } as const;
      const sender = new Run(node, plan.libcpg, flood, group);
      assertComplete(contestant, job, await sender.result, all);
      await sender.end();
      if (job.workload === 'catchup') run.resume();
    }
    const numbers = await run.result;
    if (job.workload === 'idle') return { ...numbers, systemCalls: await countSystemCalls(run) };
    assertComplete(contestant, job, numbers, all);
    return numbers;
  } finally {
    await run.end();
  }
}

/** A run that lost a message must not enter a table of rates. */
function assertComplete(
  { name }: Contestant,
  { workload, size }: Job,
  numbers: Numbers,
  count: number,
): void {
  if (numbers['received'] === count && numbers['wrong'] === 0) return;
  throw new Error(
    `${name}: ${workload} at ${size} bytes: ${numbers['received']} of ${count}, ${numbers['wrong']} out of turn`,
  );
}

/** System calls of all threads while nothing happens; NaN without strace. */
async function countSystemCalls({ child }: Run): Promise<number> {
  if (spawnSync('strace', ['-V']).error !== undefined) return NaN;
  const strace = spawn('strace', ['-f', '-c', '-p', String(child.pid)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let report = '';
  strace.stderr.on('data', (text: Buffer) => (report += text.toString()));
  const closed = once(strace, 'close');
  while (!report.includes('attached')) {
    const [event] = (await Promise.race([once(strace.stderr, 'data'), closed])) as unknown[];
    if (typeof event === 'number') return NaN;
  }
  // This does not wait for an event: it is the time in which nothing should happen.
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1000));
  strace.kill('SIGINT');
  await closed;
  return Number(/^\s*[\d.]+\s+[\d.]+\s+\d*\s+(\d+)\s+(?:\d+\s+)?total$/m.exec(report)?.[1] ?? 0);
}

function medians(rounds: readonly Numbers[]): Numbers {
  const names = Object.keys(rounds[0] ?? {}).filter((name) => typeof rounds[0]?.[name] === 'number');
  return Object.fromEntries(
    names.map((name) => {
      const values = rounds.map((round) => round[name] ?? NaN).sort((a, b) => a - b);
      return [name, values[Math.floor(values.length / 2)] ?? NaN];
    }),
  );
}
