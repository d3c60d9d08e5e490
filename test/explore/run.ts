/**
 * Explores the rings as they are in the code against a model of libqb's side; see search.ts.
 *
 *     npm run explore                                  every configuration, minutes
 *     npm run explore -- --short                       a few of them, seconds
 *     npm run explore -- --mutate event-reclaim-order  with one rule broken: must find it
 *     npm run explore -- --mutate all
 *
 * Exits with 1 and the steps that lead there when something is lost, doubled, torn, reordered or stuck.
 */
import { parseArgs } from 'node:util';
import { FULL, SHORT } from './configurations';
import { MUTATIONS } from './mutations';
import { explore, type Result } from './search';
import { build, describe, type Configuration, type Mutation } from './systems';

function main(): void {
  const { values } = parseArgs({ options: { short: { type: 'boolean' }, mutate: { type: 'string' } } });
  const { mutate } = values;
  if (mutate === undefined) {
    exploreAll(values.short === true ? SHORT : FULL);
    return;
  }
  const chosen = MUTATIONS.filter(({ name }) => mutate === 'all' || mutate === name);
  if (chosen.length === 0)
    throw new Error(`--mutate: one of all, ${MUTATIONS.map(({ name }) => name).join(', ')}`);
  for (const mutation of chosen) {
    const result = run(mutation.on, mutation);
    print(`${mutation.name} (${mutation.breaks})`, result);
    if (result.violation === undefined) process.stdout.write('  NOT FOUND\n');
  }
}

function exploreAll(configurations: readonly Configuration[]): void {
  const begin = performance.now();
  let states = 0;
  let executions = 0;
  for (const configuration of configurations) {
    const result = run(configuration);
    states += result.states;
    executions += result.executions;
    print(describe(configuration), result);
    if (result.violation !== undefined) return;
  }
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  process.stdout.write(
    `${configurations.length} configurations, ${states} states, ${executions} executions, ${seconds} s\n`,
  );
}

function run(configuration: Configuration, mutation?: Mutation): Result {
  return explore((scheduler) => build(configuration, scheduler, mutation));
}

function print(what: string, { states, executions, violation }: Result): void {
  process.stdout.write(`${what}: ${states} states, ${executions} executions\n`);
  if (violation === undefined) return;
  process.stdout.write(`  ${violation.message}\n${violation.trace.map((line) => `  ${line}\n`).join('')}`);
  process.exitCode = 1;
}

main();
