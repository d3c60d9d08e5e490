/** Receives the messages of another sender, and measures the CPU time per message. */
import { monotonicMs } from '../clock';
import { BenchMember, cpuMicros, type Delivered, type WorkloadOptions } from './member';

export interface ReceiveOptions extends WorkloadOptions {
  readonly count: number;
  /** Messages before the measurement. */
  readonly warmup: number;
  /** Called after the join: the sender may begin. */
  readonly onReady: () => void;
}

export interface ReceiveResult extends Delivered {
  readonly seconds: number;
  readonly cpuMicrosPerMessage: number;
}

/** The sender numbers its messages from 0 on, including the warm-up. */
export function receive(options: ReceiveOptions): Promise<ReceiveResult> {
  const { count, warmup, onReady } = options;
  return BenchMember.during(options, async (member) => {
    const warm = member.untilDelivered(warmup);
    onReady();
    await warm;
    const begin = monotonicMs();
    const cpu = process.cpuUsage();
    const before = member.received;
    await member.untilDelivered(warmup + count);
    return {
      ...member.delivered,
      seconds: (monotonicMs() - begin) / 1000,
      cpuMicrosPerMessage: cpuMicros(cpu) / (member.received - before),
    };
  });
}
