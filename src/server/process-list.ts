/** The members of all groups known to one node. */
export interface Process {
  readonly nodeId: number;
  readonly pid: number;
  readonly group: string;
}

export class ProcessList {
  /** By nodeid, then pid, then order of joining. Members are reported in this order. */
  #all: readonly Process[] = [];
  /** The nodes with a member, by group. */
  readonly #nodes = new Map<string, Set<number>>();

  get all(): readonly Process[] {
    return this.#all;
  }

  /** Adds a process; false if it is already a member. */
  add(process: Process): boolean {
    if (this.has(process)) return false;
    const behind = this.#all.findIndex(
      ({ nodeId, pid }) => nodeId > process.nodeId || (nodeId === process.nodeId && pid > process.pid),
    );
    const at = behind === -1 ? this.#all.length : behind;
    this.#all = this.#all.toSpliced(at, 0, process);
    this.#nodes.set(process.group, (this.#nodes.get(process.group) ?? new Set()).add(process.nodeId));
    return true;
  }

  /** Removes and returns the processes that match `gone`. */
  remove(gone: (process: Process) => boolean): Process[] {
    const removed = this.#all.filter(gone);
    if (removed.length === 0) return removed;
    this.#all = this.#all.filter((process) => !gone(process));
    this.#nodes.clear();
    for (const { group, nodeId } of this.#all) {
      this.#nodes.set(group, (this.#nodes.get(group) ?? new Set()).add(nodeId));
    }
    return removed;
  }

  has(wanted: Process): boolean {
    return this.#all.some((process) => isSame(process, wanted));
  }

  ofGroup(group: string): Process[] {
    return this.#all.filter((process) => process.group === group);
  }

  /** Whether the node has a member in the group. */
  knows(group: string, nodeId: number): boolean {
    return this.#nodes.get(group)?.has(nodeId) === true;
  }
}

export function isSame(one: Process, other: Process): boolean {
  return one.pid === other.pid && one.nodeId === other.nodeId && one.group === other.group;
}
