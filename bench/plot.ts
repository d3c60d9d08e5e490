/** The flood as a chart: messages per second by message size, both axes logarithmic. */
import { valueOf, type Results } from './report';

const WIDTH = 800;
const HEIGHT = 420;
const LEFT = 80;
const TOP = 40;
const PLOT_WIDTH = 520;
const PLOT_HEIGHT = 320;
const CONTESTANTS = ['libcpg', 'corosync-cpg', 'mapped'];
const COLOURS = ['#8a8a8a', '#0b6bcb', '#c2541b'];
const DASHES = ['', '6 4'];

interface Line {
  readonly label: string;
  readonly colour: string;
  readonly dash: string;
  readonly points: readonly { x: number; y: number }[];
}

export function plotOf({ clusters, machine }: Results): string {
  const lines: Line[] = clusters.flatMap(({ nodes, disciplines }, cluster) =>
    CONTESTANTS.map((contestant, index) => ({
      label: `${contestant}, ${nodes === 1 ? '1 node' : `${nodes} nodes`}`,
      colour: COLOURS[index]!,
      dash: DASHES[cluster] ?? '2 3',
      points: disciplines
        .filter(({ workload }) => workload === 'flood')
        .map(({ size, entries }) => {
          const entry = entries.find((candidate) => candidate.contestant === contestant);
          return { x: size, y: valueOf(entry, 'messagesPerSecond') };
        }),
    })),
  );
  const all = lines.flatMap(({ points }) => points);
  if (all.length === 0) return '';
  const x = scale(
    all.map((point) => point.x),
    LEFT,
    LEFT + PLOT_WIDTH,
  );
  const y = scale(
    all.map((point) => point.y),
    TOP + PLOT_HEIGHT,
    TOP,
  );
  const sizes = [...new Set(all.map((point) => point.x))];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${LEFT}" y="22" font-size="14">Messages per second, sent and delivered back (${machine.processors} × ${escaped(machine.processor)})</text>`,
    ...decades(all.map((point) => point.y)).map(
      (value) =>
        `<line x1="${LEFT}" x2="${LEFT + PLOT_WIDTH}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/>` +
        `<text x="${LEFT - 8}" y="${y(value) + 4}" text-anchor="end">${value.toLocaleString('en-US')}</text>`,
    ),
    ...sizes.map(
      (size) =>
        `<text x="${x(size)}" y="${TOP + PLOT_HEIGHT + 20}" text-anchor="middle">${size.toLocaleString('en-US')}</text>`,
    ),
    `<text x="${LEFT + PLOT_WIDTH / 2}" y="${TOP + PLOT_HEIGHT + 42}" text-anchor="middle">bytes per message</text>`,
    ...lines.flatMap(({ label, colour, dash, points }, index) => {
      const at = TOP + 14 + index * 20;
      const style = `stroke="${colour}" stroke-width="2" stroke-dasharray="${dash}" fill="none"`;
      return [
        `<polyline points="${points.map((point) => `${x(point.x)},${y(point.y)}`).join(' ')}" ${style}/>`,
        `<line x1="${LEFT + PLOT_WIDTH + 10}" x2="${LEFT + PLOT_WIDTH + 36}" y1="${at - 4}" y2="${at - 4}" ${style}/>`,
        `<text x="${LEFT + PLOT_WIDTH + 42}" y="${at}">${label}</text>`,
      ];
    }),
    '</svg>',
    '',
  ].join('\n');
}

/** A logarithmic scale from the range of `values` to pixels. */
function scale(values: readonly number[], from: number, to: number): (value: number) => number {
  const low = Math.log(Math.min(...values));
  const high = Math.log(Math.max(...values));
  return (value) => Math.round(from + ((Math.log(value) - low) / (high - low || 1)) * (to - from));
}

function decades(values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const list = [];
  for (let value = 10 ** Math.ceil(Math.log10(low)); value <= high; value *= 10) list.push(value);
  return list;
}

function escaped(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;');
}
