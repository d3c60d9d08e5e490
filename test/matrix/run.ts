/**
 * Tries this package on other releases of corosync and libqb, and with other runtimes. Needs root and mmdebstrap.
 *
 *     npm run matrix                                all of it; writes the tables into docs/compatibility.md
 *     npm run matrix -- --short                     one other release and one other Node, for CI; writes nothing
 *     npm run matrix -- --only 'Debian 13,Node 24'  what has one of these in its name; writes nothing
 *     npm run matrix -- --daemon NAME=DIRECTORY     also a corosync that is there: the root of a system or the prefix of a build
 *     npm run matrix -- --sources DIRECTORY         also upstream's: builds DIRECTORY/libqb and DIRECTORY/corosync first
 *
 * What cannot be had here is skipped, with the cause. Exits with 1 when something that could be tried failed.
 */
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { corosyncUnavailable } from '../support/corosync';
import { buildPeerFor, peerUnavailable } from '../support/peer';
import { ROOT } from '../support/root';
import { conformance, mixed, scenario, scenarioOn, shorten, tapped } from './checks';
import type { Check, Daemon, Runtime } from './checks';
import { RELEASES, Skipped, packageVersion, unpack, type Release } from './releases';
import { RUNTIMES, install, makeProject, type RuntimeSource } from './runtimes';
import { build } from './sources';
import { Table, type Row } from './table';

const PAGE = join(ROOT, 'docs/compatibility.md');
/** In CI: the first of these that can be had. */
const SHORT_RELEASES = ['trixie', 'bullseye'].flatMap((codename) =>
  RELEASES.filter((release) => release.codename === codename),
);
const SHORT_RUNTIME = '24';
/** Programs of other architectures. */
const FOREIGN: Record<string, { emulator: string; compiler: string }> = {
  arm64: { emulator: '/usr/bin/qemu-aarch64-static', compiler: 'aarch64-linux-gnu-gcc' },
};

