/** What the file system refuses comes out as CpgError, at the call that needed it. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { builtCli } from '../cli/harness';

const USER = 65_534;
const CAN_MOUNT = spawnSync('unshare', ['-m', 'true']).status === 0;
const asRoot = CAN_MOUNT ? test : test.skip;

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-test-'));
  chmodSync(directory, 0o755);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Options {
  env?: NodeJS.ProcessEnv;
  /** Before the program, in a mount namespace of its own. */
  mount?: string;
  cwd?: string;
}

/** Runs `body` in a process of its own; it prints what show() is given. */
function run(body: string, { env, mount = '', cwd = '/' }: Options = {}): string[] {
  const program = `
    const fs = require('node:fs');
    const { connect, CpgError } = require(${JSON.stringify(resolve(builtCli(), '../../index'))});
    const { startServer, SimulatedCluster } = require(${JSON.stringify(resolve(builtCli(), '../../server'))});
    const show = (what) => fs.writeSync(1, what + '\\n');
    const failure = (error) => {
      const { code, cause, message } = error;
      return error instanceof CpgError ? code + ' ' + (cause?.code ?? '-') + ' | ' + message : 'RAW ' + error.stack;
    };
    const outcome = (work) => work.then(() => 'no error', failure);
    (async () => { ${body} })().catch((error) => show('uncaught: ' + error.stack));`;
  const node = [process.execPath, '-e', program] as const;
  const options = { encoding: 'utf8', env: { ...process.env, ...env }, cwd, timeout: 30_000 } as const;
  const ended =
    mount === ''
      ? spawnSync(node[0], node.slice(1), options)
      : spawnSync('unshare', ['-m', 'sh', '-ec', `${mount}; exec "$0" "$@"`, ...node], options);
  expect(ended.stderr).toBe('');
  return ended.stdout.trimEnd().split('\n');
}

const START = `
  show(await outcome(startServer().then((server) => server.close())));
  show(await outcome(SimulatedCluster.start({ nodes: 3 }).then((cluster) => cluster.stop())));`;

describe('starting a server', () => {
  test.each([
    ['is not there', () => join(directory, 'missing'), 'CS_ERR_LIBRARY ENOENT'],
    ['is a file', () => join(directory, 'file'), 'CS_ERR_LIBRARY ENOTDIR'],
  ])('where TMPDIR %s', (_, path, expected) => {
    writeFileSync(join(directory, 'file'), '');
    for (const line of run(START, { env: { TMPDIR: path() } })) {
      expect(line).toContain(expected);
      expect(line).toContain(path());
      expect(line).toContain('set TMPDIR to a directory you may write to');
    }
  });

  asRoot.each([
    ['mounted read-only', 'mount -t tmpfs -o ro none "$TMPDIR"', '', 'CS_ERR_ACCESS EROFS'],
    ['not for this user', 'true', `process.setuid(${USER});`, 'CS_ERR_ACCESS EACCES'],
    ['full', 'mount -t tmpfs -o nr_inodes=1 none "$TMPDIR"', '', 'CS_ERR_NO_SPACE ENOSPC'],
  ])('where TMPDIR is %s', (_, mount, before, expected) => {
    for (const line of run(before + START, { env: { TMPDIR: directory }, mount })) {
      expect(line).toContain(expected);
    }
  });

  test('where TMPDIR is relative', () => {
    mkdirSync(join(directory, 'here'));
    const program =
      'const server = await startServer(); await (await server.connect()).close(); await server.close();';
    expect(run(`${program} show('works');`, { env: { TMPDIR: 'here' }, cwd: directory })).toEqual(['works']);
  });

  const listening = (path: string): string =>
    `show(await outcome(startServer({ address: ${JSON.stringify(path)} })));`;

  test.each([
    ['in a directory that is not there', () => join(directory, 'missing', 'cpg'), 'CS_ERR_LIBRARY ENOENT'],
    ['in a file', () => join(directory, 'file', 'cpg'), 'CS_ERR_LIBRARY ENOTDIR'],
    ['where a file is', () => join(directory, 'file'), 'CS_ERR_EXIST EADDRINUSE'],
    ['where a directory is', () => join(directory, 'directory'), 'CS_ERR_EXIST EADDRINUSE'],
  ])('at an address %s', (_, path, expected) => {
    writeFileSync(join(directory, 'file'), '');
    mkdirSync(join(directory, 'directory'));
    const [line] = run(listening(path()));
    expect(line).toContain(expected);
    expect(line).toContain(`cannot listen at ${path()}`);
  });

  asRoot('at an address that this user may not use', () => {
    const before = `process.setuid(${USER});`;
    expect(run(before + listening(join(directory, 'cpg')))[0]).toContain('CS_ERR_ACCESS EACCES');
    mkdirSync(join(directory, 'shut'), { mode: 0o700 });
    expect(run(before + listening(join(directory, 'shut', 'cpg')))[0]).toContain('CS_ERR_ACCESS EACCES');
    const mount = `mount -t tmpfs -o ro none ${directory}`;
    expect(run(listening(join(directory, 'cpg')), { mount })[0]).toContain('CS_ERR_ACCESS EROFS');
  });

  asRoot('at the socket of a dead server in a directory that this user may not change', () => {
    const address = join(directory, 'cpg');
    run(
      `require('node:net').createServer().listen(${JSON.stringify(address)}, () => process.kill(process.pid, 'SIGKILL'));`,
    );
    expect(existsSync(address)).toBe(true);
    chmodSync(address, 0o777);
    expect(run(`process.setuid(${USER});${listening(address)}`)[0]).toContain('CS_ERR_ACCESS EACCES');
  });
});

