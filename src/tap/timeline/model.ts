/**
 * What happened in a group as steps of a sequence chart: messages with their senders, and notes about who
 * joined and left. It is told by one member, because what a member sees is in the group's own order.
 */
import { check, kind, listOf, string } from '../../arguments';
import { groupText } from '../../codec/groups';
import { Reason, type CpgAddress } from '../../codec/addresses';
import type { TapConnection } from '../connections';
import { MESSAGE, type TapMessage } from '../decode/messages';
import { counted, cut, groupLabel, messageLabel, reasonLabel } from '../decode/text';

/** So many messages of one sender in a row are drawn; the rest of the row is one step. */
const MAX_ROW = 3;
/** A chart with more steps than this is of no use to anybody. */
export const MAX_STEPS = 2000;
const MAX_LABEL = 40;

/**
 * One row of a chart: a message, several of one sender in a row, or a note about the membership. `timeNs` counts from
 * 1970; `from` and `to` are lanes.
 */
export type Step =
  | { kind: 'message'; timeNs: bigint; from: string; to: string[]; label: string }
  | { kind: 'folded'; timeNs: bigint; from: string; to: string[]; count: number }
  | { kind: 'note'; timeNs: bigint; text: string; grave: boolean };

/** A sequence chart of one group. */
export interface Timeline {
  /** The group. */
  title: string;
  /** 'nodeid:pid', in the order in which they appeared. */
  lanes: string[];
  /** In the order of the group, at most 2,000. */
  steps: Step[];
  /** Steps that were left out at the end. */
  omitted: number;
}

const LANES = listOf('names', string);
const STEPS = kind('', (value) => Array.isArray(value) && value.every(isStep));
const GROUP = kind<string | undefined>(
  'the name of a group as `groups` has it, or undefined',
  (value) => value === undefined || typeof value === 'string',
);

export const TIMELINE = kind<Timeline>('a Timeline, as TimelineBuilder makes them', (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { title, lanes, steps, omitted } = value as Record<string, unknown>;
  return (
    typeof title === 'string' && typeof omitted === 'number' && LANES.accepts(lanes) && STEPS.accepts(steps)
  );
});

function isStep(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { kind: what, timeNs, from, to, label, count, text } = value as Record<string, unknown>;
  if (typeof timeNs !== 'bigint') return false;
  if (what === 'note') return typeof text === 'string';
  const told =
    what === 'message' ? typeof label === 'string' : what === 'folded' && typeof count === 'number';
  return told && typeof from === 'string' && LANES.accepts(to);
}

/** Collects messages, and makes the chart of one group. */
export class TimelineBuilder {
  readonly #byWitness = new Map<TapConnection, TapMessage[]>();

  /** Takes a message in; only events count. Throws CS_ERR_INVALID_PARAM. */
  add(message: TapMessage): void {
    check('TimelineBuilder.add', 'message', message, MESSAGE);
    if (message.frame.ring !== 'event' || message.content === undefined) return;
    const { connection } = message.frame;
    const list = this.#byWitness.get(connection) ?? [];
    this.#byWitness.set(connection, list);
    list.push(message);
  }

