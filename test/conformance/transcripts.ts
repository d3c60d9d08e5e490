/** Transcripts recorded from real corosync, kept in fixtures/conformance/. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/root';
import type { Environment } from './environment';
import type { Scenario } from './scenarios';
import { Stage } from './stage';
import type { Step } from './transcript';

const DIRECTORY = join(ROOT, 'fixtures', 'conformance');

/** Plays a scenario and returns what happened. */
export async function play(scenario: Scenario, environment: Environment): Promise<Step[]> {
  const stage = new Stage(environment);
  try {
    await scenario.run(stage);
    return stage.steps;
  } finally {
    await stage.close();
  }
}

export function recorded(scenario: Scenario): Step[] {
  return JSON.parse(readFileSync(join(DIRECTORY, `${scenario.name}.json`), 'utf8')) as Step[];
}

export function record(scenario: Scenario, steps: readonly Step[]): void {
  mkdirSync(DIRECTORY, { recursive: true });
  writeFileSync(join(DIRECTORY, `${scenario.name}.json`), `${JSON.stringify(steps, undefined, 2)}\n`);
}
