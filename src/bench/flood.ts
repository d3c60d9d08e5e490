/** Sends as fast as the daemon accepts, and receives every message back. */
import { once } from 'node:events';
import type { CpgClient } from '../client';
import { monotonicMs } from '../clock';
import { BenchMember, cpuMicros, putNumber, type Delivered, type WorkloadOptions } from './member';

export const FLOOD_SIZES = [64, 320, 1600, 8000, 40_000, 200_000, 1_000_000] as const;

/** Messages in flight. */
const WINDOW = 256;
/** Bytes in flight: fewer large messages, to limit the memory. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** The client call that sends the messages. */
export type Sending = 'tryMcast' | 'mcast' | 'alloc';

export interface FloodOptions extends WorkloadOptions {
  /** Message size in bytes, at least 4. */
  readonly size: number;
  readonly count: number;
  /** Messages before the measurement. */
  readonly warmup: number;
  readonly sending: Sending;
}

export interface FloodResult extends Delivered {
  readonly seconds: number;
  readonly messagesPerSecond: number;
  /** Millions of message bytes per second, without headers. */
  readonly megabytesPerSecond: number;
  readonly cpuMicrosPerMessage: number;
}

/** Number of messages for about `bytes`; the default takes about a second on an ordinary machine. */
export function floodCount(size: number, bytes = 300_000_000): number {
  return Math.min(400_000, Math.max(300, Math.floor(bytes / size)));
}

/** Node compiles hot code only after some ten thousand messages; a long-running service is past that. */
export function warmupCount(count: number): number {
  return Math.min(40_000, count);
}

export function flood(options: FloodOptions): Promise<FloodResult> {
  const { size, count, warmup } = options;
  return BenchMember.during(options, async (member) => {
    await sendAll(member, options, warmup);
    member.reset();
    const begin = monotonicMs();
    const cpu = process.cpuUsage();
    await sendAll(member, options, count);
    const seconds = (monotonicMs() - begin) / 1000;
    return {
      ...member.delivered,
      seconds,
      messagesPerSecond: count / seconds,
      megabytesPerSecond: (count * size) / seconds / 1e6,
      cpuMicrosPerMessage: cpuMicros(cpu) / count,
    };
  });
}

async function sendAll(member: BenchMember, options: FloodOptions, count: number): Promise<void> {
  const delivered = member.untilDelivered(count);
  // This rejects at the end of the connection, while the senders may wait for a 'drain' that never comes.
  await Promise.all([SENDERS[options.sending](member.client, options.size, count), delivered]);
}

const SENDERS: Record<Sending, (client: CpgClient, size: number, count: number) => Promise<void>> = {
  tryMcast: async (client, size, count) => {
    const message = Buffer.alloc(size);
    for (let number = 0; number < count; number++) {
      putNumber(message, number);
      while (!client.tryMcast(message)) await once(client, 'drain');
    }
  },
  mcast: (client, size, count) => inWindows(client, size, count, () => Buffer.alloc(size)),
  alloc: (client, size, count) => inWindows(client, size, count, () => client.alloc(size)),
};

/** Keeps many messages in flight: awaiting each one would wait for the daemon every time. */
async function inWindows(
  client: CpgClient,
  size: number,
  count: number,
  make: () => Uint8Array,
): Promise<void> {
  const length = Math.min(count, WINDOW, Math.max(2, Math.floor(WINDOW_BYTES / size)));
  const messages = Array.from({ length }, make);
  for (let number = 0; number < count;) {
    const sent: Promise<void>[] = [];
    for (const message of messages.slice(0, count - number)) {
      putNumber(message, number++);
      sent.push(client.mcast(message));
    }
    await Promise.all(sent);
  }
}
