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
    member.onDelivered = () => undefined;
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

/** The next message is sent by the listener of the one before, as a server would answer. */
function roundTrips(member: BenchMember, size: number, micros: Float64Array): Promise<void> {
  const message = Buffer.alloc(size);
  const count = micros.length;
  return new Promise((resolve, reject) => {
    let sent = 0;
    const send = (): void => {
      putNumber(message, member.received);
      sent = performance.now();
      // The ring is empty, so there is always room; larger messages go in fragments.
      if (size > member.client.maxAtomicMessageSize) member.client.mcast(message).catch(reject);
      else if (!member.client.tryMcast(message)) member.client.once('drain', send);
    };
    member.onDelivered = () => {
      micros[member.received - 1] = (performance.now() - sent) * 1000;
      if (member.received < count) send();
    };
    member.untilDelivered(count).then(resolve, reject);
    if (count > 0) send();
  });
}
