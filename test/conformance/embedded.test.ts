/** The embedded server does what real corosync did when the transcripts were recorded. */
import { embeddedEnvironment } from './embedded';
import { scenarios } from './scenarios';
import { play, recorded } from './transcripts';

describe('the embedded server, compared with recorded corosync', () => {
  test.each(scenarios.map((scenario) => [scenario.name, scenario] as const))(
    '%s',
    async (_name, scenario) => {
      const environment = await embeddedEnvironment(scenario.nodes);
      try {
        expect(await play(scenario, environment)).toEqual(recorded(scenario));
      } finally {
        await environment.close();
      }
    },
  );
});
