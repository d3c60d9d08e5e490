/** From a command line to an exit code. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { nearest } from '../arguments';
import { visible } from '../text';
import type { Action, Command, Context } from './command';
import { commands } from './commands';
import { ExitCode, failureLine, Interrupted, isOfTheWay, OutputClosed, UsageError } from './failure';
import { commandHelp, overview } from './help';
import { didYouMean } from './options';
import { Output } from './output';

export interface CliIo {
  args: readonly string[];
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable & { isTTY?: boolean };
  stderr: Writable & { isTTY?: boolean };
  env: NodeJS.ProcessEnv;
  /** Aborts with Interrupted. */
  interrupt: AbortSignal;
}

/** Runs one command line; never rejects. A code for what failed first: an output, then the command. */
export async function run(io: CliIo): Promise<number> {
  const out = new Output(io.stdout, io.env, { name: 'standard output' });
  const err = new Output(io.stderr, io.env, { name: 'standard error', mayFail: true });
  const reporter = new Reporter(io.args[0], err);
  const outputs = [out];
  const codes: number[] = [];
  let failure: unknown;
  try {
    await runCommand(io, { out, err, outputs }, reporter);
  } catch (error) {
    failure = error;
  }
  // What was written last may fail last, and is lost even when the user ended the command.
  const lost = await Promise.all(outputs.map((output) => output.flushed()));
  const reported = outputs.some(({ closed }) => closed.reason === failure);
  for (const each of [
    ...lost.filter((reason) => !(reason instanceof OutputClosed)),
    ...(reported ? [] : [failure]),
  ])
    codes.push(await reporter.report(each));
  const silenced = await err.flushed();
  if (silenced !== undefined && !(silenced instanceof OutputClosed)) codes.push(ExitCode.FAILURE);
  return codes.find((code) => code !== ExitCode.OK) ?? ExitCode.OK;
}

/** Says what went wrong. */
class Reporter {
  readonly #name: string;
  readonly #err: Output;
  action: Action | undefined;

  constructor(name: string | undefined, err: Output) {
    this.#name = name ?? '';
    this.#err = err;
  }

  /** Returns the exit code. */
  async report(failure: unknown): Promise<number> {
    if (failure === undefined || failure instanceof OutputClosed) return ExitCode.OK;
    if (failure instanceof Interrupted) return failure.exitCode;
    if (failure instanceof UsageError) {
      const command = commands.some(({ name }) => name === this.#name) ? `cpg ${this.#name}` : 'cpg';
      await this.#say(`cpg: ${visible(failure.message)}`, `Try '${command} --help'.`);
      return ExitCode.USAGE;
    }
    const hint = this.#name !== 'info' && isOfTheWay(failure) ? [this.#infoHint()] : [];
    await this.#say(failureLine(failure, this.#name), ...hint);
    return ExitCode.FAILURE;
  }

  #infoHint(): string {
    const { address } = this.action ?? {};
    return `Try 'cpg info${address === undefined ? '' : ` --address ${visible(address)}`}', which looks for the cause.`;
  }

  #say(...lines: string[]): Promise<void> {
    return this.#err.write(`${lines.join('\n')}\n`);
  }
}

type Outputs = Pick<Context, 'out' | 'err' | 'outputs'>;

async function runCommand(io: CliIo, outputs: Outputs, reporter: Reporter): Promise<void> {
  const { out } = outputs;
  const [name, ...args] = io.args;
  if (name === '--version') return out.line(`cpg ${version()}`);
  if (name === 'help' || isHelp(name)) return out.line(help(args.find((word) => !isHelp(word))));
  const command = find(name);
  if (asksForHelp(args)) return out.line(commandHelp(command));
  const action = command.prepare(args);
  reporter.action = action;
  await perform(action, io, outputs);
}

async function perform(action: Action, io: CliIo, outputs: Outputs): Promise<void> {
  const signal = AbortSignal.any([io.interrupt, outputs.out.closed]);
  const { stdin, env } = io;
  try {
    const outcome = await action.run({ ...outputs, stdin, env, signal });
    if (outcome !== 'complete') signal.throwIfAborted();
  } catch (error) {
    // Whatever broke when everything was aborted, the cause is what counts.
    throw signal.aborted ? signal.reason : error;
  }
}

function find(name: string | undefined): Command {
  if (name === undefined) throw new UsageError('a command is missing');
  const command = commands.find((candidate) => candidate.name === name);
  if (command !== undefined) return command;
  const near = nearest(
    name,
    commands.map((candidate) => candidate.name),
  );
  throw new UsageError(`'${name}' is not a command${didYouMean(near)}`);
}

function isHelp(word: string | undefined): boolean {
  return word === '--help' || word === '-h';
}

/** --help wins over anything else that may be wrong with the line. */
function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end === -1 ? args : args.slice(0, end)).some(isHelp);
}

function help(name: string | undefined): string {
  return name === undefined ? overview(commands) : commandHelp(find(name));
}

function version(): string {
  const file = join(__dirname, '..', '..', 'package.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
