/**
 * Many random simulations of a cluster, and their invariants. CPG_RUNS sets their number, CPG_SEED runs one:
 *
 *     CPG_RUNS=1000 npx jest test/server/random
 *     CPG_SEED=17 npx jest test/server/random
 */
import { simulate, type MemberHistory } from './play';

const RUNS = Number(process.env['CPG_RUNS'] ?? 40);
const ONLY_SEED = process.env['CPG_SEED'];
const RUN_TIMEOUT_MS = 10_000;

const seeds =
  ONLY_SEED === undefined ? Array.from({ length: RUNS }, (_, index) => index + 1) : [Number(ONLY_SEED)];

/** The part of a history between two rings, or before the first or after the last one. */
interface Episode {
  ring: string;
  events: string[];
  /** It ended with another ring, or the member survived: nothing of it is missing at its end. */
  complete: boolean;
}

function episodes(history: MemberHistory): Episode[] {
  const result: Episode[] = [];
  let current: Episode | undefined;
  for (const line of history.log) {
    if (line.startsWith('totem')) {
      if (current !== undefined) current.complete = true;
      current = { ring: line, events: [], complete: false };
      result.push(current);
    } else if (current !== undefined && !line.startsWith('nodes')) {
      current.events.push(line);
    }
  }
  if (current !== undefined) current.complete = history.survived;
  return result;
}

/** Whether one of two lists is the beginning of the other. */
function agree(one: readonly string[], other: readonly string[]): boolean {
  return one.slice(0, other.length).every((line, index) => line === other[index]);
}

/** Throws with the seed and both sides when a promise is broken. */
function check(seed: number, histories: readonly MemberHistory[]): void {
  const fail = (what: string, ...who: MemberHistory[]): never => {
    const logs = who.map(({ pid, log }) => `${pid}:\n    ${log.join('\n    ')}`).join('\n');
    throw new Error(`CPG_SEED=${seed}: ${what}\n${logs}`);
  };
  for (const history of histories) {
    const delivered = history.log.filter((line) => line.startsWith('deliver'));
    if (new Set(delivered).size !== delivered.length) fail('a message came twice', history);
    for (const other of histories) {
      // Messages of one sender come in the order in which it sent them.
      const numbers = delivered
        .filter((line) => line.startsWith(`deliver ${other.pid} `))
        .map((line) => Number(line.split(' ')[2]));
      if (numbers.some((number, index) => index > 0 && number < numbers[index - 1]!))
        fail('out of order', history, other);
    }
    const own = delivered
      .filter((line) => line.startsWith(`deliver ${history.pid} `))
      .map((line) => Number(line.split(' ')[2]));
    // Who survived got everything it sent, wherever it was.
    if (history.survived && own.join() !== history.sent.join()) fail('own messages are missing', history);
  }
  for (const one of histories) {
    for (const other of histories) {
      if (one.pid >= other.pid || one.group !== other.group) continue;
      compare(one, other, (what) => fail(what, one, other));
    }
  }
  for (const group of new Set(histories.map((history) => history.group))) {
    const members = histories
      .filter((history) => history.group === group && history.survived && !history.left)
      .map(({ pid }) => pid);
    for (const history of histories.filter((other) => other.group === group && other.survived)) {
      const last = history.log.findLast((line) => /^(confchg|nodes)/.test(line)) ?? '';
      const seen = /members ([\d ]*) left/.exec(last)?.[1]?.split(' ').filter(Boolean).map(Number) ?? [];
      if (seen.toSorted().join() !== members.toSorted().join())
        fail(`the last members are not ${members.join()}`, history);
    }
  }
}

/** In every ring both were in, both saw the same, from where the later one came to where the first one went. */
function compare(one: MemberHistory, other: MemberHistory, fail: (what: string) => void): void {
  const rings = new Map(episodes(one).map((episode) => [episode.ring, episode]));
  for (const second of episodes(other)) {
    const first = rings.get(second.ring);
    if (first === undefined) continue;
    if (first.events.length === 0 || second.events.length === 0) continue;
    // Whoever joined within this ring begins with its own join.
    const secondBegins = first.events.indexOf(second.events[0]!);
    const firstBegins = second.events.indexOf(first.events[0]!);
    const both = first.complete && second.complete;
    if (secondBegins === -1 && firstBegins === -1) {
      // One had gone before the other came.
      if (both) fail(`they have nothing in common in ${second.ring}`);
      continue;
    }
    const common = first.events.slice(Math.max(0, secondBegins));
    const otherCommon = second.events.slice(secondBegins === -1 ? firstBegins : 0);
    if (!agree(common, otherCommon)) fail(`they disagree in ${second.ring}`);
    if (both && common.length !== otherCommon.length) fail(`one saw more in ${second.ring}`);
  }
}

describe('random simulations of a cluster', () => {
  test.each(seeds)(
    'seed %i',
    async (seed) => {
      check(seed, await simulate(seed));
    },
    RUN_TIMEOUT_MS,
  );

  test('equal seeds give equal histories', async () => {
    for (const seed of seeds.slice(0, 5)) expect(await simulate(seed)).toEqual(await simulate(seed));
  });
});
