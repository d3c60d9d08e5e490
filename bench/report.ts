/** The results as tables in Markdown, which are readable as plain text too. */
import type { Discipline, Entry } from './measure';
import type { Machine } from './machine';
import type { TapEntry } from './tap';

export interface Results {
  readonly date: string;
  readonly rounds: number;
  readonly machine: Machine;
  readonly clusters: readonly {
    nodes: number;
    disciplines: readonly Discipline[];
    taps: readonly TapEntry[];
  }[];
}

/** The compared numbers, and whether more or less is better. */
const COMPARED = {
  flood: [['messagesPerSecond', 'messages/s', 'more']],
  latency: [
    ['p50', 'µs, p50', 'less'],
    ['p90', 'µs, p90', 'less'],
    ['p99', 'µs, p99', 'less'],
  ],
  receive: [['cpuMicrosPerMessage', 'µs of CPU time per message', 'less']],
  catchup: [['microsPerMessage', 'µs per waiting message', 'less']],
  idle: [
    ['systemCalls', 'system calls in 5 s', 'less'],
    ['bytesPerConnection', 'bytes of memory per connection', 'less'],
  ],
} as const;

export function reportOf({ date, rounds, machine, clusters }: Results): string {
  const { processor, processors, memoryGiB, kernel, node, corosync } = machine;
  const lines = [
    `Measured on ${date}: ${processors} × ${processor}, ${memoryGiB} GiB, Linux ${kernel}, Node ${node}, corosync ${corosync}; medians over ${rounds} rounds in turn.`,
  ];
  for (const { nodes, disciplines, taps } of clusters) {
    lines.push('', `### ${nodes === 1 ? 'One node' : `${nodes} nodes`}`, '');
    if (disciplines.length > 0)
      lines.push('| | bytes | libcpg | corosync-cpg | ratio | better |', '|---|--:|--:|--:|--:|---|');
    for (const discipline of disciplines) {
      const { workload } = discipline;
      if (workload !== 'margin' && workload !== 'paced') lines.push(...rowsOf(discipline, workload));
    }
    lines.push(...marginOf(disciplines.filter(({ workload }) => workload === 'margin')));
    lines.push(...tapOf(taps));
  }
  return `${lines.join('\n')}\n`;
}

/** A flood by a bare loop, and by libcpg whose receiver has more work. */
function marginOf(disciplines: readonly Discipline[]): string[] {
  const [first] = disciplines;
  if (first === undefined) return [];
  const rates = (entries: readonly Entry[]) => entries.map((entry) => valueOf(entry, 'messagesPerSecond'));
  return [
    '',
    'A flood by a bare loop in Node, and by libcpg whose receiver works on each message for the given time. Ratios to libcpg without that work:',
    '',
    `| bytes | ${first.entries
      .slice(1)
      .map(({ contestant }) => contestant)
      .join(' | ')} |`,
    `|--:|${'--:|'.repeat(first.entries.length - 1)}`,
    ...disciplines.map(({ size, entries }) => {
      const [alone = NaN, ...others] = rates(entries);
      return `| ${shown(size)} | ${others.map((rate) => (rate / alone).toFixed(2)).join(' | ')} |`;
    }),
  ];
}

/** The cost of `cpg tap` for a flood by libcpg, and what the tap misses of 20,000 messages per second. */
function tapOf(taps: readonly TapEntry[]): string[] {
  if (taps.length === 0) return [];
  return [
    '',
    'A libcpg flood of 400,000 messages of 64 bytes, with and without a tap in turn. Then 20,000 messages per second for 5 s:',
    '',
    '| tap | slower by | standard error | CPU in the flood | CPU at 20,000/s | runs with nothing missed |',
    '|---|--:|--:|--:|--:|--:|',
    ...taps.map(
      ({ tap, effect, effectError, floodCpu, pacedCpu, pacedRuns, pacedRunsComplete }) =>
        `| ${tap} | ${effect.toFixed(1)} % | ${effectError.toFixed(1)} % | ${floodCpu.toFixed(2)} | ${pacedCpu.toFixed(2)} | ${pacedRunsComplete} of ${pacedRuns} |`,
    ),
  ];
}

function rowsOf({ size, count, entries }: Discipline, workload: keyof typeof COMPARED): string[] {
  const [libcpg, ...others] = entries;
  return others.flatMap((entry) =>
    COMPARED[workload].map(([field, unit, better]) => {
      const [theirs, our] = [valueOf(libcpg, field), valueOf(entry, field)];
      const variant = entry.contestant === 'corosync-cpg' ? '' : `, ${entry.contestant}`;
      const what = workload === 'idle' ? `idle, ${count} connections` : workload;
      const ratio = theirs > 0 ? (our / theirs).toFixed(2) : '-';
      return `| ${what}${variant}: ${unit} | ${size > 0 ? shown(size) : ''} | ${shown(theirs)} | ${shown(our)} | ${ratio} | ${better} |`;
    }),
  );
}

export function valueOf(entry: Entry | undefined, field: string): number {
  return entry?.numbers[field] ?? NaN;
}

function shown(value: number): string {
  if (Number.isNaN(value)) return '-';
  return value.toLocaleString('en-US', { maximumFractionDigits: value < 100 ? 1 : 0 });
}
