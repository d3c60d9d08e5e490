/**
 * The events of a group as steps of a sequence chart: messages with their senders, and notes about joins and leaves. It
 * combines all members in the capture (see merge.ts): after a partition each side has its own messages and order.
 */
import { createHash } from 'node:crypto';
import { check, kind, listOf, string } from '../../arguments';
import { FragmentType } from '../../codec/requests';
import { Reason, type CpgAddress } from '../../codec/addresses';
import type { TapConnection } from '../connections';
import { MESSAGE, type TapMessage } from '../decode/messages';
import { counted, cut, groupLabel, messageLabel, reasonLabel, visible } from '../decode/text';
import { merge, type Observation, type Witness } from './merge';

/** Of a run of messages from one sender this many are drawn; the rest is one step. */
const MAX_ROW = 3;
/** A longer chart is useless. */
export const MAX_STEPS = 2000;
const MAX_LABEL = 40;

/**
 * One row of a chart: a message, a run of messages from one sender, or a note about the membership. `timeNs` counts from
 * 1970; `from`, `to` and `over` are lanes: the sender, the receivers, and the lanes of a note (all if left out).
 */
export type Step =
  | { kind: 'message'; timeNs: bigint; from: string; to: string[]; label: string }
  | { kind: 'folded'; timeNs: bigint; from: string; to: string[]; count: number }
  | { kind: 'note'; timeNs: bigint; text: string; grave: boolean; over?: string[] | undefined };

/** A sequence chart of one group. */
export interface Timeline {
  /** The group. */
  title: string;
  /** 'nodeid:pid', in order of appearance, grouped by sides of a partition. */
  lanes: string[];
  /** In the order of the group, or of each side after a partition; at most 2,000. */
  steps: Step[];
  /** Number of steps left out at the end. */
  omitted: number;
  /** Lanes without events of their own in the capture: events that only they saw are unknown. */
  unseen?: string[] | undefined;
}

const LANES = listOf('names', string);
const STEPS = kind('', (value) => Array.isArray(value) && value.every(isStep));
const GROUP = kind<string | undefined>(
  'the name of a group as `groups` has it, or undefined',
  (value) => value === undefined || typeof value === 'string',
);

export const TIMELINE = kind<Timeline>('a Timeline, as TimelineBuilder makes them', (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { title, lanes, steps, omitted, unseen = [] } = value as Record<string, unknown>;
  const told = typeof title === 'string' && typeof omitted === 'number';
  return told && LANES.accepts(lanes) && STEPS.accepts(steps) && LANES.accepts(unseen);
});

function isStep(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { kind: what, timeNs, from, to, label, count, text, over = [] } = value as Record<string, unknown>;
  if (typeof timeNs !== 'bigint') return false;
  if (what === 'note') return typeof text === 'string' && LANES.accepts(over);
  const told =
    what === 'message' ? typeof label === 'string' : what === 'folded' && typeof count === 'number';
  return told && typeof from === 'string' && LANES.accepts(to);
}

/** Runs of adjacent lanes among the given ones; empty for all lanes. */
export function runsOf(lanes: readonly string[], given: readonly string[] | undefined): string[][] {
  const runs: string[][] = [];
  let last = -1;
  for (const [index, lane] of lanes.entries()) {
    if (given?.includes(lane) !== true) continue;
    if (runs.length > 0 && index === last + 1) runs.at(-1)!.push(lane);
    else runs.push([lane]);
    last = index;
  }
  return runs;
}

/** The remark about members without events in the capture. */
export function unseenText(unseen: readonly string[]): string {
  return `The capture has no events of ${unseen.join(', ')}: what only they saw is not here.`;
}

/** Collects messages, and makes the chart of one group. */
export class TimelineBuilder {
  readonly #byConnection = new Map<TapConnection, Seen>();

  /** Adds a message; only events are drawn. Throws CS_ERR_INVALID_PARAM. */
  add(message: TapMessage): void {
    check('TimelineBuilder.add', 'message', message, MESSAGE);
    const { frame, content, problem, announcedPid } = message;
    if (frame.connection.service !== 'cpg') return;
    const seen = this.#byConnection.get(frame.connection) ?? {
      events: [],
      nodeId: undefined,
      pid: undefined,
    };
    this.#byConnection.set(frame.connection, seen);
    seen.pid = announcedPid ?? seen.pid;
    if (content?.type === 'localGet' && 'nodeId' in content) seen.nodeId = content.nodeId;
    if (frame.ring === 'event' && (content ?? problem) !== undefined) seen.events.push(message);
  }

  /** The groups in the capture, those with most events first. */
  get groups(): string[] {
    const counts = new Map<string, number>();
    for (const { events } of this.#byConnection.values()) {
      for (const { group } of events) {
        if (group === undefined) continue;
        const label = groupLabel(group);
        counts.set(label, (counts.get(label) ?? 0) + 1);
      }
    }
    return [...counts].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).map(([label]) => label);
  }

  /** Undefined if there are no events of that group, or of any. */
  build(group?: string): Timeline | undefined {
    check('TimelineBuilder.build', 'group', group, GROUP);
    const { groups } = this;
    const chosen = group ?? groups[0];
    if (chosen === undefined || !groups.includes(chosen)) return undefined;
    const observers = [...this.#byConnection]
      .flatMap(([connection, seen]) => {
        const observer = observe(connection, seen, chosen);
        return observer === undefined ? [] : [observer];
      })
      // Independent of the order in which captures were merged.
      .sort((a, b) => (a.lane === b.lane ? 0 : (a.lane ?? '') < (b.lane ?? '') ? -1 : 1));
    return chart(chosen, observers);
  }
}

