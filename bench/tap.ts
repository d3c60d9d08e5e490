/**
 * Measures what `cpg tap` costs the programs that it follows, and what it misses of them.
 *
 * A libcpg flood runs without and with a tap, in turn. The effect is the mean of the differences within the pairs. A
 * sender with a moderate rate shows how much the tap misses. In both runs the tap waits for a connection that begins
 * to send at once. This is the hardest case, because the tap's code is not compiled yet.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CorosyncNode } from '../test/support/corosync';
import { Run, type Contestant, type Job } from './contestants';
import type { Plan } from './measure';

const FLOOD: Job = { workload: 'flood', size: 64, count: 400_000, warmup: 0 };
/** 20,000 messages per second, for 5 seconds. */
const PACED: Job = { workload: 'paced', size: 64, count: 100_000, warmup: 20_000 };
const TICKS_PER_SECOND = 100;

export interface TapCommand {
  readonly name: string;
  readonly command: readonly string[];
}

/** The result of all runs with one tap. */
export interface TapEntry {
  readonly tap: string;
  /** Slowdown of the flood in percent: mean over the pairs, and its standard error. */
  readonly effect: number;
  readonly effectError: number;
  /** CPU time of the tap during a flood, as a share of one CPU. */
  readonly floodCpu: number;
  readonly pacedCpu: number;
  readonly pacedRuns: number;
  readonly pacedRunsComplete: number;
  readonly pacedMissed: number;
}

export function tapCommands(cli = join(process.cwd(), 'dist', 'cli', 'main.js')): TapCommand[] {
  const command = [process.execPath, cli, 'tap'];
  return [
    { name: 'text', command },
    { name: 'recorded', command: [...command, '--write', '/dev/null'] },
  ];
}

export async function measureTap(
  node: CorosyncNode,
  taps: readonly TapCommand[],
  { libcpg, rounds, progress }: Pick<Plan, 'libcpg' | 'rounds' | 'progress'>,
): Promise<TapEntry[]> {
  const runs = new Map<
    string,
    { slowdowns: number[]; floodCpus: number[]; pacedCpus: number[]; missed: number[] }
  >(taps.map(({ name }) => [name, { slowdowns: [], floodCpus: [], pacedCpus: [], missed: [] }]));
  for (let round = 0; round < rounds; round++) {
    const variants = [undefined, ...taps];
    const seconds = new Map<string | undefined, number>();
    // Every other round runs in reverse order, so that no variant always runs after the same one.
    for (const tap of round % 2 === 0 ? variants : variants.reverse()) {
      const flood = await runOnce(node, libcpg, FLOOD, tap);
      seconds.set(tap?.name, flood.seconds);
      progress(`tap ${tap?.name ?? 'none'} flood ${JSON.stringify(flood)}`);
      if (tap === undefined) continue;
      const paced = await runOnce(node, libcpg, PACED, tap);
      progress(`tap ${tap.name} paced ${JSON.stringify(paced)}`);
      const { floodCpus, pacedCpus, missed } = runs.get(tap.name)!;
      floodCpus.push(flood.cpu);
      pacedCpus.push(paced.cpu);
      missed.push(paced.missed);
    }
    const alone = seconds.get(undefined)!;
    for (const { name } of taps) runs.get(name)!.slowdowns.push(100 * (1 - alone / seconds.get(name)!));
  }
  return [...runs].map(([tap, { slowdowns, floodCpus, pacedCpus, missed }]) => ({
    tap,
    effect: mean(slowdowns),
    effectError: standardError(slowdowns),
    floodCpu: mean(floodCpus),
    pacedCpu: mean(pacedCpus),
    pacedRuns: missed.length,
    pacedRunsComplete: missed.filter((count) => count === 0).length,
    pacedMissed: missed.reduce((sum, count) => sum + count, 0),
  }));
}

let groups = 0;

async function runOnce(
  node: CorosyncNode,
  libcpg: Contestant,
  job: Job,
  command: TapCommand | undefined,
): Promise<{ seconds: number; cpu: number; seen: number; missed: number }> {
  const tap = command === undefined ? undefined : await Tap.start(node, command);
  const run = new Run(node, libcpg, job, `tap-${groups++}`);
  try {
    const before = tap?.cpuSeconds ?? 0;
    const seconds = (await run.result)['seconds'] ?? NaN;
    const cpu = ((tap?.cpuSeconds ?? 0) - before) / seconds;
    await run.end();
    return { seconds, cpu, ...(tap === undefined ? { seen: 0, missed: 0 } : await tap.end()) };
  } finally {
    await run.end();
    tap?.kill();
  }
}

class Tap {
  readonly #child;
  readonly #closed: Promise<unknown>;
  #stderr = '';

  private constructor({ pid }: CorosyncNode, [file = '', ...args]: readonly string[]) {
    const own = ['--pid', String(pid)];
    this.#child = spawn(file, [...args, ...own], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr.on('data', (text: Buffer) => (this.#stderr += text.toString()));
    this.#closed = once(this.#child, 'close');
  }

  /** Resolves when the tap follows the node's connections. */
  static async start(node: CorosyncNode, { command }: TapCommand): Promise<Tap> {
    const tap = new Tap(node, command);
    while (!tap.#stderr.includes('following')) {
      const [code] = (await Promise.race([once(tap.#child.stderr, 'data'), tap.#closed])) as unknown[];
      if (typeof code === 'number') throw new Error(`cpg tap: ${tap.#stderr}`);
    }
    return tap;
  }

  /** CPU time of all its threads since it was started. */
  get cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }

  /** Interrupts it, and reads its last line. */
  async end(): Promise<{ seen: number; missed: number }> {
    this.#child.kill('SIGINT');
    await this.#closed;
    const [, seen] = /(\d+) messages? of/.exec(this.#stderr) ?? [];
    const [, missed = '0'] = /(\d+) missed/.exec(this.#stderr) ?? [];
    if (seen === undefined) throw new Error(`cpg tap: ${this.#stderr}`);
    return { seen: Number(seen), missed: Number(missed) };
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function standardError(values: readonly number[]): number {
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}
