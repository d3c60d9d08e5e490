/** Runs the command: inside this process with streams of ours, or as a process of its own. */
import { execFileSync, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { ModuleKind, ScriptTarget, transpileModule } from 'typescript';
import { Interrupted } from '../../src/cli/failure';
import { run } from '../../src/cli/run';

const ROOT = resolve(__dirname, '..', '..');
const CACHE = join(ROOT, 'node_modules', '.cache', 'corosync-cpg');

export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
  /** Standard output, parsed line by line. */
  json: () => Record<string, unknown>[];
}

export interface CliOptions {
  /** All of standard input; left open and silent when undefined. */
  stdin?: string | Uint8Array | Readable;
  env?: NodeJS.ProcessEnv;
  /** Pretend that standard output and error are terminals. */
  terminal?: boolean;
  interrupt?: AbortSignal;
}

/** A command line that runs in this process. */
export interface Running {
  finished: Promise<Finished>;
  /** Resolves when its standard output, or error, matches. */
  until: (pattern: RegExp, where?: 'stdout' | 'stderr') => Promise<void>;
}

export function startCli(args: readonly string[], options: CliOptions = {}): Running {
  const streams = { stdout: new Collected(options.terminal), stderr: new Collected(options.terminal) };
  const ending = run({
    args,
    stdin: stdinOf(options.stdin),
    ...streams,
    env: options.env ?? {},
    interrupt: options.interrupt ?? new AbortController().signal,
  });
  let ended = false;
  const { stdout, stderr } = streams;
  return {
    finished: ending.then((code) => {
      ended = true;
      return finished(code, stdout.text, stderr.text);
    }),
    until: (pattern, where = 'stdout') =>
      eventually(`${String(pattern)} in what it says`, () => {
        if (pattern.test(streams[where].text)) return true;
        if (ended) throw new Error(`it ended:\n${stdout.text.slice(-2000)}\n${stderr.text.slice(-2000)}`);
        return false;
      }),
  };
}

/** Runs a command line in this process, to its end. */
export function cli(args: readonly string[], options: CliOptions = {}): Promise<Finished> {
  return startCli(args, options).finished;
}

/** Looks again and again until the condition holds. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`the time ran out while waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The reason with which a signal handler would abort. */
export const interrupted = (): Interrupted => new Interrupted(130);

function stdinOf(given: CliOptions['stdin']): Readable {
  if (given instanceof Readable) return given;
  if (given === undefined) return new PassThrough();
  return Readable.from([Buffer.from(given)].filter((bytes) => bytes.length > 0));
}

export class Collected extends Writable {
  readonly isTTY: boolean;
  readonly #chunks: Buffer[] = [];

  constructor(terminal = false) {
    super();
    this.isTTY = terminal;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.bytes.toString('utf8');
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.#chunks.push(Buffer.from(chunk));
    done();
  }
}

function finished(code: number, stdout: string, stderr: string): Finished {
  const json = (): Record<string, unknown>[] =>
    stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { code, stdout, stderr, json };
}

/** The command as a process of its own. */
export class CliProcess {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly #ended: Promise<number>;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString('utf8')));
    child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString('utf8')));
    child.stdin?.on('error', () => undefined);
    this.#ended = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve(code ?? (signal === null ? -1 : -2)));
    });
  }

  static start(args: readonly string[], options: SpawnOptions = {}): CliProcess {
    return new CliProcess(spawn(process.execPath, [builtCli(), ...args], { stdio: 'pipe', ...options }));
  }

  write(text: string): void {
    this.child.stdin?.write(text);
  }

  end(): void {
    this.child.stdin?.end();
  }

  /** Resolves when its standard output, or error, matches. */
  async until(pattern: RegExp, where: 'stdout' | 'stderr' = 'stdout', timeoutMs = 15_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!pattern.test(this[where])) {
      if (this.child.exitCode !== null || Date.now() > deadline) {
        throw new Error(
          `no ${String(pattern)} in:\n${this.stdout.slice(-2000)}\n${this.stderr.slice(-2000)}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async done(): Promise<Finished> {
    const code = await this.#ended;
    return finished(code, this.stdout, this.stderr);
  }
}

let built: string | undefined;

/** Path of main.js: the sources as JavaScript, made once for each state of them. */
export function builtCli(): string {
  built ??= build();
  return built;
}

function build(): string {
  const sources = files(join(ROOT, 'src')).filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));
  const hash = createHash('sha256');
  for (const file of sources) hash.update(file).update(readFileSync(file));
  const directory = join(CACHE, `cli-${hash.digest('hex').slice(0, 12)}`);
  const main = join(directory, 'dist', 'cli', 'main.js');
  if (existsSync(main)) return main;
  const own = `${directory}.${process.pid}`;
  for (const file of sources) {
    const target = join(own, 'dist', relative(join(ROOT, 'src'), file).replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    const { outputText } = transpileModule(readFileSync(file, 'utf8'), {
      compilerOptions: { target: ScriptTarget.ES2022, module: ModuleKind.CommonJS, esModuleInterop: true },
    });
    writeFileSync(target, outputText);
  }
  cpSync(join(ROOT, 'package.json'), join(own, 'package.json'));
  for (const extra of ['dissector']) {
    if (existsSync(join(ROOT, extra))) cpSync(join(ROOT, extra), join(own, extra), { recursive: true });
  }
  try {
    renameSync(own, directory);
  } catch {
    // Another test process was faster; it has built the same.
    execFileSync('rm', ['-rf', own]);
  }
  return main;
}

function files(directory: string): string[] {
  return readdirSync(directory)
    .map((name) => join(directory, name))
    .flatMap((path) => (statSync(path).isDirectory() ? files(path) : [path]));
}
