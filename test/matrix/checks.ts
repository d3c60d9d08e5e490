/** What is tried on each daemon, and with each runtime. */
import { spawn, type ChildProcess } from 'node:child_process';
import { isDeepStrictEqual } from 'node:util';
import { join } from 'node:path';
import { connect } from '../../src';
import { realEnvironment } from '../conformance/real';
import { scenarios, type Scenario } from '../conformance/scenarios';
import { play, recorded } from '../conformance/transcripts';
import type { Step } from '../conformance/transcript';
import type { Environment } from '../conformance/environment';
import {
  startCorosync,
  type CorosyncNode,
  type CorosyncOptions,
  type Installation,
} from '../support/corosync';
import { Collector } from '../support/collector';
import { DeliveryDigest, numberedMessage, startPeer } from '../support/peer';
import { Skipped } from './releases';

/** A program, its arguments before those of the scenario, and where the scenario is. */
export interface Runtime {
  command: string;
  args: readonly string[];
  /** The directory of a project in which this package is installed. */
  project: string;
}

/** What a check found: a short word for the table. It throws when it failed. */
export type Check = () => Promise<string>;

const SCENARIO_TIMEOUT_MS = 240_000;
const DAEMON_TIMEOUT_MS = 60_000;
/** As in the suite: on a busy machine totem sometimes forms a ring twice, a true difference is there every time. */
const ATTEMPTS = 3;
const MIXED_MESSAGES = 2000;
const TAPPED_MESSAGES = 20;

/** Which daemon: nothing is the machine's own. */
export type Daemon = Installation | undefined;

function optionsFor(daemon: Daemon, options: CorosyncOptions = {}): CorosyncOptions {
  return { ...(daemon && { installation: daemon }), timeoutMs: DAEMON_TIMEOUT_MS, ...options };
}

/** The scenario against a daemon of its own, inside its namespaces when its sockets are abstract. */
export async function scenarioOn(
  daemon: Daemon,
  runtime: Runtime,
  mapped: string,
  options: CorosyncOptions = {},
): Promise<string> {
  const cluster = await startCorosync(optionsFor(daemon, options));
  try {
    const node = cluster.node(1);
    const place = cluster.sockets === 'abstract' ? node : { spawn };
    return await scenario(place, runtime, node.address, mapped);
  } finally {
    await cluster.stop();
  }
}

/** The scenario in one place. */
export async function scenario(
  place: { spawn: CorosyncNode['spawn'] | typeof spawn },
  { command, args, project }: Runtime,
  address: string,
  mapped: string,
): Promise<string> {
  const env = { ...process.env, NO_COLOR: '1' };
  const all = [...args, join(project, 'scenario.mjs'), address, mapped];
  const child = place.spawn(command, all, { cwd: project, stdio: ['ignore', 'pipe', 'pipe'], env });
  const { stdout, stderr, end } = await outputOf(child, SCENARIO_TIMEOUT_MS);
  const line = stdout.split('\n').find((text) => text.startsWith('{"'));
  if (line === undefined) throw new Error(`it ended with ${end}: ${shorten(stderr || stdout)}`);
  const said = JSON.parse(line) as { failed?: string; missing?: string };
  if (said.missing !== undefined) throw new Skipped(said.missing);
  if (said.failed !== undefined) throw new Error(said.failed);
  return 'yes';
}

async function outputOf(
  child: ChildProcess,
  timeoutMs: number,
): Promise<{ stdout: string; stderr: string; end: string }> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  const end = await new Promise<string>((done) => {
    child.once('error', (error) => done(error.message));
    child.once('close', (code, signal) => done(signal ?? `status ${code}`));
  });
  clearTimeout(timer);
  return { stdout, stderr, end };
}

export function shorten(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, 300);
}

/** One of ours and one of libcpg, in one group: both get the same messages in the same order. */
export async function mixed(daemon: Daemon, program: string | undefined): Promise<string> {
  const cluster = await startCorosync(optionsFor(daemon));
  const node = cluster.node(1);
  try {
    const client = await connect({ address: node.address, pid: 800_000 });
    try {
      const total = 2 * MIXED_MESSAGES;
      const digest = new DeliveryDigest();
      const seen = new Collector(client);
      client.on('deliver', ({ nodeId, pid, message }) => digest.add(nodeId, pid, message));
      await client.join('mixed');
      const peer = await startPeer(
        program === undefined ? node : node.system,
        'mixed',
        { send: MIXED_MESSAGES, members: 2, expect: total, digest: true },
        program,
      );
      for (let number = 0; number < MIXED_MESSAGES; number++)
        await client.mcast(numberedMessage(number, 1, client.pid, 64));
      await seen.until('all messages', () => digest.count === total, DAEMON_TIMEOUT_MS);
      const { received, digest: theirs } = await peer.done();
      if (received !== total || theirs !== digest.hex())
        throw new Error(`libcpg got ${received} messages, digest ${theirs}; this package ${digest.hex()}`);
      return 'yes';
    } finally {
      await client.close();
    }
  } finally {
    await cluster.stop();
  }
}

