/**
 * One order of what several members saw of a group.
 *
 * Between two configuration changes all members of a configuration get the same messages in the same order, and a member
 * belongs to one configuration at a time. So what members saw is cut into views, from one configuration change to the
 * next, and the views of one configuration are laid upon each other:
 *
 *     1:a   | {a b c} m1 m2 | {a b} m3 | {a b c} m6
 *     2:b   | {a b c} m1 m2 | {a b} m3 | {a b c} m6
 *     3:c   | {a b c} m1 m2 | {c} m4 m5 | {a b c} m6
 *
 * The result keeps the order of every member; what no member orders is ordered by time.
 */

/** Something that a member saw. */
export interface Observation<T> {
  readonly timeNs: bigint;
  /** Equal for all who saw the same, and, but for repetitions, for nothing else in the same view. */
  readonly key: string;
  /** Of a configuration change: who was in before, and is in after it. */
  readonly change?: { readonly before: readonly string[]; readonly after: readonly string[] };
  /** Its key is of this one happening in all views. */
  readonly unique?: boolean;
  /** It is this member's alone: something is missing here. */
  readonly gap?: boolean;
  readonly value: T;
}

/** What one member saw, in its order. */
export interface Witness<T> {
  /** By which name the others know it; undefined when nothing tells. */
  readonly lane: string | undefined;
  readonly observations: readonly Observation<T>[];
}

/** Something that happened, and who saw it. */
export interface Happening<T> {
  /** When the first of them saw it. */
  timeNs: bigint;
  readonly value: T;
  readonly seenBy: Set<Witness<T>>;
  /** The members at that time; undefined when nobody tells. */
  readonly members: readonly string[] | undefined;
}

interface View<T> {
  readonly members: readonly string[] | undefined;
  readonly startNs: bigint;
  readonly seenBy: Set<Witness<T>>;
  readonly byKey: Map<string, Happening<T>[]>;
}

/** Part of what a witness saw. */
interface Stretch<T> {
  readonly members: readonly string[] | undefined;
  readonly observations: Observation<T>[];
  /** It begins with the configuration change. */
  readonly whole: boolean;
}

/** What happened, in an order that is the order of each witness. The same for the same witnesses in the same order. */
export function merge<T>(witnesses: readonly Witness<T>[]): Happening<T>[] {
  const views = new Map<string, View<T>[]>();
  const unique = new Map<string, Happening<T>>();
  // Those who do not know their view come last: what they saw tells it.
  const cut = witnesses.map((witness) => stretchesOf(witness.observations));
  const known = (list: readonly Stretch<T>[]): boolean => list.every(({ members }) => members !== undefined);
  const lists = new Map<Witness<T>, Happening<T>[]>();
  for (const wanted of [true, false]) {
    for (const [index, witness] of witnesses.entries()) {
      if (known(cut[index]!) !== wanted) continue;
      const list = cut[index]!.flatMap((stretch) => {
        const view = viewOf(witness, stretch, views);
        view.seenBy.add(witness);
        return happeningsOf(witness, stretch, view, unique);
      });
      lists.set(witness, list);
    }
  }
  return inOneOrder(witnesses, lists);
}

function stretchesOf<T>(observations: readonly Observation<T>[]): Stretch<T>[] {
  const first = observations.find(({ change }) => change !== undefined)?.change;
  const stretches: Stretch<T>[] = [{ members: first?.before, observations: [], whole: false }];
  for (const observation of observations) {
    if (observation.change !== undefined)
      stretches.push({ members: observation.change.after, observations: [], whole: true });
    stretches.at(-1)!.observations.push(observation);
  }
  return stretches.filter((stretch) => stretch.observations.length > 0);
}

/** The view that others have of the same configuration, or a new one. A configuration may come more than once. */
function viewOf<T>(witness: Witness<T>, stretch: Stretch<T>, views: Map<string, View<T>[]>): View<T> {
  const { members, observations } = stretch;
  const startNs = observations[0]!.timeNs;
  const key = members === undefined ? undefined : [...members].sort().join();
  const all = key === undefined ? [...views.values()].flat() : (views.get(key) ?? []);
  const keys = new Set(observations.map((observation) => observation.key));
  const found = all
    .filter(({ seenBy, byKey }) => {
      if (seenBy.has(witness)) return false;
      return key !== undefined || [...keys].some((one) => byKey.has(one));
    })
    .sort((a, b) => compare(distance(a.startNs, startNs), distance(b.startNs, startNs)))[0];
  if (found !== undefined) return found;
  const view: View<T> = { members, startNs, seenBy: new Set(), byKey: new Map() };
  const list = views.get(key ?? '') ?? [];
  views.set(key ?? '', list);
  list.push(view);
  return view;
}

/** What happened in a view, as this witness saw it: what others saw as well, and what nobody saw yet. */
function happeningsOf<T>(
  witness: Witness<T>,
  { observations, whole }: Stretch<T>,
  { members, byKey }: View<T>,
  unique: Map<string, Happening<T>>,
): Happening<T>[] {
  const next = new Map<string, number>();
  let complete = whole;
  return observations.map((observation) => {
    const { key, timeNs, value } = observation;
    if (observation.gap === true) complete = false;
    const list = byKey.get(key) ?? [];
    byKey.set(key, list);
    let happening: Happening<T> | undefined;
    if (observation.unique === true) {
      happening = unique.get(key);
      if (happening?.seenBy.has(witness) === true) happening = undefined;
    } else if (observation.gap !== true) {
      // Equal messages of one sender follow each other. Only who saw all of them knows which is which.
      const from = next.get(key) ?? 0;
      let best = from;
      if (!complete) {
        for (let index = from + 1; index < list.length; index++)
          if (distance(list[index]!.timeNs, timeNs) < distance(list[best]!.timeNs, timeNs)) best = index;
      }
      happening = list[best];
      next.set(key, best + 1);
    }
    if (happening === undefined) {
      happening = { timeNs, value, seenBy: new Set(), members };
      if (observation.gap !== true) list.push(happening);
      if (observation.unique === true) unique.set(key, happening);
    }
    happening.seenBy.add(witness);
    if (timeNs < happening.timeNs) happening.timeNs = timeNs;
    return happening;
  });
}

function inOneOrder<T>(
  witnesses: readonly Witness<T>[],
  lists: ReadonlyMap<Witness<T>, readonly Happening<T>[]>,
): Happening<T>[] {
  const position = new Map(witnesses.map((witness) => [witness, 0]));
  const done = new Set<Happening<T>>();
  const result: Happening<T>[] = [];
  const head = (witness: Witness<T>): Happening<T> | undefined => {
    const list = lists.get(witness)!;
    let at = position.get(witness)!;
    while (at < list.length && done.has(list[at]!)) at++;
    position.set(witness, at);
    return list[at];
  };
  for (;;) {
    let earliest: Happening<T> | undefined;
    let ready: Happening<T> | undefined;
    for (const witness of witnesses) {
      const candidate = head(witness);
      if (candidate === undefined) continue;
      if (earliest === undefined || candidate.timeNs < earliest.timeNs) earliest = candidate;
      if (ready !== undefined && candidate.timeNs >= ready.timeNs) continue;
      if ([...candidate.seenBy].every((other) => head(other) === candidate)) ready = candidate;
    }
    // Where messages were missed, two witnesses may seem to differ about the order; no message is lost by that.
    const next = ready ?? earliest;
    if (next === undefined) return result;
    done.add(next);
    result.push(next);
  }
}

function distance(a: bigint, b: bigint): bigint {
  return a < b ? b - a : a - b;
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
