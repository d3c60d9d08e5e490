/** From a command line to an exit code. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Command, Context } from './command';
import { commands } from './commands';
import { ExitCode, failureLine, Interrupted, OutputClosed, UsageError } from './failure';
import { commandHelp, overview } from './help';
import { Output } from './output';
import { visible } from './text';

export interface World {
  args: readonly string[];
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable & { isTTY?: boolean };
  stderr: Writable & { isTTY?: boolean };
  env: NodeJS.ProcessEnv;
  /** Aborts with Interrupted. */
  interrupt: AbortSignal;
}

/** Runs one command line; never rejects. */
export async function run(world: World): Promise<number> {
  const out = new Output(world.stdout, world.env);
  const err = new Output(world.stderr, world.env);
  const code = await runCommand(world, out, err);
  await out.flushed();
  await err.flushed();
  return code;
}

async function runCommand(world: World, out: Output, err: Output): Promise<number> {
  const [name, ...args] = world.args;
  try {
    if (name === '--version') return await print(out, `cpg ${version()}`);
    if (name === '--help' || name === 'help') return await printHelp(out, args[0]);
    const command = find(name);
    if (asksForHelp(args)) return await print(out, commandHelp(command));
    const action = command.prepare(args);
    return await perform(action, world, out, err);
  } catch (error) {
    if (error instanceof OutputClosed) return ExitCode.OK;
    if (!(error instanceof UsageError)) return fail(err, error);
    const hint = commands.some((command) => command.name === name)
      ? `cpg ${name ?? ''} --help`
      : 'cpg --help';
    return complain(err, [`cpg: ${visible(error.message)}`, `Try '${hint}'.`], ExitCode.USAGE);
  }
}

async function perform(
  action: (context: Context) => Promise<void>,
  world: World,
  out: Output,
  err: Output,
): Promise<number> {
  const signal = AbortSignal.any([world.interrupt, out.closed]);
  const { stdin, env } = world;
  try {
    await action({ stdin, out, err, env, signal });
    signal.throwIfAborted();
    return ExitCode.OK;
  } catch (error) {
    // Whatever broke when everything was aborted, the cause is what counts.
    const cause: unknown = signal.aborted ? signal.reason : error;
    if (cause instanceof OutputClosed) return ExitCode.OK;
    if (cause instanceof Interrupted) return cause.exitCode;
    if (cause instanceof UsageError) throw cause;
    return await fail(err, cause);
  }
}

function find(name: string | undefined): Command {
  if (name === undefined) throw new UsageError('a command is missing');
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) throw new UsageError(`'${name}' is not a command`);
  return command;
}

/** --help wins over anything else that may be wrong with the line. */
function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end === -1 ? args : args.slice(0, end)).some((word) => word === '--help' || word === '-h');
}

async function printHelp(out: Output, name: string | undefined): Promise<number> {
  return print(out, name === undefined ? overview(commands) : commandHelp(find(name)));
}

async function print(out: Output, text: string): Promise<number> {
  await out.line(text);
  return ExitCode.OK;
}

function fail(err: Output, error: unknown): Promise<number> {
  return complain(err, [failureLine(error)], ExitCode.FAILURE);
}

/** Standard error may be closed too; the exit code then says it all. */
async function complain(err: Output, lines: readonly string[], code: number): Promise<number> {
  await err.write(`${lines.join('\n')}\n`).catch(() => undefined);
  return code;
}

function version(): string {
  const file = join(__dirname, '..', '..', 'package.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