  /** The groups that were seen, those with most events first. */
  get groups(): string[] {
    return [...new Set(this.#witnesses().map(({ group }) => group))];
  }

  /** Undefined when nothing of that group, or of any, was seen. */
  build(group?: string): Timeline | undefined {
    check('TimelineBuilder.build', 'group', group, GROUP);
    const witness = this.#witnesses().find((candidate) => group === undefined || candidate.group === group);
    return witness === undefined ? undefined : chart(witness.group, witness.messages);
  }

  #witnesses(): { group: string; messages: TapMessage[] }[] {
    return [...this.#byWitness.values()]
      .flatMap((messages) => {
        const named = messages.find(({ group }) => group !== undefined)?.group;
        return named === undefined ? [] : [{ group: groupLabel(named), messages }];
      })
      .sort((a, b) => b.messages.length - a.messages.length);
  }
}

function chart(group: string, messages: readonly TapMessage[]): Timeline {
  const lanes: string[] = [];
  const steps: Step[] = [];
  let present: string[] = [];
  const lane = (nodeId: number, pid: number): string => {
    const name = `${nodeId}:${pid}`;
    if (!lanes.includes(name)) lanes.push(name);
    return name;
  };
  const laneOf = ({ nodeId, pid }: CpgAddress): string => lane(nodeId, pid);
  for (const { frame, content } of messages) {
    const { timeNs } = frame;
    if (frame.missed > 0)
      steps.push({
        kind: 'note',
        timeNs,
        text: `about ${counted(frame.missed, 'event was', 'events were')} missed`,
        grave: true,
      });
    if (content?.type === 'confchg') {
      if (groupLabel(groupText(content.group)) !== group) continue;
      present = content.members.map(laneOf);
      steps.push(
        ...changes('joined', content.joined, timeNs, laneOf),
        ...changes('left', content.left, timeNs, laneOf),
      );
    } else if (content?.type === 'totemConfchg') {
      const text = `ring ${content.ringId.nodeId}.${content.ringId.seq.toString()}: nodes ${content.members.join(', ')}`;
      steps.push({ kind: 'note', timeNs, text, grave: false });
    } else if (content?.type === 'deliver') {
      const from = lane(content.nodeId, content.pid);
      const to = present.filter((name) => name !== from);
      steps.push({ kind: 'message', timeNs, from, to, label: label(content.message) });
    } else if (content?.type === 'partialDeliver' && content.fragmentType === 1) {
      const from = lane(content.nodeId, content.pid);
      const to = present.filter((name) => name !== from);
      steps.push({
        kind: 'message',
        timeNs,
        from,
        to,
        label: `${counted(content.messageLength, 'byte')} in fragments`,
      });
    }
  }
  const folded = fold(steps);
  return {
    title: group,
    lanes,
    steps: folded.slice(0, MAX_STEPS),
    omitted: Math.max(0, folded.length - MAX_STEPS),
  };
}

/** One note for all who came or went for the same reason. */
function changes(
  word: string,
  list: readonly CpgAddress[],
  timeNs: bigint,
  laneOf: (member: CpgAddress) => string,
): Step[] {
  const byReason = new Map<number, string[]>();
  for (const member of list)
    byReason.set(member.reason, [...(byReason.get(member.reason) ?? []), laneOf(member)]);
  return [...byReason].map(([reason, names]) => {
    const partition =
      reason === Reason.NODEDOWN ? 'partition or crash: ' : reason === Reason.NODEUP ? 'merge: ' : '';
    const grave = reason === Reason.NODEDOWN || reason === Reason.PROCDOWN;
    return {
      kind: 'note',
      timeNs,
      text: `${partition}${names.join(', ')} ${word} (${reasonLabel(reason)})`,
      grave,
    };
  });
}

/** Long rows of messages of one sender, the same members listening, become their beginning and a count. */
function fold(steps: readonly Step[]): Step[] {
  const result: Step[] = [];
  let row = 0;
  for (const step of steps) {
    const last = result.at(-1);
    const continues =
      step.kind === 'message' && last !== undefined && last.kind !== 'note' && last.from === step.from;
    row = continues ? row + 1 : 1;
    if (step.kind !== 'message' || row <= MAX_ROW) {
      result.push(step);
    } else if (last?.kind === 'folded') {
      last.count++;
    } else {
      const { timeNs, from, to } = step;
      result.push({ kind: 'folded', timeNs, from, to, count: 1 });
    }
  }
  return result;
}

function label(message: Uint8Array): string {
  if (message.length === 0) return '(empty)';
  const text = messageLabel(cut(message, MAX_LABEL), MAX_LABEL / 4);
  return message.length > MAX_LABEL ? `${text}... (${counted(message.length, 'byte')})` : text;
}
