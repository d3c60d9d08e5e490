/** Where a scenario runs: real corosync, or the embedded server. Both look the same from here. */
export interface Environment {
  readonly nodeIds: readonly number[];
  address(nodeId: number): string;
  isRunning(nodeId: number): boolean;
  /** Resolves when every side has formed its ring. Nodes that are not named stay alone. */
  partition(...sides: number[][]): Promise<void>;
  heal(): Promise<void>;
  /** SIGKILL; resolves when the others have noticed. */
  crash(nodeId: number): Promise<void>;
  /** SIGTERM; resolves when the node is gone and the others have noticed. */
  shutDown(nodeId: number): Promise<void>;
  /** Starts it again; resolves when it is among the others. */
  restart(nodeId: number): Promise<void>;
  /** Time the daemon may take to notice that a client hung up. */
  readonly hangUpMs: number;
  close(): Promise<void>;
}
