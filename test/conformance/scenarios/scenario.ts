import type { Stage } from '../stage';

export interface Scenario {
  /** Names its transcript in fixtures/conformance/. */
  name: string;
  nodes: 1 | 3;
  /** Leaves members behind that no request can remove: the daemons are started anew behind it. */
  leavesGhosts?: boolean;
  run(stage: Stage): Promise<void>;
}
