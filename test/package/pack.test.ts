/** The packed tarball, as a user gets it: require, import, types, the command. */
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import manifest from '../../package.json';

jest.setTimeout(120_000);

const run = promisify(execFile);
const root = resolve(__dirname, '../..');

describe('the packed package', () => {
  let project: string;

  beforeAll(async () => {
    project = mkdtempSync(join(tmpdir(), 'corosync-cpg-pack-'));
    await run('npm', ['pack', '--ignore-scripts', '--pack-destination', project], { cwd: root });
    const tarball = readdirSync(project).find((name) => name.endsWith('.tgz'))!;
    await run('tar', ['xzf', tarball], { cwd: project });
    const modules = join(project, 'node_modules');
    mkdirSync(modules);
    cpSync(join(project, 'package'), join(modules, 'corosync-cpg'), { recursive: true });
    // Its dependencies, and what the type check needs, from the checkout: no network.
    for (const name of ['buffer-layout', 'debug', 'ms', '@types/node', 'undici-types']) {
      mkdirSync(dirname(join(modules, name)), { recursive: true });
      symlinkSync(join(root, 'node_modules', name), join(modules, name));
    }
  });
  afterAll(() => rmSync(project, { recursive: true, force: true }));

  const file = (name: string, text: string): string => {
    writeFileSync(join(project, name), text);
    return name;
  };

  test('require and import give the same, for every subpath', async () => {
    const subpaths = Object.keys(manifest.exports).filter((path) => path !== './package.json');
    for (const subpath of subpaths) {
      const name = `corosync-cpg${subpath.slice(1)}`;
      const names =
        'Object.keys(m).filter((k) => k !== "default" && k !== "module.exports" && k !== "__esModule").sort().join()';
      const required = await run('node', ['-e', `const m = require('${name}'); console.log(${names})`], {
        cwd: project,
      });
      const imported = await run(
        'node',
        ['--input-type=module', '-e', `import * as m from '${name}'; console.log(${names})`],
        {
          cwd: project,
        },
      );
      expect(required.stdout.trim()).not.toBe('');
      expect(imported.stdout).toBe(required.stdout);
    }
  });

  test.each([
    ['ES modules', 'types.mts', ''],
    ['CommonJS', 'types.cts', ''],
  ])('the types hold in %s, with library checks on', async (_, name) => {
    file(
      name,
      `import { connect, CpgError, type CpgEvent, type CpgClient } from 'corosync-cpg';
       import { decodeEvent, encodeRequest } from 'corosync-cpg/codec';
       export async function use(): Promise<number> {
         const client: CpgClient = await connect({ address: '@cpg', timeoutMs: 100 });
         client.on('deliver', ({ group, nodeId, pid, message }) => {
           const all: [string | Uint8Array, number, number, Uint8Array] = [group, nodeId, pid, message];
           void all;
         });
         client.on('close', (reason?: CpgError) => reason?.code === 'CS_ERR_LIBRARY');
         await client.join('g', { initialTotemConfchg: true });
         await client.mcast([Buffer.from('x')], { confirm: true, guarantee: 'AGREED' });
         for await (const event of client) {
           const one: CpgEvent = event;
           if (one.type === 'totemConfchg') return one.ringId.seq > 1n ? 1 : 2;
         }
         // @ts-expect-error there is no such event
         client.on('nonsense', () => undefined);
         return encodeRequest({ type: 'localGet' }).length + (decodeEvent(new Uint8Array()).type === 'deliver' ? 1 : 0);
       }`,
    );
    const options = [
      '--noEmit',
      '--strict',
      '--module',
      'node16',
      '--target',
      'es2022',
      '--lib',
      'es2022,esnext.disposable',
    ];
    await run(join(root, 'node_modules/.bin/tsc'), [...options, '--types', 'node', name], { cwd: project });
  });

  test('the types of every subpath are found by the older way of resolving modules, too', async () => {
    file(
      'older.ts',
      `import { connect } from 'corosync-cpg';
       import { decodeEvent } from 'corosync-cpg/codec';
       import { startServer } from 'corosync-cpg/server';
       import * as tap from 'corosync-cpg/tap';
       export const all: [typeof connect, typeof decodeEvent, typeof startServer, object] = [connect, decodeEvent, startServer, tap];`,
    );
    const options = ['--noEmit', '--strict', '--module', 'commonjs', '--moduleResolution', 'node10'];
    const rest = ['--ignoreDeprecations', '6.0', '--target', 'es2022', '--lib', 'es2022,esnext.disposable'];
    await run(join(root, 'node_modules/.bin/tsc'), [...options, ...rest, '--types', 'node', 'older.ts'], {
      cwd: project,
    });
  });

  test('what needs an optional peer that is not there says so', async () => {
    const script = file(
      'mapped.cjs',
      `const { connect } = require('corosync-cpg');
       connect({ mapped: true }).catch(({ code, message }) => console.log(code, message));`,
    );
    const { stdout } = await run('node', [script], { cwd: project });
    expect(stdout).toMatch(/^CS_ERR_NOT_SUPPORTED .*koffi/);
  });

  test('every link of its pages leads to a file that is there, and to a heading of it', () => {
    const root = join(project, 'package');
    const pages = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.md'),
    );
    expect(pages).toContain('README.md');
    const headings = (page: string): string[] =>
      [...readFileSync(page, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
        heading!
          .toLowerCase()
          .replaceAll(/[^\w\- ]/g, '')
          .replaceAll(' ', '-'),
      );
    const broken = pages.flatMap((page) =>
      [...readFileSync(join(root, page), 'utf8').matchAll(/\]\(([^)\s]+)\)/g)]
        .map(([, link]) => link!)
        .filter((link) => {
          if (link.startsWith('https:')) return false;
          const [path, anchor] = link.split('#');
          const target = path === '' ? join(root, page) : join(root, dirname(page), path!);
          return !existsSync(target) || (anchor !== undefined && !headings(target).includes(anchor));
        })
        .map((link) => `${page}: ${link}`),
    );
    expect(broken).toEqual([]);
  });

  test('it has sources, declaration maps and examples, and no results of benchmarks', () => {
    const files = readdirSync(join(project, 'package'), { recursive: true, encoding: 'utf8' });
    expect(files).toEqual(
      expect.arrayContaining(['src/index.ts', 'dist/index.d.ts.map', 'examples/demo/main.mjs', 'LICENSE']),
    );
    expect(files.filter((name) => /results|^test\b|^bench\b|fixtures|scripts/.test(name))).toEqual([]);
    for (const map of files.filter((name) => name.endsWith('.map'))) {
      const path = join(project, 'package', map);
      const { sources } = JSON.parse(readFileSync(path, 'utf8')) as { sources: string[] };
      for (const source of sources) expect(existsSync(join(dirname(path), source))).toBe(true);
    }
    for (const example of files.filter((name) => /^examples\/.*\.(ts|mjs)$/.test(name)))
      expect(readFileSync(join(project, 'package', example), 'utf8')).not.toMatch(/from '.*\.\.\//);
  });

  test('an error is a CpgError whichever way the package came, and is of its own class', async () => {
    const script = file(
      'both.mjs',
      `import { createRequire } from 'node:module';
       import { CpgError } from 'corosync-cpg';
       const required = createRequire(import.meta.url)('corosync-cpg');
       class Own extends CpgError {}
       const [one, other, own] = [new CpgError('CS_ERR_BUSY'), new required.CpgError('CS_ERR_BUSY'), new Own('CS_ERR_BUSY')];
       console.log(CpgError !== required.CpgError, one instanceof required.CpgError, other instanceof CpgError,
         own instanceof Own, own instanceof required.CpgError, one instanceof Own, new Error('x') instanceof CpgError);`,
    );
    const { stdout } = await run('node', [script], { cwd: project });
    expect(stdout.trim()).toBe('true true true true true false false');
  });

  test('nothing in it compiles on install', () => {
    expect(Object.values(manifest.peerDependenciesMeta)).toEqual([{ optional: true }, { optional: true }]);
    expect(Object.keys(manifest.peerDependencies)).toEqual(Object.keys(manifest.peerDependenciesMeta));
    expect(Object.keys(manifest.dependencies).sort()).toEqual(['buffer-layout', 'debug']);
    expect(Object.keys(manifest.scripts)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(pre|post)?install$/)]),
    );
  });
});
