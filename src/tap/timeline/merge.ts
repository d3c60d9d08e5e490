/**
 * One order of the events that several members of a group saw.
 *
 * Between two configuration changes all members of a configuration get the same messages in the same order, and a member
 * belongs to one configuration at a time. So the observations of each member are cut into views, from one configuration
 * change to the next, and the views of one configuration are overlaid:
 *
 *     1:a   | {a b c} m1 m2 | {a b} m3 | {a b c} m6
 *     2:b   | {a b c} m1 m2 | {a b} m3 | {a b c} m6
 *     3:c   | {a b c} m1 m2 | {c} m4 m5 | {a b c} m6
 *
 * The result keeps the order of every member; events that no member orders are sorted by time.
 */

/** An event as one member saw it. */
export interface Observation<T> {
  readonly timeNs: bigint;
  /** Equal for all observations of one event and, except for repetitions, for no other in the same view. */
  readonly key: string;
  /** For a configuration change: the members before and after it. */
  readonly change?: { readonly before: readonly string[]; readonly after: readonly string[] };
  /** The key identifies one happening across all views. */
  readonly unique?: boolean;
  /** Something is missing here, for this member only. */
  readonly gap?: boolean;
  readonly value: T;
}

/** The observations of one member, in its order. */
export interface Witness<T> {
  /** Its name among the members; undefined if unknown. */
  readonly lane: string | undefined;
  readonly observations: readonly Observation<T>[];
}

/** An event and its witnesses. */
export interface Happening<T> {
  /** Time of the first observation. */
  timeNs: bigint;
  readonly value: T;
  readonly seenBy: Set<Witness<T>>;
  /** The members at that time; undefined if unknown. */
  readonly members: readonly string[] | undefined;
}

interface View<T> {
  readonly members: readonly string[] | undefined;
  readonly startNs: bigint;
  readonly seenBy: Set<Witness<T>>;
  readonly byKey: Map<string, Happening<T>[]>;
}

/** The observations of a witness in one view. */
interface Stretch<T> {
  readonly members: readonly string[] | undefined;
  readonly observations: Observation<T>[];
  /** It begins with the configuration change. */
  readonly whole: boolean;
}

/** All events in one order that agrees with each witness. Deterministic for the same list of witnesses. */
export function merge<T>(witnesses: readonly Witness<T>[]): Happening<T>[] {
  const views = new Map<string, View<T>[]>();
  const unique = new Map<string, Happening<T>>();
  // Witnesses that do not know their view come last: their observations identify it.
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

/** Finds another witness's view of the same configuration, or adds one. A configuration may occur more than once. */
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

/** The events of a view seen by this witness: known ones from other witnesses, and new ones. */
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
      // Equal messages of one sender follow each other. Only a witness of all of them can tell them apart.
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
    // If messages were missed, two witnesses may seem to disagree about the order; that loses no message.
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
