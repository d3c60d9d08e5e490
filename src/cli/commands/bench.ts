import { randomUUID } from 'node:crypto';
import {
  flood,
  FLOOD_SIZES,
  floodCount,
  holdIdle,
  latency,
  receive,
  warmupCount,
  type FloodResult,
  type LatencyResult,
  type Sending,
} from '../../bench';
import { NUMBER_BYTES } from '../../bench/member';
import { MAX_BUSY_POLL_US } from '../../client';
import { groupText } from '../../codec/groups';
import { MAX_ATOMIC_MESSAGE_BYTES, MAX_MESSAGE_BYTES } from '../../codec/limits';
import { CpgError } from '../../errors';
import { defineCommand, type Context } from '../command';
import { jsonLine } from '../json';
import { TimeLimit } from '../limit';
import { flag, group as groupOption, integer, integers, oneOf, seconds, someOf } from '../options';
import { counted } from '../text';
import { UsageError } from '../failure';

const WORKLOADS = ['flood', 'latency', 'receive', 'idle'] as const;
const SENDINGS: readonly Sending[] = ['tryMcast', 'mcast', 'alloc'];
const LATENCY_SIZE = 64;
const LATENCY_COUNT = 10_000;
const MAX_CONNECTIONS = 10_000;

export const bench = defineCommand({
  name: 'bench',
  summary: 'measure a daemon through this client',
  description: [
    'Joins a group of its own, sends messages and receives them back. flood sends as fast as the daemon takes them, at several sizes. latency sends one at a time and measures from the call to the delivery, in microseconds. Messages are numbered: if one is lost, duplicated or out of order, the command reports it and fails.',
    'receive counts the messages with which another process floods the same group (give both the same --group). idle holds connections that do nothing until the command is interrupted. Both run only on request.',
    'It loads the daemon, the network and every node of the cluster as much as it can: think twice before you run it on a production cluster.',
  ],
  options: {
    workload: someOf('NAME', WORKLOADS, 'workload to run; default flood and latency'),
    size: integers('BYTES', `message sizes; default ${FLOOD_SIZES.join(',')}, for latency 64`),
    count: integer('N', 'messages per run, or connections for idle; default depends on the size'),
    warmup: integer(
      'N',
      'messages before each measurement; default as many as are measured, at most 40,000',
      { min: 0 },
    ),
    sending: oneOf('HOW', SENDINGS, 'how flood sends; default tryMcast, or mcast for fragmented messages'),
    group: groupOption('the group to use; default one for this process'),
    'busy-poll': integer('MICROSECONDS', 'poll for events this long before sleeping; default 0', {
      min: 0,
      max: MAX_BUSY_POLL_US,
    }),
    lend: flag('receive messages as borrowed buffers, without copies'),
    mapped: flag('map the rings into memory; fails without koffi or node:ffi'),
    files: flag('read and write the rings as files; by default they are mapped if koffi is installed'),
    timeout: seconds('give up after this time'),
  },
  examples: [
    { command: 'cpg bench', meaning: 'How fast is this daemon?' },
    { command: 'cpg bench --workload latency --busy-poll 200', meaning: 'How much does busy polling gain?' },
    { command: 'cpg bench --files', meaning: 'How much do mapped rings gain?' },
    { command: 'cpg bench --size 64,1600 --json', meaning: 'Two sizes, for a script.' },
  ],
  run: async (context, { json, workload, size: sizes, timeout, ...values }) => {
    const limit = new TimeLimit(context.signal, timeout);
    const common = {
      connect: {
        ...(values.address === undefined ? {} : { address: values.address }),
        busyPollUs: values['busy-poll'] ?? 0,
        lend: values.lend,
        mapped: values.mapped || (values.files ? false : ('auto' as const)),
      },
      group: values.group === undefined ? `cpg-bench-${randomUUID()}` : groupText(values.group),
      signal: limit.signal,
    };
    const warmupOf = (count: number): number => values.warmup ?? warmupCount(count);
    const print = new Printer(context, json);
    checkSizes(sizes);
    try {
      if (workload.includes('latency')) checkAtomic(sizes);
      for (const name of workload.length > 0 ? workload : (['flood', 'latency'] as const)) {
        switch (name) {
          case 'flood':
            for (const size of sizes.length > 0 ? sizes : FLOOD_SIZES) {
              const count = values.count ?? floodCount(size);
              const sending = values.sending ?? (size > MAX_ATOMIC_MESSAGE_BYTES ? 'mcast' : 'tryMcast');
              const warmup = warmupOf(count);
              await print.flood(size, count, await flood({ ...common, size, count, warmup, sending }));
            }
            break;
          case 'latency':
            for (const size of sizes.length > 0 ? sizes : [LATENCY_SIZE]) {
              const count = values.count ?? LATENCY_COUNT;
              await print.latency(
                size,
                count,
                await latency({ ...common, size, count, warmup: warmupOf(count) }),
              );
            }
            break;
          case 'receive': {
            const count = values.count ?? floodCount(LATENCY_SIZE);
            const onReady = (): void => void context.err.line('cpg: bench: ready');
            const result = await receive({ ...common, count, warmup: warmupOf(count), onReady });
            await print.result(
              { workload: 'receive', count, ...result },
              () =>
                `receive  ${micros(result.cpuMicrosPerMessage)} µs of CPU time per message, in ${result.seconds.toFixed(1)} s`,
            );
            break;
          }
          case 'idle':
            await holdIdle({ ...common, connections: connectionsOf(values.count) }, (result) => {
              const printed = print.result(
                { workload: 'idle', ...result },
                () =>
                  `idle     ${counted(result.connections, 'connection')}, ${Math.round(result.bytesPerConnection / 1024)} KiB each`,
              );
              // The output itself reports its loss and ends the command.
              printed.catch(() => undefined);
            });
            break;
        }
      }
    } catch (error) {
      if (!limit.expired) throw error;
      throw new CpgError('CS_ERR_TIMEOUT', 'bench: the time limit expired before the run was complete', {
        remedy: 'give more time, or fewer messages with --count',
      });
    } finally {
      limit.dispose();
    }
  },
});