/** Events of a connection, and the known facts about its client. */
interface Seen {
  events: TapMessage[];
  nodeId: number | undefined;
  pid: number | undefined;
}

/** A member by its connection. */
type Observer = Witness<TapMessage | Gap>;

/** Events that are missing from a member's connection. */
interface Gap {
  readonly gap: string;
}

/** The observations of a group on one connection; undefined if there are none. */
function observe(connection: TapConnection, seen: Seen, group: string): Observer | undefined {
  const observations: Observation<TapMessage | Gap>[] = [];
  const unfinished = new Set<string>();
  let any = false;
  for (const message of seen.events) {
    const { frame, content, problem } = message;
    const { timeNs } = frame;
    const about = message.group === undefined ? undefined : groupLabel(message.group);
    if (about !== undefined && about !== group) continue;
    any ||= about !== undefined;
    const gap = (text: string): number =>
      observations.push({ timeNs, key: '', gap: true, value: { gap: text } });
    if (frame.missed > 0) gap(`about ${counted(frame.missed, 'event was', 'events were')} missed`);
    if (content === undefined) gap(`an event that cannot be decoded: ${visible(problem ?? '')}`);
    else if (content.type === 'confchg') observations.push({ timeNs, value: message, ...changeOf(content) });
    else if (content.type === 'totemConfchg') {
      const { nodeId, seq } = content.ringId;
      const key = `ring ${nodeId}.${seq.toString()} ${content.members.join()}`;
      observations.push({ timeNs, key, unique: true, value: message });
    } else if (content.type === 'deliver') {
      observations.push({ timeNs, key: `${laneOf(content)} ${digest(content.message)}`, value: message });
    } else if (content.type === 'partialDeliver') {
      const from = laneOf(content);
      const { fragmentType, fragment, messageLength } = content;
      // A message is drawn once, at its first visible fragment.
      if (fragmentType === FragmentType.FIRST || !unfinished.has(from))
        observations.push({ timeNs, key: `${from} ${messageLength} ${digest(fragment)}`, value: message });
      if (fragmentType === FragmentType.LAST) unfinished.delete(from);
      else unfinished.add(from);
    }
  }
  return any ? { lane: laneOfClient(connection, seen, group), observations } : undefined;
}

type Confchg = Extract<TapMessage['content'], { type: 'confchg' }>;

function changeOf({ members, joined, left }: Confchg): Pick<Observation<unknown>, 'key' | 'change'> {
  const after = members.map(laneOf);
  const before = [...after.filter((lane) => !joined.map(laneOf).includes(lane)), ...left.map(laneOf)];
  const told = (list: readonly CpgAddress[]): string =>
    list
      .map((member) => `${laneOf(member)}(${member.reason})`)
      .sort()
      .join();
  return { key: `joined ${told(joined)} left ${told(left)}`, change: { before, after } };
}

/** The lane of a connection's client; undefined if the capture does not show it. */
function laneOfClient(connection: TapConnection, seen: Seen, group: string): string | undefined {
  const pid = seen.pid ?? connection.clientPid;
  if (pid === 0) return undefined;
  if (seen.nodeId !== undefined) return laneOf({ nodeId: seen.nodeId, pid });
  const candidates = new Set<string>();
  for (const { content, group: about } of seen.events) {
    if (content?.type !== 'confchg' || about === undefined || groupLabel(about) !== group) continue;
    for (const member of content.members) if (member.pid === pid) candidates.add(laneOf(member));
    // A client's first event is its own join, alone.
    const [first, ...others] = content.joined;
    if (first?.reason === Reason.JOIN && first.pid === pid && others.length === 0 && seen.pid !== undefined)
      return laneOf(first);
  }
  const [only, ...others] = candidates;
  return others.length === 0 ? only : undefined;
}

function laneOf({ nodeId, pid }: Pick<CpgAddress, 'nodeId' | 'pid'>): string {
  return `${nodeId}:${pid}`;
}

function digest(bytes: Uint8Array): string {
  if (bytes.length <= MAX_LABEL) return Buffer.from(bytes).toString('latin1');
  return createHash('sha1').update(bytes).digest('base64');
}

