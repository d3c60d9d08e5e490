/** The embedded server does what real corosync did when the transcripts were recorded. */
import { embeddedEnvironment } from './embedded';
import { scenarios } from './scenarios';
import { play, recorded } from './transcripts';

describe.each(['shm', 'socket'] as const)(
  'the embedded server by %s, compared with recorded corosync',
  (ipc) => {
    test.each(scenarios.map((scenario) => [scenario.name, scenario] as const))(
      '%s',
      async (_name, scenario) => {
        const environment = await embeddedEnvironment(scenario.nodes, ipc);
        try {
          expect(await play(scenario, environment)).toEqual(recorded(scenario));
        } finally {
          await environment.close();
        }
      },
    );
  },
);