class Printer {
  readonly #context: Context;
  readonly #json: boolean;

  constructor(context: Context, json: boolean) {
    this.#context = context;
    this.#json = json;
  }

  async flood(size: number, count: number, result: FloodResult): Promise<void> {
    await this.result({ workload: 'flood', size, count, ...result }, () => {
      const rate = thousands(result.messagesPerSecond).padStart(9);
      const megabytes = result.megabytesPerSecond.toFixed(1).padStart(7);
      const cpu = micros(result.cpuMicrosPerMessage).padStart(7);
      return `flood    ${bytes(size)}  ${rate} messages/s  ${megabytes} MB/s  ${cpu} µs of CPU time each`;
    });
    assertComplete('flood', size, count, result);
  }

  async latency(size: number, count: number, result: LatencyResult): Promise<void> {
    await this.result({ workload: 'latency', size, count, ...result }, () => {
      const [p50, p90, p99] = [result.p50, result.p90, result.p99].map((value) => micros(value));
      return `latency  ${bytes(size)}  p50 ${p50} µs  p90 ${p90} µs  p99 ${p99} µs`;
    });
    assertComplete('latency', size, count, result);
  }

  async result(result: { workload: string; [field: string]: unknown }, line: () => string): Promise<void> {
    await this.#context.out.line(this.#json ? jsonLine({ type: 'bench', ...result }) : line());
  }
}

function checkSizes(sizes: readonly number[]): void {
  const wrong = sizes.find((size) => size < NUMBER_BYTES || size > MAX_MESSAGE_BYTES);
  if (wrong === undefined) return;
  throw new UsageError(
    `option --size: '${wrong}' where a number from ${NUMBER_BYTES} to ${MAX_MESSAGE_BYTES} is expected`,
  );
}

/** A fragmented message waits for the daemon's replies, which would distort the latency. */
function checkAtomic(sizes: readonly number[]): void {
  const wrong = sizes.find((size) => size > MAX_ATOMIC_MESSAGE_BYTES);
  if (wrong === undefined) return;
  throw new UsageError(
    `option --size: latency takes at most ${MAX_ATOMIC_MESSAGE_BYTES} bytes, not '${wrong}'`,
  );
}

function connectionsOf(count = 1): number {
  if (count <= MAX_CONNECTIONS) return count;
  throw new UsageError(`option --count: '${count}' where up to ${MAX_CONNECTIONS} connections are expected`);
}

/** A fast client that loses messages is worthless. */
function assertComplete(
  workload: string,
  size: number,
  count: number,
  { received, wrong }: { received: number; wrong: number },
): void {
  if (received === count && wrong === 0) return;
  throw new CpgError(
    'CS_ERR_FAILED_OPERATION',
    `bench: ${workload} of ${counted(count, 'message')} of ${counted(size, 'byte')}: ${received} came back, ${wrong} of them out of turn`,
    { remedy: 'check that nobody else uses the group; if so, please report it' },
  );
}

function bytes(size: number): string {
  return `${thousands(size)} B`.padStart(11);
}

function thousands(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function micros(value: number): string {
  return value.toFixed(1);
}
