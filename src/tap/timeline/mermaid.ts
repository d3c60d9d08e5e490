/** A timeline as the text of a Mermaid sequence diagram. */
import { check } from '../../arguments';
import { counted } from '../../text';
import { runsOf, TIMELINE, unseenText, type Step, type Timeline } from './model';

/** The text of a Mermaid sequence diagram. Throws CS_ERR_INVALID_PARAM. */
export function mermaid(timeline: Timeline): string {
  const { title, lanes, steps, omitted, unseen = [] } = check('mermaid', 'timeline', timeline, TIMELINE);
  const ids = new Map(lanes.map((lane, index) => [lane, `m${index + 1}`]));
  const over = lanes.length > 1 ? `m1,m${lanes.length}` : 'm1';
  const lines = [
    'sequenceDiagram',
    `  title ${plain(title)}`,
    ...lanes.map((lane) => `  participant ${ids.get(lane)!} as ${lane}`),
    ...(lanes.length === 0 ? ['  participant m1 as nobody'] : []),
    ...steps.flatMap((step) => stepLines(step, lanes, ids, over)),
  ];
  if (unseen.length > 0) lines.push(`  Note over ${over}: ${unseenText(unseen)}`);
  if (omitted > 0) lines.push(`  Note over ${over}: ${counted(omitted, 'more step')}`);
  return `${lines.join('\n')}\n`;
}

function stepLines(
  step: Step,
  lanes: readonly string[],
  ids: ReadonlyMap<string, string>,
  all: string,
): string[] {
  if (step.kind === 'note') {
    const runs = runsOf(lanes, step.over).map((run) => run.map((lane) => ids.get(lane)!));
    const places = runs.map((run) => (run.length > 1 ? `${run[0]!},${run.at(-1)!}` : run[0]!));
    return (places.length === 0 ? [all] : places).map((place) => `  Note over ${place}: ${plain(step.text)}`);
  }
  const from = ids.get(step.from)!;
  const label = step.kind === 'folded' ? `${step.count} more` : plain(step.label);
  // Mermaid arrows have one target: draw the first with the text and the others without.
  const [first = step.from, ...others] = step.to;
  return [
    `  ${from}->>${ids.get(first) ?? from}: ${label}`,
    ...others.map((lane) => `  ${from}->>${ids.get(lane)!}: #8203;`),
  ];
}

/** Mermaid interprets ; and #, and < as HTML. */
function plain(text: string): string {
  return text.replace(/[#;<>]/g, (character) => `#${character.charCodeAt(0)};`);
}
