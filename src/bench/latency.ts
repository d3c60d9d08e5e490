/** One message at a time: how long from the call to its delivery. */
import { BenchMember, cpuMicros, putNumber, type Delivered, type WorkloadOptions } from './member';

export interface LatencyOptions extends WorkloadOptions {
  readonly size: number;
  readonly count: number;
  /** Messages before the measurement begins. */
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

async function roundTrips(member: BenchMember, size: number, micros: Float64Array): Promise<void> {
  const message = Buffer.alloc(size);
  for (let number = 0; number < micros.length; number++) {
    const sent = performance.now();
    putNumber(message, number);
    const delivered = member.untilDelivered(number + 1);
    await member.client.mcast(message);
    await delivered;
    micros[number] = (performance.now() - sent) * 1000;
  }
}
