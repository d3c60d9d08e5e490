/** The rings hold in every interleaving of a few small configurations, and the explorer finds each rule that is broken. */
import { SHORT } from './configurations';
import { MUTATIONS } from './mutations';
import { explore, type Result } from './search';
import { build, describe as nameOf, type Configuration } from './systems';

/** A search runs on its own, however slow the machine is. */
const TIMEOUT_MS = 120_000;

const results = new Map<Configuration, Result>();

function unbroken(configuration: Configuration): Result {
  const result = results.get(configuration) ?? explore((scheduler) => build(configuration, scheduler));
  results.set(configuration, result);
  return result;
}

test.each(SHORT.map((configuration) => [nameOf(configuration), configuration] as const))(
  '%s: nothing is lost, doubled, torn, reordered or stuck',
  (_, configuration) => {
    const { violation, states } = unbroken(configuration);
    expect(violation).toBeUndefined();
    expect(states).toBeGreaterThan(1);
  },
  TIMEOUT_MS,
);

test.each(['event', 'response'])(
  'the reset of the %s ring: in the wrong order it costs time, without it work stops',
  (ring) => {
    const patiently = (name: string): Result => {
      const mutation = MUTATIONS.find((candidate) => candidate.name === `${ring}-${name}`)!;
      return explore((scheduler) =>
        build({ ...mutation.on, ahead: false, patient: true }, scheduler, mutation),
      );
    };
    expect(patiently(ring === 'event' ? 'reclaim-order' : 'order').violation).toBeUndefined();
    expect(patiently('no-reset').violation).toBeDefined();
  },
  TIMEOUT_MS,
);

test.each(MUTATIONS.map((mutation) => [mutation.name, mutation] as const))(
  '%s is found',
  (_, mutation) => {
    const { violation } = explore((scheduler) => build(mutation.on, scheduler, mutation));
    expect(violation?.trace.length).toBeGreaterThan(0);
    // It is the mutation that makes the difference.
    expect(unbroken(mutation.on).violation).toBeUndefined();
  },
  TIMEOUT_MS,
);
