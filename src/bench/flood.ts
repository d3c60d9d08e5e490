/** As many messages as the daemon takes, and all of them back. */
import { once } from 'node:events';
import type { CpgClient } from '../client';
import { monotonicMs } from '../clock';
import { BenchMember, cpuMicros, putNumber, type Delivered, type WorkloadOptions } from './member';

export const FLOOD_SIZES = [64, 320, 1600, 8000, 40_000, 200_000, 1_000_000] as const;

/** Messages that are awaited together. */
const WINDOW = 256;
/** Of large messages fewer, so that they do not take too much memory. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** How messages are handed to the client. */
export type Sending = 'tryMcast' | 'mcast' | 'alloc';

export interface FloodOptions extends WorkloadOptions {
  /** Bytes of a message, at least 4. */
  readonly size: number;
  readonly count: number;
  /** Messages before the measurement begins. */
  readonly warmup: number;
  readonly sending: Sending;
}

export interface FloodResult extends Delivered {
  readonly seconds: number;
  readonly messagesPerSecond: number;
  /** Millions of bytes of message, headers not counted. */
  readonly megabytesPerSecond: number;
  readonly cpuMicrosPerMessage: number;
}

/** Messages that come to about `bytes`; the default is about a second of it on an ordinary machine. */
export function floodCount(size: number, bytes = 300_000_000): number {
  return Math.min(400_000, Math.max(300, Math.floor(bytes / size)));
}

/** Node compiles what is hot only after some ten thousand messages; a service that runs for long is past that. */
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
  // It rejects when the connection ends, while the senders may wait for a 'drain' that does not come any more.
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

/** Awaits many at once: who awaits each message alone waits for the daemon each time. */
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
