/** Snapshots of the process list, read by clients row by row. */
import { IterationType } from '../codec/requests';
import type { Process } from './process-list';

/** Snapshots per client; a daemon has no such limit. */
export const MAX_ITERATIONS_PER_CLIENT = 256;

interface Iteration {
  readonly rows: readonly Process[];
  /** The last returned row; -1 before the first one and again after the last one. */
  position: number;
}

export class Iterations {
  readonly #iterations = new Map<bigint, Iteration>();
  #lastHandle = 0n;

  /** Takes a snapshot and returns its handle. */
  begin(processes: readonly Process[], iterationType: number, group: string): bigint {
    const handle = ++this.#lastHandle;
    this.#iterations.set(handle, { rows: snapshot(processes, iterationType, group), position: -1 });
    return handle;
  }

  /** The next row, 'end' after the last one, undefined for an unknown handle. Any client may use any handle. */
  next(handle: bigint, strict: boolean): Process | 'end' | undefined {
    const iteration = this.#iterations.get(handle);
    if (iteration === undefined) return undefined;
    const { rows } = iteration;
    iteration.position++;
    if (iteration.position < rows.length) return rows[iteration.position];
    // The daemon's list is circular: a request after the end starts over.
    iteration.position = strict ? -1 : rows.length;
    return 'end';
  }

  /** False for an unknown handle. */
  end(handle: bigint): boolean {
    return this.#iterations.delete(handle);
  }
}

/**
 * The rows, grouped by name. The daemon inserts the first member of a group before all other groups, and every further
 * one right after that first one. So groups come in the reverse order of their first members, and members of a group as
 * first, last, last but one ... second.
 */
function snapshot(processes: readonly Process[], iterationType: number, group: string): Process[] {
  const groups = new Map<string, Process[]>();
  for (const process of processes) {
    if (iterationType === IterationType.ONE_GROUP && process.group !== group) continue;
    const rows = groups.get(process.group);
    if (rows === undefined) {
      const nameOnly = iterationType === IterationType.NAME_ONLY;
      groups.set(process.group, [nameOnly ? { ...process, nodeId: 0, pid: 0 } : process]);
    } else if (iterationType !== IterationType.NAME_ONLY) {
      rows.splice(1, 0, process);
    }
  }
  return [...groups.values()].reverse().flat();
}
