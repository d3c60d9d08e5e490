/**
 * Explores every state that a ring between our code and a daemon can get into.
 *
 * Our code runs as it is. Before each of its accesses to shared memory the daemon may take any number of steps, one
 * access each. A whole action of ours (staging a frame, one poll, one reading) begins in a known state; its
 * interleavings are enumerated depth first, by running it again from that state with other choices. Between actions
 * states are copied and compared, so equal ones are explored once; nearest first, so that the trace of a violation is
 * short. At the end every state must be one from which the work can still be finished: otherwise somebody waits
 * for something that nobody will do.
 */

/** A rule was broken. */
export class Violation extends Error {}

/** What one side sees of the other: `before` is called ahead of each access, `note` with what it read. */
export interface Scheduler {
  before(access: string): void;
  note(read: number | string): void;
}

/** A piece of the state: `save()` gives plain data, `load()` puts it back. */
export interface Part {
  save(): unknown;
  load(saved: never): void;
}

/** A plain object as a part. */
export function part(object: object): Part {
  return { save: () => object, load: (saved) => Object.assign(object, saved) };
}

export interface System {
  /** All that changes, the daemon and shared memory included. */
  readonly parts: readonly Part[];
  /** What our side may do now. */
  actions(): string[];
  act(action: string): void;
  /** What the daemon may do now; several when it has a choice. */
  daemonSteps(): string[];
  daemonStep(step: string): void;
  /** Everything is done and nothing is left over. */
  done(): boolean;
  /** Throws Violation for a state that must never be. */
  check(): void;
}

export interface Result {
  states: number;
  /** Runs of one of our actions with one interleaving, or of part of one. */
  executions: number;
  /** What was broken, and the steps that lead to it. */
  violation?: { message: string; trace: string[] };
}

interface Move {
  readonly kind: 'we' | 'daemon';
  readonly name: string;
  /** How many of the steps the daemon could take it took, before each access of ours: see Choices. */
  readonly choices: readonly number[];
}

/** The rest of this interleaving was seen before. */
const PRUNED = new Error('pruned');

/**
 * The choices of one run. At each point 0 is our access and n the n-th step of the daemon; beyond `prefix` it is our
 * access. next() is the following run of a depth-first search.
 */
class Choices implements Scheduler {
  system!: System;
  log: string[] | undefined;
  #prefix: number[] = [];
  #widths: number[] = [];
  #position = 0;
  /** Points from which everything was explored: what we have read so far, and the state of all we share. */
  #seen: Set<string> | undefined;
  #read = '';
  #running = false;

  begin(prefix: readonly number[], seen?: Set<string>): void {
    this.#prefix = [...prefix];
    this.#widths.length = prefix.length;
    this.#position = 0;
    this.#seen = seen;
    this.#read = '';
    this.#running = true;
  }

  end(): void {
    this.#running = false;
  }

  get taken(): number[] {
    return this.#prefix.slice(0, this.#position);
  }

