/** The runtimes that npm provides, in a project that has this package as a user would have it. */
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Skipped } from './releases';
import { shorten, type Runtime } from './checks';

const run = promisify(execFile);
const INSTALL_TIMEOUT_MS = 300_000;
const BINARIES = `linux-${process.arch}`;

export interface RuntimeSource {
  name: string;
  /** What npm installs. */
  package: string;
  version: string;
  /** The program in that package. */
  program: string;
  args?: readonly string[];
}

const node = (version: string): RuntimeSource => ({
  name: 'Node',
  package: `node-${BINARIES}`,
  version,
  program: 'bin/node',
});

/** The lowest Node of `engines` comes first. */
export const RUNTIMES: readonly RuntimeSource[] = [
  node('20.8.0'),
  node('22'),
  node('24'),
  node('26'),
  { name: 'Bun', package: `@oven/bun-${BINARIES}`, version: 'latest', program: 'bin/bun' },
  {
    name: 'Deno',
    package: `@deno/${BINARIES}-glibc`,
    version: 'latest',
    program: 'deno',
    args: ['run', '--allow-all'],
  },
];

/** A project with the packed package and koffi in it. */
export async function makeProject(home: string, root: string): Promise<string> {
  const project = join(home, 'project');
  mkdirSync(project);
  const { devDependencies } = readJson(join(root, 'package.json')) as { devDependencies: { koffi: string } };
  await npm(root, ['pack', '--ignore-scripts', '--silent', '--pack-destination', project]);
  const { name, version } = readJson(join(root, 'package.json')) as { name: string; version: string };
  const dependencies = { [name]: `file:${name}-${version}.tgz`, koffi: devDependencies.koffi };
  writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, dependencies }));
  await npm(project, ['install']);
  copyFileSync(join(root, 'test/matrix/programs/scenario.mjs'), join(project, 'scenario.mjs'));
  return project;
}

/** Installs a runtime; its version is what it is in truth. */
export async function install(
  source: RuntimeSource,
  home: string,
  project: string,
): Promise<Runtime & { version: string }> {
  const prefix = join(home, `${source.name}-${source.version}`.toLowerCase());
  mkdirSync(prefix);
  writeFileSync(join(prefix, 'package.json'), '{"private":true}');
  try {
    await npm(prefix, ['install', `${source.package}@${source.version}`]);
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string };
    throw new Skipped(
      `npm does not provide it (${/npm error code (\S+)/.exec(stderr)?.[1] ?? shorten(stderr)})`,
    );
  }
  const directory = join(prefix, 'node_modules', source.package);
  const command = join(directory, source.program);
  if (!existsSync(command)) throw new Skipped(`${source.package} has no ${source.program}`);
  const { version } = readJson(join(directory, 'package.json')) as { version: string };
  return { command, args: source.args ?? [], project, version: version.replace(/^v/, '') };
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

async function npm(cwd: string, args: string[]): Promise<void> {
  // What npm tells this script about its own project would be taken for settings of the other.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^npm_(package|lifecycle|config_local_prefix)/.test(key)),
  );
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
  await run('npm', [...args, ...quiet], { cwd, env, timeout: INSTALL_TIMEOUT_MS });
}