function chart(group: string, observers: readonly Observer[]): Timeline {
  const lanes = new Set<string>();
  const steps: Step[] = [];
  const sides: string[][] = [];
  const seers = new Map(
    observers.flatMap(({ lane, observations }) => (lane === undefined ? [] : [[lane, observations]])),
  );
  /** Whether the capture has this member's events of that time. */
  const tells = (lane: string, timeNs: bigint): boolean => {
    const observations = seers.get(lane);
    return (
      observations !== undefined && observations[0]!.timeNs <= timeNs && timeNs <= observations.at(-1)!.timeNs
    );
  };
  const use = (names: readonly string[]): string[] => {
    for (const name of names) lanes.add(name);
    return [...names];
  };
  for (const { timeNs, value, seenBy, members = [] } of merge(observers)) {
    const seen = [...seenBy].flatMap(({ lane }) => lane ?? []);
    // Members without events in the capture saw the same as the others of their side.
    const side = [...new Set([...seen, ...members.filter((lane) => !tells(lane, timeNs))])];
    if ('gap' in value) {
      steps.push({ kind: 'note', timeNs, text: value.gap, grave: true, over: use(seen) });
      continue;
    }
    const { content } = value;
    if (content?.type === 'confchg') {
      use(members);
      use(side);
      const { joined, left } = content;
      steps.push(
        ...changes('joined', joined, timeNs, use, side),
        ...changes('left', left, timeNs, use, side),
      );
      if (left.some(({ reason }) => reason === Reason.NODEDOWN)) sides.push(side);
    } else if (content?.type === 'totemConfchg') {
      const text = `ring ${content.ringId.nodeId}.${content.ringId.seq.toString()}: nodes ${content.members.join(', ')}`;
      steps.push({ kind: 'note', timeNs, text, grave: false, over: use(side) });
    } else if (content?.type === 'deliver' || content?.type === 'partialDeliver') {
      const [from] = use([laneOf(content)]) as [string];
      const to = use(side.filter((name) => name !== from));
      steps.push({ kind: 'message', timeNs, from, to, label: labelOf(content) });
    }
  }
  const folded = fold(steps);
  return {
    title: group,
    lanes: sideBySide([...lanes], sides),
    steps: folded.slice(0, MAX_STEPS),
    omitted: Math.max(0, folded.length - MAX_STEPS),
    unseen: [...lanes].filter((lane) => !seers.has(lane)),
  };
}

/** Sorts the lanes so that the members of one side are adjacent. */
function sideBySide(lanes: readonly string[], sides: readonly (readonly string[])[]): string[] {
  const place = (lane: string): string => sides.map((side) => (side.includes(lane) ? '0' : '1')).join('');
  const places = new Map(lanes.map((lane) => [lane, place(lane)]));
  return [...lanes].sort((a, b) => {
    const [x, y] = [places.get(a)!, places.get(b)!];
    return x === y ? 0 : x < y ? -1 : 1;
  });
}

/** One note for all joins or leaves with the same reason. */
function changes(
  word: string,
  list: readonly CpgAddress[],
  timeNs: bigint,
  use: (names: readonly string[]) => string[],
  over: string[],
): Step[] {
  const byReason = new Map<number, string[]>();
  for (const member of list)
    byReason.set(member.reason, [...(byReason.get(member.reason) ?? []), ...use([laneOf(member)])]);
  return [...byReason].map(([reason, names]) => {
    const partition =
      reason === Reason.NODEDOWN ? 'partition or crash: ' : reason === Reason.NODEUP ? 'merge: ' : '';
    const grave = reason === Reason.NODEDOWN || reason === Reason.PROCDOWN;
    return {
      kind: 'note',
      timeNs,
      text: `${partition}${names.join(', ')} ${word} (${reasonLabel(reason)})`,
      grave,
      over,
    };
  });
}

/** Folds a long run of messages from one sender to the same members into its beginning and a count. */
function fold(steps: readonly Step[]): Step[] {
  const result: Step[] = [];
  let row = 0;
  for (const step of steps) {
    const last = result.at(-1);
    const continues =
      step.kind === 'message' &&
      last !== undefined &&
      last.kind !== 'note' &&
      last.from === step.from &&
      last.to.join() === step.to.join();
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

function labelOf(content: Extract<TapMessage['content'], { type: 'deliver' | 'partialDeliver' }>): string {
  if (content.type === 'deliver') return label(content.message);
  const { fragmentType, messageLength } = content;
  const first = fragmentType === FragmentType.FIRST;
  return `${counted(messageLength, 'byte')} in fragments${first ? '' : ', the first of them not seen'}`;
}

function label(message: Uint8Array): string {
  if (message.length === 0) return '(empty)';
  const text = messageLabel(cut(message, MAX_LABEL), MAX_LABEL / 4);
  return message.length > MAX_LABEL ? `${text}... (${counted(message.length, 'byte')})` : text;
}