  next(): number[] | undefined {
    while (this.#prefix.length > 0) {
      const last = this.#prefix.length - 1;
      if (++this.#prefix[last]! < this.#widths[last]!) return this.#prefix;
      this.#prefix.pop();
    }
    return undefined;
  }

  before(access: string): void {
    if (!this.#running) return;
    this.#read += ';';
    for (;;) {
      this.system.check();
      const steps = this.system.daemonSteps();
      const choice = this.#choose(steps.length + 1);
      if (choice === 0) break;
      this.log?.push(`    daemon: ${steps[choice - 1]!}`);
      this.system.daemonStep(steps[choice - 1]!);
    }
    this.log?.push(`    we: ${access}`);
  }

  note(read: number | string): void {
    this.#read += `${read},`;
  }

  #choose(width: number): number {
    const isNew = this.#position >= this.#prefix.length;
    if (isNew) {
      if (this.#seen !== undefined) {
        // Our own side follows from where the action began and from what it has read.
        const point = this.#read + save(this.system);
        if (this.#seen.has(point)) throw PRUNED;
        this.#seen.add(point);
      }
      if (width === 1) return 0;
      this.#prefix.push(0);
    } else if (width === 1) {
      return 0;
    }
    this.#widths[this.#position] = width;
    return this.#prefix[this.#position++]!;
  }
}

function save(system: System): string {
  return JSON.stringify(system.parts.map((one) => one.save()));
}

function load(system: System, state: string): void {
  const saved = JSON.parse(state) as never[];
  for (const [index, one] of system.parts.entries()) one.load(saved[index]!);
}

/** Explores the system that `make` builds, up to `maxStates`. */
export function explore(make: (scheduler: Scheduler) => System, maxStates = Infinity): Result {
  const choices = new Choices();
  const system = make(choices);
  choices.system = system;
  const states: string[] = [save(system)];
  const ids = new Map([[states[0]!, 0]]);
  const origins: { from: number; move: Move }[] = [];
  const edges: { from: number; to: number }[] = [];
  const done: number[] = [];
  let executions = 0;

  const pathTo = (id: number): Move[] => {
    const path: Move[] = [];
    for (let at = id; at > 0; at = origins[at]!.from) path.unshift(origins[at]!.move);
    return path;
  };

  /** Takes a move and throws what it throws. */
  const take = (move: Move, seen?: Set<string>): void => {
    choices.begin(move.choices, seen);
    try {
      if (move.kind === 'daemon') {
        choices.end();
        system.daemonStep(move.name);
      } else {
        system.act(move.name);
      }
      system.check();
    } finally {
      choices.end();
    }
  };

  const trace = (moves: readonly Move[]): string[] => {
    const log: string[] = [];
    choices.log = log;
    load(system, states[0]!);
    for (const move of moves) {
      log.push(move.kind === 'we' ? `we ${move.name}:` : `daemon: ${move.name}`);
      try {
        take(move);
      } catch {
        // The last one: its message is known.
      }
    }
    choices.log = undefined;
    return log;
  };

  const failed = (from: number, move: Move, error: unknown): Result => {
    const message = error instanceof Error ? error.message : String(error);
    const moves = [...pathTo(from), { ...move, choices: choices.taken }];
    return { states: states.length, executions, violation: { message, trace: trace(moves) } };
  };

  const arrive = (from: number, move: Move): void => {
    const state = save(system);
    let to = ids.get(state);
    if (to === undefined) {
      to = states.push(state) - 1;
      ids.set(state, to);
      origins[to] = { from, move: { ...move, choices: choices.taken } };
      if (system.done()) done.push(to);
    }
    edges.push({ from, to });
  };

  for (let id = 0; id < states.length; id++) {
    if (states.length > maxStates) throw new Error(`more than ${maxStates} states`);
    load(system, states[id]!);
    const steps = system.daemonSteps();
    for (const name of steps) {
      const move: Move = { kind: 'daemon', name, choices: [] };
      load(system, states[id]!);
      executions++;
      try {
        take(move);
      } catch (error) {
        return failed(id, move, error);
      }
      arrive(id, move);
    }
    load(system, states[id]!);
    for (const name of system.actions()) {
      const seen = new Set<string>();
      let prefix: number[] | undefined = [];
      while (prefix !== undefined) {
        const move: Move = { kind: 'we', name, choices: prefix };
        load(system, states[id]!);
        executions++;
        try {
          take(move, seen);
          arrive(id, move);
        } catch (error) {
          if (error !== PRUNED) return failed(id, move, error);
        }
        prefix = choices.next();
      }
    }
  }

  const stuck = firstThatCannotFinish(states.length, edges, done);
  if (stuck === undefined) return { states: states.length, executions };
  load(system, states[stuck]!);
  const message = `dead end: from here nothing leads to the end. ${states[stuck]!}`;
  return { states: states.length, executions, violation: { message, trace: trace(pathTo(stuck)) } };
}

function firstThatCannotFinish(
  count: number,
  edges: readonly { from: number; to: number }[],
  done: readonly number[],
): number | undefined {
  const into: number[][] = Array.from({ length: count }, () => []);
  for (const { from, to } of edges) into[to]!.push(from);
  const finishing = new Uint8Array(count);
  const waiting = [...done];
  for (const id of done) finishing[id] = 1;
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    for (const from of into[id]!) {
      if (finishing[from] === 1) continue;
      finishing[from] = 1;
      waiting.push(from);
    }
  }
  const first = finishing.indexOf(0);
  return first === -1 ? undefined : first;
}