describe('a server whose TMPDIR fails later', () => {
  const OVER_SHM = 'mount -t tmpfs -o ro none /dev/shm; mount -t tmpfs none "$TMPDIR"';
  const changed = (command: string): string => `
    const server = await startServer();
    require('node:child_process').execFileSync('sh', ['-c', ${JSON.stringify(command)}]);
    show(await outcome(server.connect()));
    await server.close();
    show('closed');`;

  asRoot.each([
    ['read-only', 'mount -o remount,ro "$TMPDIR"', /^CS_ERR_ACCESS .*cannot write where it makes its rings/],
    [
      'full',
      'head -c 1G /dev/zero > "$TMPDIR/filler" 2>/dev/null || true',
      /^CS_ERR_NO_SPACE .*make it larger/,
    ],
  ])('because it is %s refuses with the reason, and closes', (_, command, expected) => {
    const mount = OVER_SHM.replace('none "$TMPDIR"', '-o size=4m none "$TMPDIR"');
    const [refusal, closed] = run(changed(command), { env: { TMPDIR: directory }, mount });
    expect(refusal).toMatch(expected);
    expect(closed).toBe('closed');
  });
});

describe('a full file system', () => {
  const FILL = `try { for (let n = 0; ; n++) fs.writeFileSync(process.env.TMPDIR + '/filler' + n, Buffer.alloc(4096)); } catch {}`;
  const mount = 'mount -t tmpfs -o ro none /dev/shm; mount -t tmpfs -o size=8m none "$TMPDIR"';
  const sending = (bytes: number, send: string): string => `
    const server = await startServer();
    const client = await server.connect();
    const closed = new Promise((resolve) => client.once('close', resolve));
    await client.join('g');
    await client.mcast('fits', { confirm: true });
    ${FILL}
    const message = Buffer.alloc(${bytes});
    show(await outcome((async () => { for (;;) { ${send} } })()));
    show(failure(await closed));
    show(await outcome(client.mcast('more')));
    await server.close();`;

  asRoot.each([
    ['mcast', 900_000, 'await client.mcast(message);'],
    ['mcast in fragments', 3_000_000, 'await client.mcast(message);'],
    ['mcast with confirm', 900_000, 'await client.mcast(message, { confirm: true });'],
    ['mcast of alloc()', 900_000, 'await client.mcast(client.alloc(900_000));'],
    ['small mcast', 100, 'await client.mcast(message);'],
    ['tryMcast', 900_000, `client.tryMcast(message);`],
  ])('%s itself fails with CS_ERR_NO_SPACE', (_, bytes, send) => {
    const [failed, closed, later] = run(sending(bytes, send), { env: { TMPDIR: directory }, mount });
    expect(failed).toMatch(/^CS_ERR_NO_SPACE .*make room/);
    expect(closed).toBe(failed);
    expect(later).toMatch(/^CS_ERR_BAD_HANDLE/);
  });

  asRoot('holds events back until there is room again', () => {
    const body = `
      const server = await startServer();
      const client = await server.connect({ timeoutMs: 20_000 });
      await client.join('g');
      // Until the next event needs a page that is not there.
      ${FILL}
      let sent = 0;
      let delivered = 0;
      const all = new Promise((resolve) => client.on('deliver', () => ++delivered === sent && resolve()));
      for (; sent < 15; sent++) await client.mcast(Buffer.alloc(100));
      for (const name of fs.readdirSync(process.env.TMPDIR)) if (name.startsWith('filler')) fs.rmSync(process.env.TMPDIR + '/' + name);
      if (delivered < sent) { show('some wait'); await all; }
      await client.mcast('all', { confirm: true });
      show(delivered);
      await server.close();`;
    expect(run(body, { env: { TMPDIR: directory }, mount })).toEqual(['some wait', '16']);
  });
});
