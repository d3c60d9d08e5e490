/** A timeline as one self-contained SVG file, which follows the reader's light or dark mode. */
import { counted, timeLabel } from '../decode/text';
import { check } from '../../arguments';
import { runsOf, TIMELINE, unseenText, type Step, type Timeline } from './model';

const TIME_WIDTH = 130;
const LANE_WIDTH = 190;
const HEAD_HEIGHT = 70;
const STEP_HEIGHT = 30;
const MARGIN = 20;
const LABEL_INDENT = 8;
/** Width of a wide letter: sizes calculated with it fit any font. */
const LETTER_WIDTH = 8.5;

const STYLE = `
  svg { font: 13px system-ui, sans-serif; background: #fff; color: #1c2733; }
  text { fill: currentColor; } .time { fill: #6b7a89; font: 11px ui-monospace, monospace; }
  .title { font-size: 17px; font-weight: 600; } .lane { stroke: #c5ced8; } .head { font-weight: 600; }
  .wire { stroke: #2470b3; stroke-width: 1.5; } .dot { fill: #2470b3; } .folded .wire { stroke-dasharray: 4 3; }
  .note rect { fill: #eef3f8; stroke: #c5ced8; } .grave rect { fill: #fdeceb; stroke: #e3a8a3; }
  @media (prefers-color-scheme: dark) {
    svg { background: #14191f; color: #dde5ed; } .lane { stroke: #3b4652; } .wire { stroke: #6db3f2; }
    .dot { fill: #6db3f2; } .note rect { fill: #212a33; stroke: #3b4652; } .grave rect { fill: #3a2220; stroke: #7a423d; }
  }`;

/** The text of an SVG file. Throws CS_ERR_INVALID_PARAM. */
export function svg(timeline: Timeline): string {
  const { title, lanes, steps, omitted, unseen = [] } = check('svg', 'timeline', timeline, TIMELINE);
  const bottom = HEAD_HEIGHT + (steps.length + 1) * STEP_HEIGHT;
  const x = new Map(lanes.map((lane, index) => [lane, TIME_WIDTH + (index + 0.5) * LANE_WIDTH]));
  const width = Math.ceil(
    Math.max(
      TIME_WIDTH + Math.max(1, lanes.length) * LANE_WIDTH,
      ...steps.map((step) => endOf(step, x)),
      unseen.length === 0 ? 0 : TIME_WIDTH + unseenText(unseen).length * LETTER_WIDTH,
    ) + MARGIN,
  );
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${bottom + MARGIN + 2 * STEP_HEIGHT}" role="img">`,
    `<title>${escape(title)}</title><style>${STYLE}</style>`,
    `<text class="title" x="${MARGIN}" y="28">${escape(title)}</text>`,
    ...lanes.map((lane) => laneMark(lane, x.get(lane)!, bottom)),
    ...steps.map((step, index) => stepMark(step, HEAD_HEIGHT + (index + 0.5) * STEP_HEIGHT, x, width)),
  ];
  if (unseen.length > 0)
    parts.push(
      `<text x="${TIME_WIDTH}" y="${bottom + 2 * STEP_HEIGHT}">${escape(unseenText(unseen))}</text>`,
    );
  if (omitted > 0)
    parts.push(
      `<text x="${TIME_WIDTH}" y="${bottom + STEP_HEIGHT}">${counted(omitted, 'more step is', 'more steps are')} not drawn</text>`,
    );
  return `${[...parts, '</svg>'].join('\n')}\n`;
}

/** The right end of a step's text. */
function endOf(step: Step, lanes: ReadonlyMap<string, number>): number {
  const start = step.kind === 'note' ? noteBoxes(step, lanes, 0)[0]!.left : lanes.get(step.from)!;
  return start + 2 * LABEL_INDENT + labelOf(step).length * LETTER_WIDTH;
}

function labelOf(step: Step): string {
  if (step.kind === 'folded') return `${step.count} more`;
  return step.kind === 'note' ? step.text : step.label;
}

function laneMark(lane: string, x: number, bottom: number): string {
  return (
    `<text class="head" x="${x}" y="${HEAD_HEIGHT - 14}" text-anchor="middle">${escape(lane)}</text>` +
    `<line class="lane" x1="${x}" y1="${HEAD_HEIGHT - 6}" x2="${x}" y2="${bottom}"/>`
  );
}

function stepMark(step: Step, y: number, lanes: ReadonlyMap<string, number>, width: number): string {
  const time = `<text class="time" x="${MARGIN}" y="${y + 4}">${timeLabel(step.timeNs)}</text>`;
  if (step.kind === 'note') return time + note(step, lanes, y, width);
  const from = lanes.get(step.from)!;
  const targets = step.to.map((lane) => lanes.get(lane)!);
  // One line crosses all members: the message has the same place in the order of each.
  const left = Math.min(from, ...targets);
  const right = Math.max(from, ...targets);
  const wire =
    targets.length > 0 ? `<line class="wire" x1="${left}" y1="${y}" x2="${right}" y2="${y}"/>` : '';
  return (
    `<g class="${step.kind}">${time}${wire}<circle class="dot" cx="${from}" cy="${y}" r="4"/>` +
    targets.map((x) => arrow(from, x, y)).join('') +
    `<text x="${from + LABEL_INDENT}" y="${y - 5}">${escape(labelOf(step))}</text></g>`
  );
}

function arrow(from: number, x: number, y: number): string {
  const back = x > from ? -7 : 7;
  return `<path class="dot" d="M${x} ${y}l${back} -4v8z"/>`;
}

/** Extents of a note's boxes: the whole picture, or the lanes of a side. */
function noteBoxes(
  { over }: Step & { kind: 'note' },
  lanes: ReadonlyMap<string, number>,
  width: number,
): { left: number; right: number }[] {
  const runs = runsOf([...lanes.keys()], over);
  if (runs.length === 0 || runs[0]!.length === lanes.size)
    return [{ left: TIME_WIDTH, right: width - MARGIN }];
  return runs.map((run) => ({
    left: lanes.get(run[0]!)! - LANE_WIDTH / 2,
    right: lanes.get(run.at(-1)!)! + LANE_WIDTH / 2,
  }));
}

function note(
  step: Step & { kind: 'note' },
  lanes: ReadonlyMap<string, number>,
  y: number,
  width: number,
): string {
  const boxes = noteBoxes(step, lanes, width);
  const marks = boxes.map(
    ({ left, right }) => `<rect x="${left}" y="${y - 11}" width="${right - left}" height="22" rx="4"/>`,
  );
  const text = `<text x="${boxes[0]!.left + LABEL_INDENT}" y="${y + 4}">${escape(step.text)}</text>`;
  return `<g class="note${step.grave ? ' grave' : ''}">${marks.join('')}${text}</g>`;
}

function escape(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replace(/[&<>"]/g, (character) => entities[character]!);
}
