/** One message at a time: the time from the call to its delivery. */
import { monotonicMs } from '../clock';
import { BenchMember, cpuMicros, putNumber, type Delivered, type WorkloadOptions } from './member';

export interface LatencyOptions extends WorkloadOptions {
  readonly size: number;
  readonly count: number;
  /** Messages before the measurement. */
  readonly warmup: number;
}

/** Microseconds. */
export interface LatencyResult extends Delivered {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly cpuMicrosPerMessage: number;
}

export function latency(options: LatencyOptions): Promise<LatencyResult> {
  const { size, count, warmup } = options;
  return BenchMember.during(options, async (member) => {
    await roundTrips(member, size, new Float64Array(warmup));
    member.reset();
    const micros = new Float64Array(count);
    const cpu = process.cpuUsage();
    await roundTrips(member, size, micros);
    const cpuMicrosPerMessage = cpuMicros(cpu) / count;
    micros.sort();
    const percentile = (percent: number): number => micros[Math.floor((count * percent) / 100)] ?? NaN;
    return {
      ...member.delivered,
      p50: percentile(50),
      p90: percentile(90),
      p99: percentile(99),
      cpuMicrosPerMessage,
    };
  });
}

/** The listener of each message sends the next one, as a server would answer. */
async function roundTrips(member: BenchMember, size: number, micros: Float64Array): Promise<void> {
  if (micros.length === 0) return;
  const { client } = member;
  const message = Buffer.alloc(size);
  let number = 0;
  let sent = 0;
  const send = (): void => {
    putNumber(message, number);
    sent = monotonicMs();
    if (!client.tryMcast(message)) client.once('drain', send);
  };
  const onDeliver = (): void => {
    const trip = (monotonicMs() - sent) * 1000;
    const last = number++;
    if (number < micros.length) send();
    micros[last] = trip;
  };
  // Runs before the member's own listener, which records deliveries.
  client.prependListener('deliver', onDeliver);
  try {
    const delivered = member.untilDelivered(micros.length);
    send();
    await delivered;
  } finally {
    client.off('deliver', onDeliver);
  }
}
