// What other people's tools make of this package: everything begins with the tarball, in projects of its own.
//
//     npm run build && npm run consumers            all of it
//     npm run consumers -- bundles jest             what has one of these words in its name
//
// The tools are no dependencies of the package: they are installed into a temporary directory, in the versions below.
import { execFile } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROGRAMS = join(ROOT, 'test/consumers/programs');

const TOOLS = {
  '@arethetypeswrong/cli': '0.18.5',
  '@rollup/plugin-commonjs': '29.0.3',
  '@rollup/plugin-node-resolve': '16.0.3',
  esbuild: '0.28.2',
  jest: '30.5.2',
  koffi: '3.3.4',
  publint: '0.3.25',
  rollup: '4.68.5',
  vite: '8.3.8',
  vitest: '4.1.12',
  webpack: '5.113.0',
  'webpack-cli': '7.3.1',
};
/** The lowest Node of `engines`. */
const LOWEST_NODE = { [`node-linux-${process.arch}`]: '20.8.0' };

const NODENEXT = { module: 'nodenext' };
const BUNDLER = { module: 'esnext', moduleResolution: 'bundler' };
const COMMONJS = { module: 'commonjs', moduleResolution: 'node' };
/** Each TypeScript with types of Node, and how it looks for modules. docs/compatibility.md names the lowest and newest. */
const TYPESCRIPTS = [
  { typescript: '4.7.4', node: '20.8.0', ways: { NODENEXT, COMMONJS } },
  { typescript: '5.0.4', node: '20.8.0', ways: { NODENEXT, BUNDLER, COMMONJS } },
  { typescript: '5.9.3', node: '20.19.43', ways: { NODENEXT, BUNDLER, COMMONJS } },
  {
    typescript: '7.0.2',
    node: '26.6.6',
    ways: { NODENEXT, BUNDLER, COMMONJS: { module: 'commonjs', moduleResolution: 'bundler' } },
  },
];

const wanted = process.argv.slice(2);
const home = mkdtempSync(join(tmpdir(), 'corosync-cpg-consumers-'));
chmodSync(home, 0o755); // the fresh user works in it
const results = { passed: 0, failed: 0 };

const promisified = promisify(execFile);
/** Runs a command; what it printed. */
async function run(cwd, command, args, options = {}) {
  const env = { ...process.env, ...options.env };
  // Of the npm that runs this script: they would be taken for settings of the new project.
  for (const name of Object.keys(env))
    if (/^npm_(package|lifecycle|config_local_prefix)/.test(name)) delete env[name];
  try {
    const { stdout, stderr } = await promisified(command, args, { cwd, maxBuffer: 1 << 26, ...options, env });
    return stdout + stderr;
  } catch (error) {
    const said = `${error.stdout ?? ''}${error.stderr ?? error.message}`;
    throw new Error(`${command} ${args.join(' ')}\n${said}`, { cause: error });
  }
}
const node = (cwd, args, options) => run(cwd, process.execPath, args, options);
const bin = (project, name, args, options) =>
  run(project, join(project, 'node_modules/.bin', name), args, options);

