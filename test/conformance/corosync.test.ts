/**
 * Real corosync still does what the transcripts say. With CPG_RECORD=1 they are recorded instead: look at the
 * differences before you commit them.
 */
import { describeWithCorosync } from '../support/suites';
import type { Environment } from './environment';
import { realEnvironment } from './real';
import { scenarios } from './scenarios';
import { play, record, recorded } from './transcripts';

const SCENARIO_TIMEOUT_MS = 120_000;
const RECORDING = process.env['CPG_RECORD'] === '1';

// On a busy machine totem sometimes forms a ring twice; a difference in what CPG does is there every time.
jest.retryTimes(2);

for (const nodes of [1, 3]) {
  describeWithCorosync(`corosync with ${nodes === 1 ? 'one node' : `${nodes} nodes`}`, () => {
    const chosen = scenarios.filter((scenario) => scenario.nodes === nodes);
    let environment: Environment | undefined;

    afterAll(() => environment?.close());

    test.each(chosen.map((scenario) => [scenario.name, scenario] as const))(
      '%s',
      async (_name, scenario) => {
        environment ??= await realEnvironment(nodes);
        let finished = false;
        try {
          const steps = await play(scenario, environment);
          if (RECORDING) record(scenario, steps);
          else expect(steps).toEqual(recorded(scenario));
          await environment.heal();
          finished = environment.nodeIds.every((nodeId) => environment?.isRunning(nodeId));
        } finally {
          // Daemons that remember something, or that a failure left in some state, are not used again.
          if (!finished || scenario.leavesGhosts === true) {
            await environment.close();
            environment = undefined;
          }
        }
      },
      SCENARIO_TIMEOUT_MS,
    );
  });
}