const daemons = new Table(
  ['from', 'corosync', 'libqb'],
  ['client', 'filesystem sockets', 'mapped', 'socket mode', 'with libcpg', 'tap', 'conformance'],
);
const runtimes = new Table(
  ['runtime'],
  ['client', 'filesystem sockets', 'mapped', 'socket mode', 'embedded server'],
);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      short: { type: 'boolean', default: false },
      only: { type: 'string' },
      daemon: { type: 'string', multiple: true, default: [] },
      sources: { type: 'string' },
    },
  });
  const obstacle = corosyncUnavailable() ?? peerUnavailable();
  if (obstacle !== undefined) throw new Error(obstacle);
  const wanted = (name: string): boolean =>
    values.only === undefined || values.only.split(',').some((word) => name.includes(word));

  mkdirSync(join(ROOT, 'build'), { recursive: true });
  const home = mkdtempSync(join(ROOT, 'build', 'matrix-'));
  process.once('exit', () => rmSync(home, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  // Programs inside the unpacked systems run as other users and need to enter this directory.
  chmodSync(home, 0o755);

  const project = await makeProject(home, ROOT);
  const here: Runtime = { command: process.execPath, args: [], project };
  if (values.short) {
    for (const release of SHORT_RELEASES) if (await tryRelease(release, home, here, true)) break;
  } else {
    for (const release of RELEASES) if (wanted(release.name)) await tryRelease(release, home, here, false);
  }
  for (const given of values.daemon) {
    const [name = '', directory = ''] = given.split('=', 2);
    await tryDaemon(daemons.row(name), { root: resolve(directory) }, undefined, here);
  }
  if (values.sources !== undefined) await trySources(resolve(values.sources), home, here);
  for (const source of RUNTIMES) {
    const name = `${source.name} ${source.version}`;
    if (values.short ? source.version === SHORT_RUNTIME : wanted(name))
      await tryRuntime(source, home, project);
  }
  const text = `### Daemons\n\n${daemons.text()}\n\n### Runtimes\n\n${runtimes.text()}`;
  process.stdout.write(`\n${text}\n`);
  if (!values.short && values.only === undefined) await write(text);
  if (daemons.failed || runtimes.failed) process.exitCode = 1;
}

/** False when the release cannot be had. */
async function tryRelease(release: Release, home: string, here: Runtime, short: boolean): Promise<boolean> {
  const { name, architecture } = release;
  const root = join(home, name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-'));
  const foreign = architecture === undefined ? undefined : FOREIGN[architecture];
  try {
    if (foreign !== undefined && !existsSync(foreign.emulator))
      throw new Skipped(`${foreign.emulator} is not installed`);
    await unpack(release, root);
  } catch (error) {
    skip(daemons.row(name), error);
    return false;
  }
  const versions = ['corosync', 'libqb100'].map((part) => packageVersion(root, part));
  const row = daemons.row(name, true, ...versions);
  const reason = buildPeerFor(root, join(root, 'usr/bin/peer'), foreign?.compiler ?? 'gcc');
  if (reason !== undefined) process.stdout.write(`${name}: no libcpg of its own, because ${reason}\n`);
  const daemon = { root, emulator: foreign?.emulator };
  await tryDaemon(
    row,
    daemon,
    reason === undefined ? '/usr/bin/peer' : undefined,
    here,
    short ? [1] : [1, 3],
  );
  rmSync(root, { recursive: true, force: true });
  return true;
}

async function trySources(directory: string, home: string, here: Runtime): Promise<void> {
  const row = daemons.row('upstream');
  try {
    const { prefix } = await build(directory, home);
    await tryDaemon(row, { root: prefix }, undefined, here);
  } catch (error) {
    skip(row, error);
  }
}

/** Without a `peer` inside its system, the machine's own libcpg takes part. */
async function tryDaemon(
  row: Row,
  daemon: Daemon,
  peer: string | undefined,
  here: Runtime,
  sizes: readonly number[] = [1, 3],
): Promise<void> {
  if (peer === undefined) row.note('with libcpg', 'the libcpg of this machine, not of the release');
  await tryAll(row, {
    ...clientChecks(daemon, here),
    'with libcpg': () => mixed(daemon, peer),
    tap: () => tapped(daemon, [process.execPath, join(ROOT, 'dist/cli/main.js')]),
    conformance: () =>
      conformance(daemon, sizes, (name, difference) => {
        row.note('conformance', `\`${name}\`: ${difference}`);
        row.fail();
      }),
  });
}

async function tryRuntime(source: RuntimeSource, home: string, project: string): Promise<void> {
  const name = `${source.name} ${source.version}`;
  try {
    const runtime = await install(source, home, project);
    await tryAll(runtimes.row(`${source.name} ${runtime.version}`, source.name === 'Node'), {
      ...clientChecks(undefined, runtime),
      'embedded server': () => scenario({ spawn }, runtime, 'embedded', 'default'),
    });
  } catch (error) {
    skip(runtimes.row(name), error);
  }
}

function clientChecks(daemon: Daemon, runtime: Runtime): Record<string, Check> {
  const abstract = { sockets: 'abstract' } as const;
  return {
    client: () => scenarioOn(daemon, runtime, 'false', abstract),
    'filesystem sockets': () => scenarioOn(daemon, runtime, 'false'),
    mapped: () => scenarioOn(daemon, runtime, 'true'),
    'socket mode': () => scenarioOn(daemon, runtime, 'default', { ...abstract, qbIpcType: 'socket' }),
  };
}

async function tryAll(row: Row, checks: Record<string, Check>): Promise<void> {
  for (const [column, check] of Object.entries(checks)) {
    const begin = performance.now();
    let result: string;
    let detail = '';
    try {
      result = await check();
    } catch (error) {
      const skipped = error instanceof Skipped;
      result = skipped ? 'not here' : 'no';
      detail = shorten(error instanceof Error ? error.message : String(error));
      row.note(column, detail);
      if (!skipped) row.fail();
    }
    row.set(column, result);
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    process.stdout.write(`${row.name}, ${column}: ${result} (${seconds} s)${detail && `\n    ${detail}`}\n`);
  }
}

/** It cannot be had here. */
function skip(row: Row, error: unknown): void {
  if (!(error instanceof Skipped)) throw error;
  row.note('skipped', error.message);
  process.stdout.write(`${row.name}: skipped, ${error.message}\n`);
}

const BEGIN = '<!-- npm run matrix: begin -->';
const END = '<!-- npm run matrix: end -->';

/** Between the markers; everything else on the page is written by hand. */
async function write(text: string): Promise<void> {
  const page = readFileSync(PAGE, 'utf8');
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`${PAGE} has no "${BEGIN}" and "${END}"`);
  const { format, resolveConfig } = await import('prettier');
  const options = { ...(await resolveConfig(PAGE)), parser: 'markdown' };
  writeFileSync(PAGE, await format(`${before}${BEGIN}\n\n${text}\n\n${END}${after}`, options));
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
});
