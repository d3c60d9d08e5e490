/** The clients that the bench compares: processes in the namespaces of a node, each with the same workloads. */
import { spawnSync, type ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { CorosyncNode } from '../test/support/corosync';

/** `npm run bench` starts in the package's directory. */
const ROOT = process.cwd();
const BUILD = join(ROOT, 'build');
const RUN_TIMEOUT_MS = 180_000;

export interface Job {
  /**
   * catchup: a receiver is blocked while others send, and then takes everything that waits.
   * margin: a flood by libcpg whose receiver has more work, and by a loop that does nothing else.
   * paced: sends `warmup` messages per second.
   */
  readonly workload: 'flood' | 'latency' | 'receive' | 'catchup' | 'idle' | 'margin' | 'paced';
  readonly size: number;
  readonly count: number;
  readonly warmup: number;
}

export type Numbers = Readonly<Record<string, number>>;

export interface Contestant {
  readonly name: string;
  command(job: Job, group: string): string[];
}

/** Compiles libcpg.c; throws when gcc or libcpg-dev is missing. */
export function buildLibcpg(): Contestant {
  mkdirSync(BUILD, { recursive: true });
  const binary = join(BUILD, 'libcpg');
  const flags = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-o', binary];
  const gcc = spawnSync('gcc', [...flags, join(ROOT, 'bench', 'libcpg.c'), '-lcpg'], { encoding: 'utf8' });
  if (gcc.status !== 0) {
    throw new Error(
      `bench/libcpg.c cannot be built: install gcc and libcpg-dev\n${gcc.error?.message ?? gcc.stderr}`,
    );
  }
  return {
    name: 'libcpg',
    command: ({ workload, size, count, warmup }, group) => [
      binary,
      workload === 'margin' ? 'flood' : workload,
      group,
      ...[size, count, warmup].map(String),
    ],
  };
}

/** The same, with a few microseconds of work on each message that comes back. */
export function withWork(libcpg: Contestant, micros: number): Contestant {
  return {
    name: `libcpg + ${micros} µs`,
    command: (job, group) => [...libcpg.command(job, group), String(micros)],
  };
}

/** See bare-loop.ts. */
export function bareLoop(memory: 'own' | 'reused'): Contestant {
  return {
    name: `bare loop, memory ${memory}`,
    command: ({ size, count, warmup }, group) => [
      ...[process.execPath, join(BUILD, 'bench', 'bare-loop.js'), group],
      ...[size, count, warmup].map(String),
      memory,
    ],
  };
}

/** This package, by catch-up.ts. */
export function catchUp(name: string, ...options: string[]): Contestant {
  return {
    name,
    command: ({ count, warmup }, group) => [
      ...[process.execPath, join(BUILD, 'bench', 'catch-up.js'), group],
      ...[count, warmup].map(String),
      ...options,
    ],
  };
}

/** This package, through `cpg bench`. */
export function ours(name: string, ...options: string[]): Contestant {
  const cli = join(ROOT, 'dist', 'cli', 'main.js');
  return {
    name,
    command: ({ workload, size, count, warmup }, group) => [
      ...[process.execPath, cli, 'bench', '--json', '--workload', workload, '--group', group],
      ...(size > 0 ? ['--size', String(size)] : []),
      ...['--count', String(count), '--warmup', String(warmup)],
      ...options,
    ],
  };
}

/** A process of a contestant, and the one line of JSON that it prints. */
export class Run {
  readonly child: ChildProcess;
  readonly result: Promise<Numbers>;
  #stderr = '';
  #onStderr: () => void = () => undefined;

  constructor(node: CorosyncNode, contestant: Contestant, job: Job, group: string) {
    const [command = '', ...args] = contestant.command(job, group);
    this.child = node.spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.child.stderr?.on('data', (text: Buffer) => {
      this.#stderr += text.toString();
      this.#onStderr();
    });
    const what = `${contestant.name}: ${job.workload} of ${job.count} times ${job.size} bytes`;
    this.result = new Promise((resolve, reject) => {
      let stdout = '';
      const timer = setTimeout(() => {
        this.child.kill('SIGKILL');
        reject(new Error(`${what}: not done after ${RUN_TIMEOUT_MS / 1000} s`));
      }, RUN_TIMEOUT_MS);
      this.child.stdout?.on('data', (text: Buffer) => {
        stdout += text.toString();
        if (!stdout.endsWith('\n')) return;
        clearTimeout(timer);
        resolve(JSON.parse(stdout) as Numbers);
      });
      this.child.once('close', () => {
        clearTimeout(timer);
        reject(new Error(`${what}: failed\n${this.#stderr}`));
      });
    });
  }

  /** Resolves when the process reports that it is ready. */
  async ready(): Promise<void> {
    await Promise.race([
      new Promise<void>((resolve) => {
        this.#onStderr = () => {
          if (this.#stderr.includes('ready')) resolve();
        };
        this.#onStderr();
      }),
      this.result.then(() => undefined),
    ]);
  }

  /** Writes a line to its standard input. */
  resume(): void {
    this.child.stdin?.write('\n');
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const closed = new Promise((resolve) => this.child.once('close', resolve));
    this.child.stdin?.end();
    this.child.kill('SIGINT');
    await closed;
  }
}