/** The tap sees every message of a connection. */
export async function tapped(daemon: Daemon, cli: readonly string[]): Promise<string> {
  const cluster = await startCorosync(optionsFor(daemon));
  const { pid, address } = cluster.node(1);
  const [command = '', ...before] = cli;
  const filter = ['--service', 'cpg', '--message', 'deliver', '--json'];
  const args = [...before, 'tap', '--pid', String(pid), ...filter, '--count', String(TAPPED_MESSAGES)];
  const tap = spawn(command, [...args, '--history', '--timeout', '30'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  try {
    const ended = outputOf(tap, DAEMON_TIMEOUT_MS);
    const client = await connect({ address, pid: 800_000 });
    try {
      await client.join('tapped');
      for (let number = 0; number < TAPPED_MESSAGES; number++)
        await client.mcast(`number ${number}`, { confirm: true });
      const { stdout, stderr, end } = await ended;
      const lines = stdout.split('\n').filter((line) => line.includes('"deliver"'));
      if (lines.length !== TAPPED_MESSAGES)
        throw new Error(`it saw ${lines.length} of ${TAPPED_MESSAGES} messages (${end}): ${shorten(stderr)}`);
      return 'yes';
    } finally {
      await client.close();
    }
  } finally {
    tap.kill('SIGKILL');
    await cluster.stop();
  }
}

/** Plays all scenarios; `differ` hears of each difference from what was recorded. */
export async function conformance(
  daemon: Daemon,
  sizes: readonly number[],
  differ: (scenario: string, difference: string) => void,
): Promise<string> {
  let same = 0;
  const chosen = scenarios.filter(({ nodes }) => sizes.includes(nodes));
  for (const nodes of sizes) {
    const place = new Place(nodes, daemon);
    try {
      for (const one of chosen.filter((candidate) => candidate.nodes === nodes)) {
        const difference = await differenceIn(one, place);
        if (difference === undefined) same++;
        else differ(one.name, difference);
      }
    } finally {
      await place.close();
    }
  }
  return `${same} of ${chosen.length}`;
}

/** Daemons that are used again as long as a scenario leaves them as they were. */
class Place {
  #environment: Environment | undefined;

  constructor(
    private readonly nodes: number,
    private readonly daemon: Daemon,
  ) {}

  async start(): Promise<Environment> {
    this.#environment ??= await realEnvironment(this.nodes, optionsFor(this.daemon));
    return this.#environment;
  }

  async play(chosen: Scenario): Promise<Step[]> {
    const environment = await this.start();
    let finished = false;
    try {
      const steps = await play(chosen, environment);
      await environment.heal();
      finished = environment.nodeIds.every((nodeId) => environment.isRunning(nodeId));
      return steps;
    } finally {
      if (!finished || chosen.leavesGhosts === true) await this.close();
    }
  }

  async close(): Promise<void> {
    await this.#environment?.close();
    this.#environment = undefined;
  }
}

async function differenceIn(chosen: Scenario, place: Place): Promise<string | undefined> {
  let difference: string | undefined;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    // Daemons that do not even start are no difference of this scenario.
    await place.start();
    try {
      difference = firstDifference(recorded(chosen), await place.play(chosen));
      if (difference === undefined) return undefined;
    } catch (error) {
      difference = shorten(String(error));
    }
    await place.close();
  }
  return difference;
}

/** In words; undefined when they are the same. */
export function firstDifference(expected: readonly Step[], found: readonly Step[]): string | undefined {
  for (const [index, step] of expected.entries()) {
    const other = found[index];
    if (isDeepStrictEqual(step, other)) continue;
    if (other === undefined) return `no step "${step.step}"`;
    const [recordedLines, foundLines] = [linesOf(step), linesOf(other)];
    const gone = recordedLines.filter((line) => !foundLines.includes(line));
    const added = foundLines.filter((line) => !recordedLines.includes(line));
    if (gone.length + added.length === 0)
      return `in "${step.step}", the same lines, in another order or number`;
    return `in "${step.step}", ${added[0] ?? 'nothing'} instead of ${gone[0] ?? 'nothing'}`;
  }
  return found.length > expected.length ? 'more steps' : undefined;
}

function linesOf({ replies, events }: Step): string[] {
  return [
    ...replies,
    ...Object.entries(events).flatMap(([actor, lines]) => lines.map((line) => `${actor}: ${line}`)),
  ];
}