async function check(name, action) {
  if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) return;
  const started = performance.now();
  try {
    await action();
    results.passed++;
    console.log(`ok      ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    results.failed++;
    console.log(`FAILED  ${name}\n${error.message.replaceAll(/^/gm, '        ')}`);
  }
}

function equal(found, expected) {
  if (found.trim() !== expected) throw new Error(`expected ${expected}\nfound    ${found.trim()}`);
}

/** A project with these packages in it. */
async function makeProject(name, packages, files = {}) {
  const project = join(home, name);
  mkdirSync(project);
  const manifest = { name, private: true, dependencies: { 'corosync-cpg': `file:${tarball}`, ...packages } };
  writeFileSync(join(project, 'package.json'), JSON.stringify(manifest));
  for (const [file, text] of Object.entries(files)) writeFileSync(join(project, file), text);
  await run(project, 'npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error']);
  return project;
}

const SAID = 'true,hello second-join localGet function';
const NO_KOFFI = 'CS_ERR_NOT_SUPPORTED no-koffi';

async function publishing() {
  await check('publint', async () => {
    const said = await bin(tools, 'publint', ['run', tarball, '--strict']);
    if (!said.includes('All good!')) throw new Error(said);
  });
  await check('attw', () => bin(tools, 'attw', [tarball, '--no-emoji']));
}

async function programs() {
  for (const app of ['app.mjs', 'app.cjs'])
    for (const rings of ['files', 'mapped'])
      await check(`${app} on this Node, ${rings}`, async () => equal(await node(tools, [app, rings]), SAID));
  for (const app of ['app.mjs', 'app.cjs'])
    await check(`${app} on the lowest Node`, async () => {
      const project = await lowest();
      const program = join(project, 'node_modules', Object.keys(LOWEST_NODE)[0], 'bin/node');
      equal(await run(project, program, [app]), SAID);
    });
  await check('app.mjs with DEBUG', async () => {
    const said = await node(tools, ['app.mjs'], { env: { DEBUG: 'cpg:session' } });
    if (!said.includes('cpg:session')) throw new Error(said);
  });
}

let lowestProject;
function lowest() {
  lowestProject ??= makeProject('lowest', LOWEST_NODE).then((project) => {
    cpSync(PROGRAMS, project, { recursive: true });
    return project;
  });
  return lowestProject;
}

async function bundles() {
  const away = mkdtempSync(join(tmpdir(), 'corosync-cpg-bundle-'));
  /** Runs it beside koffi, and alone in a directory of its own. */
  const works = async (bundle) => {
    const path = join(tools, bundle);
    for (const rings of ['files', 'mapped']) equal(await node(tools, [path, rings]), SAID);
    const alone = join(away, bundle.replace(/.*\//, ''));
    cpSync(path, alone);
    equal(await node(away, [alone, 'files']), SAID);
    const said = await node(away, [alone, 'mapped']).catch((error) => error.message);
    if (!said.includes(NO_KOFFI)) throw new Error(said);
    const debug = await node(away, [alone], { env: { DEBUG: 'cpg:*' } });
    if (!debug.includes('debug is not installed')) throw new Error(debug);
  };
  try {
    for (const [format, extension] of Object.entries({ esm: 'mjs', cjs: 'cjs' })) {
      await check(`bundles: esbuild, ${format}`, async () => {
        const file = `esbuild.${extension}`;
        const options = ['--bundle', '--platform=node', '--log-level=warning', `--format=${format}`];
        equal(await bin(tools, 'esbuild', ['app.mjs', ...options, `--outfile=${file}`]), '');
        await works(file);
      });
      await check(`bundles: rollup, ${format}`, async () => {
        const file = `rollup.${extension}`;
        const plugins = ['-p', 'node-resolve', '-p', 'commonjs'];
        const options = ['--silent', '--failAfterWarnings', '-e', builtins, '-f', format, '-o', file];
        await bin(tools, 'rollup', ['app.mjs', ...plugins, ...options]);
        await works(file);
      });
      await check(`bundles: vite, ${format}`, async () => {
        const config = `vite-${format}.config.mjs`;
        const output = { format, entryFileNames: `vite.${extension}`, codeSplitting: false };
        const settings = {
          logLevel: 'warn',
          ssr: { noExternal: true },
          build: { ssr: 'app.mjs', outDir: 'vite', emptyOutDir: false, rolldownOptions: { output } },
        };
        writeFileSync(join(tools, config), `export default ${JSON.stringify(settings)}`);
        equal(await bin(tools, 'vite', ['build', '--config', config]), '');
        await works(`vite/vite.${extension}`);
      });
      await check(`bundles: webpack, ${format}`, async () => {
        const config = `webpack-${format}.config.mjs`;
        const settings = {
          mode: 'production',
          target: 'node20',
          entry: './app.mjs',
          externalsType: 'node-commonjs',
          externals: ['koffi', 'debug', 'unix-dgram'],
          experiments: { outputModule: format === 'esm' },
          output: {
            path: join(tools, 'webpack'),
            filename: `webpack.${extension}`,
            module: format === 'esm',
          },
        };
        writeFileSync(join(tools, config), `export default ${JSON.stringify(settings)}`);
        const said = await bin(tools, 'webpack', ['--config', config]);
        if (/warning/i.test(said)) throw new Error(said);
        await works(`webpack/webpack.${extension}`);
      });
    }
    await check('bundles: esbuild, cjs, of require()', async () => {
      const options = ['--bundle', '--platform=node', '--log-level=warning', '--outfile=esbuild-require.cjs'];
      equal(await bin(tools, 'esbuild', ['app.cjs', ...options]), '');
      await works('esbuild-require.cjs');
    });
  } finally {
    rmSync(away, { recursive: true, force: true });
  }
}
const builtins =
  'node:buffer,node:child_process,node:crypto,node:events,node:fs,node:fs/promises,node:module,node:net,node:os,node:path,node:process,node:stream,node:timers,node:timers/promises,node:util,node:worker_threads,util';

async function testRunners() {
  await check('jest', () => bin(tools, 'jest', ['--ci', '--testMatch', '**/jest.spec.cjs']));
  await check('vitest', () => bin(tools, 'vitest', ['run', 'vitest.spec.mjs']));
}

async function types() {
  for (const { typescript, node: nodeTypes, ways } of TYPESCRIPTS) {
    const name = `TypeScript ${typescript}, @types/node ${nodeTypes}`;
    let project;
    for (const [way, resolution] of Object.entries(ways)) {
      await check(`types: ${name}, ${way.toLowerCase()}`, async () => {
        project ??= await makeProject(`typescript-${typescript}`, { typescript, '@types/node': nodeTypes });
        const compilerOptions = {
          ...resolution,
          strict: true,
          skipLibCheck: false,
          noEmit: true,
          target: 'es2022',
          lib: ['es2022'], // and no `types`: from TypeScript 6 on none are there by default
        };
        // A module of each kind where the file decides.
        const files = way === 'NODENEXT' ? ['types.mts', 'types.cts'] : ['types.ts'];
        for (const file of files) cpSync(join(PROGRAMS, 'types.ts'), join(project, file));
        const config = `tsconfig.${way.toLowerCase()}.json`;
        writeFileSync(join(project, config), JSON.stringify({ compilerOptions, files }));
        await bin(project, 'tsc', ['-p', config]);
      });
    }
  }
}

/** Somebody who has never been on this machine: a user without rights, without a cache, without settings of npm. */
async function freshUser() {
  const uid = process.getuid?.() === 0 ? 65_534 : undefined;
  const own = join(home, 'user');
  mkdirSync(own);
  const registry = (await run(ROOT, 'npm', ['config', 'get', 'registry'])).trim();
  const options = {
    ...(uid === undefined ? {} : { uid, gid: uid }),
    env: { HOME: own, npm_config_cache: join(own, 'cache'), npm_config_registry: registry },
  };
  const give = (path) => {
    if (uid === undefined) return;
    chownSync(path, uid, uid);
    for (const { name, parentPath, path: old } of readdirSync(path, { recursive: true, withFileTypes: true }))
      lchownSync(join(parentPath ?? old, name), uid, uid);
  };

  await check('a fresh clone, by a fresh user: npm ci, npm run demo, npx cpg', async () => {
    await run(own, 'git', ['clone', '--quiet', ROOT, 'clone']);
    give(own);
    const clone = join(own, 'clone');
    const installed = await run(clone, 'npm', ['ci'], options);
    if (/warn|deprecated/i.test(installed)) throw new Error(installed);
    await run(clone, 'npm', ['run', 'demo'], options);
    await run(clone, 'npx', ['--no-install', 'cpg', '--help'], options);
  });

  await check(
    'a fresh project, by a fresh user: npm install, import, require, npx cpg, examples',
    async () => {
      const project = join(own, 'project');
      mkdirSync(project);
      cpSync(PROGRAMS, project, { recursive: true });
      cpSync(tarball, join(project, 'package.tgz'));
      give(own);
      await run(project, 'npm', ['init', '-y'], options);
      const installed = await run(project, 'npm', ['install', './package.tgz'], options);
      // npm takes `prepare` of a file for a script that it would run on install; of a registry's packages it does not.
      if (/warn(?! install-scripts)|deprecated/i.test(installed)) throw new Error(installed);
      for (const app of ['app.mjs', 'app.cjs']) equal(await node(project, [app], options), SAID);
      await run(project, 'npx', ['--no-install', 'cpg', '--version'], options);
      const demo = await node(project, ['node_modules/corosync-cpg/examples/demo/main.mjs'], options);
      if (!demo.includes('All three saw the same order.')) throw new Error(demo);
    },
  );
}

async function withTools() {
  tools = await makeProject('tools', TOOLS);
  cpSync(PROGRAMS, tools, { recursive: true });
  await publishing();
  await programs();
  await bundles();
  await testRunners();
}

let tarball;
let tools;
try {
  await run(ROOT, 'npm', ['pack', '--ignore-scripts', '--pack-destination', home]);
  tarball = join(
    home,
    readdirSync(home).find((name) => name.endsWith('.tgz')),
  );
  // Side by side: most of it waits for the registry or for one thread.
  await Promise.all([withTools(), types(), freshUser()]);
} finally {
  rmSync(home, { recursive: true, force: true });
}
console.log(`${results.passed} passed, ${results.failed} failed`);
if (results.failed > 0) process.exitCode = 1;
