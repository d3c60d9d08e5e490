/**
 * The table of causes: each situation is made for real, with a private corosync, namespaces, mounts, limits and users, or
 * where no corosync does it, with a peer that says what such a daemon would say.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { connect } from '../../src';
import { encodeHandshakeResponse, type HandshakeResponse } from '../../src/codec';
import { CAUSES, type Cause } from '../../src/transport/causes';
import { startCorosync, type CorosyncCluster, type CorosyncNode } from '../support/corosync';
import { rejectionOf } from '../support/errors';
import { FakeDaemon } from '../support/fake-daemon';
import { loadForeign } from '../support/fixtures';
import { describeWithCorosync } from '../support/suites';
import { builtCli, CliProcess, eventually } from './harness';

jest.setTimeout(90_000);

const NOBODY = 65534;
const AS_NOBODY = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--'];
const ALONE = ['unshare', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

/** With the command and what it needs. */
const MODULES = resolve(__dirname, '..', '..', 'node_modules');

/** Causes that a test below makes. */
const made = new Set<Cause>();

interface Told {
  cause: string;
  findings: string;
  /** The line of the command: what happened, the code, what to do. */
  line: string;
}

interface Where {
  /** Words before the command. */
  inside?: string[];
  /** Shell commands, in a mount namespace of its own, before that. */
  after?: string;
  args?: string[];
  env?: NodeJS.ProcessEnv;
  nodeFlags?: string[];
  node?: Pick<CorosyncNode, 'spawn'>;
}

/** Runs `cpg info`, which must fail, and returns what it says. */
async function info({ inside = [], after, args = [], env = {}, nodeFlags = [], node }: Where): Promise<Told> {
  const command = [
    ...inside,
    process.execPath,
    ...nodeFlags,
    realpathSync(builtCli()),
    'info',
    '--json',
    '--timeout',
    '2',
    ...args,
  ];
  const whole =
    after === undefined
      ? command
      : ['unshare', '--mount', 'sh', '-ec', `${after}\nexec "$@"`, 'sh', ...command];
  const [first = '', ...rest] = whole;
  const options = { env: { ...process.env, CPG_ADDRESS: '', ...env }, stdio: 'pipe' as const };
  const child = node === undefined ? spawn(first, rest, options) : node.spawn(first, rest, options);
  const { code, stdout, stderr } = await new CliProcess(child).done();
  if (code !== 1 || stdout === '') throw new Error(`exit ${code}: ${stdout}${stderr}`);
  const { cause, findings } = JSON.parse(stdout) as { cause: Cause; findings: string[] };
  made.add(cause);
  expect(stderr).toMatch(/^cpg: .+: CS_ERR_\w+ \(\d+\): .+\n$/m);
  if (process.env['CPG_SHOW_CAUSES'] !== undefined)
    process.stdout.write(`### ${expect.getState().currentTestName}\n${stderr}\n`);
  const line = stderr.trimEnd().split('\n').at(-1) ?? '';
  expect(stderr).toBe(`${[...findings, line].join('\n')}\n`);
  return { cause, findings: findings.join('\n'), line };
}

let directory: string;
beforeAll(() => {
  builtCli();
  directory = mkdtempSync(join(tmpdir(), 'causes-'));
  chmodSync(directory, 0o755);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describeWithCorosync('on a corosync with filesystem sockets', () => {
  let cluster: CorosyncCluster;
  let node: CorosyncNode;
  let at: string[];
  beforeAll(async () => {
    cluster = await startCorosync();
    node = cluster.nodes[0]!;
    at = ['--address', node.address];
  });
  afterAll(() => cluster.stop());

  test('not this user: the uid that the daemon sees is the one to allow', async () => {
    const { cause, line } = await info({ inside: AS_NOBODY, args: at });
    expect(cause).toBe('permission');
    expect(line).toMatch(/uid 65534 gid 65534: CS_ERR_ACCESS.*uidgid \{ uid: 65534 \}/);
  });

  test('not this user, as root of a user namespace: the outer uid is the one to allow', async () => {
    const root = ['unshare', '--user', '--map-root-user', '--'];
    const { cause, line } = await info({ inside: [...AS_NOBODY, ...root], args: at });
    expect(cause).toBe('permission');
    expect(line).toMatch(/uid 0 gid 0, outside of this user namespace uid 65534 gid 65534/);
    expect(line).toMatch(/on the machine of the daemon.*uidgid \{ uid: 65534 \}.*uid-65534 /);
    expect(line).not.toMatch(/uid: 0/);
  });

  test('not the real user, whatever the effective one', async () => {
    const { cause, line } = await info({
      inside: ['setpriv', '--ruid=65534', '--rgid=65534', '--clear-groups', '--'],
      args: at,
    });
    expect(cause).toBe('permission');
    expect(line).toMatch(/uid 65534 gid 65534, effective uid 0 gid 0.*uidgid \{ uid: 65534 \}/);
  });

  test('the real user is let in, the effective one cannot open its rings', async () => {
    const { cause, line } = await info({ inside: ['setpriv', '--euid=65534', '--'], args: at });
    expect(cause).toBe('effective-user');
    expect(line).toMatch(
      /\(EACCES\): CS_ERR_ACCESS.*real user \(uid 0\) and the effective user \(uid 65534\)/,
    );
  });

  test.each([
    ['the socket', 'socket-permission', (path: string) => path],
    ['its directory', 'socket-permission', (path: string) => path.replace(/\/cpg$/, '')],
  ])('%s is closed to this user', async (_, expected, closed) => {
    const path = closed(node.address);
    chmodSync(path, 0o700);
    try {
      const { cause, line } = await info({ inside: AS_NOBODY, args: at });
      expect(cause).toBe(expected);
      expect(line).toContain(`${path} (mode 700, of uid 0 gid 0)`);
      expect(line).toContain(`: open ${path} to this user`);
      expect(line).not.toContain('uidgid');
    } finally {
      chmodSync(path, path === node.address ? 0o777 : 0o755);
    }
  });

  test('a /dev/shm of our own', async () => {
    const { cause, findings, line } = await info({ after: 'mount -t tmpfs tmpfs /dev/shm', args: at });
    expect(cause).toBe('shm-not-shared');
    expect(findings).toContain(`The /dev/shm of pid ${node.pid} is another than that of this process.`);
    expect(line).toMatch(/\(ENOENT\): CS_ERR_LIBRARY.*--ipc=host/);
  });

  test('no /dev/shm at all', async () => {
    const after = 'mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3';
    const { cause, findings } = await info({ after, args: at });
    expect(cause).toBe('shm-not-shared');
    expect(findings).toContain('There is no /dev/shm here.');
  });

  test('a /dev/shm that is mounted read-only', async () => {
    const after = 'mount --bind /dev/shm /dev/shm; mount -o remount,bind,ro /dev/shm';
    const { cause, line } = await info({ after, args: at });
    expect(cause).toBe('shm-read-only');
    expect(line).toMatch(/\(EROFS\): CS_ERR_ACCESS.*mount \/dev\/shm writable/);
    expect(line).not.toMatch(/ipc=host/);
  });

  test('the daemon may not write to its /dev/shm, which is no matter of who we are', async () => {
    await node.run('mount', ['-t', 'tmpfs', '-o', 'ro', 'tmpfs', '/dev/shm']);
    try {
      const { cause, line } = await info({ node });
      expect(cause).toBe('daemon-cannot-write');
      expect(line).toMatch(/EROFS\): CS_ERR_ACCESS/);
      expect(line).not.toContain('uidgid');
    } finally {
      await node.run('umount', ['/dev/shm']);
    }
  });

  test("Node's permission model", async () => {
    const flag = process.allowedNodeEnvironmentFlags.has('--permission')
      ? '--permission'
      : '--experimental-permission';
    const nodeFlags = [flag, '--no-warnings', `--allow-fs-read=${realpathSync(MODULES)}`];
    const { cause, line } = await info({ nodeFlags, args: at });
    expect(cause).toBe('node-permission');
    expect(line).toMatch(/--allow-fs-write=\/dev\/shm/);
  });

  test('too few file descriptors, here', async () => {
    const seen = new Set<string>();
    for (let limit = 16; limit < 40; limit++) {
      const command = ['prlimit', `--nofile=${limit}`, process.execPath, builtCli(), 'info', '--json', ...at];
      const child = spawn(command[0]!, command.slice(1), { stdio: 'pipe' });
      const { code, stdout, stderr } = await new CliProcess(child).done();
      if (code === 0) break;
      if (stdout === '') continue;
      expect(JSON.parse(stdout)).toMatchObject({ cause: 'too-many-files' });
      expect(stderr).toMatch(/\(EMFILE\): CS_ERR_NO_RESOURCES.*ulimit -n/);
      seen.add(stderr.includes('cannot connect') ? 'socket' : 'rings');
    }
    made.add('too-many-files');
    expect(seen).toContain('rings');
  });

  test('the address of the environment is wrong', async () => {
    const { cause, findings, line } = await info({ node, env: { CPG_ADDRESS: '/nowhere/cpg' } });
    expect(cause).toBe('other-address');
    expect(findings).toContain('The address /nowhere/cpg comes from CPG_ADDRESS.');
    expect(line).toMatch(/--address \/(run|tmp)\/cpg/);
  });

  test('the daemon listens at a file, and here nothing says so', async () => {
    const { cause, findings, line } = await info({ node, after: 'mount -t tmpfs tmpfs /etc/libqb' });
    expect(cause).toBe('other-address');
    expect(findings).toMatch(/^Tried \/(run|tmp)\/cpg: a daemon answers\.$/m);
    expect(line).toMatch(/cannot connect to @cpg \(ECONNREFUSED\).*--address \/(run|tmp)\/cpg/);
  });

  test('another network namespace, where the socket file is mounted', async () => {
    const after = 'mount -t tmpfs tmpfs /etc/libqb';
    const { cause, line } = await info({ node, inside: ['unshare', '--net', '--'], after });
    expect(cause).toBe('other-address');
    expect(line).toMatch(/--address \/(run|tmp)\/cpg/);
  });

  test('the socket file is out of sight, which the daemon says where it is', async () => {
    const { cause, findings } = await info({ inside: ['unshare', '--net', '--'] });
    expect(['socket-not-mounted', 'network-namespace']).toContain(cause);
    expect(findings).toMatch(
      new RegExp(
        `^corosync runs for \\d+ s as pid ${node.pid}, in another network namespace, and listens at /\\S+/cpg\\.$`,
        'm',
      ),
    );
    made.add('socket-not-mounted');
  });

  test('a daemon that is stopped', async () => {
    node.pause();
    try {
      const { cause, findings, line } = await info({ args: at });
      expect(cause).toBe('not-answering');
      expect(findings).toContain(`Pid ${node.pid} (corosync) listens there, in state T (stopped).`);
      expect(line).toMatch(new RegExp(`CS_ERR_TIMEOUT.*kill -CONT ${node.pid}`));
    } finally {
      node.resume();
    }
  });

  test('a daemon that was killed', async () => {
    await node.kill();
    try {
      const { cause, findings, line } = await info({ inside: ALONE, args: at });
      expect(findings).toContain(
        `There is a socket ${node.address}, and nobody listens behind it: its daemon has ended.`,
      );
      expect(cause).toBe('not-running');
      expect(line).toContain('systemctl start corosync');
    } finally {
      await node.start();
    }
  });
});

describeWithCorosync('on a corosync with abstract sockets', () => {
  let cluster: CorosyncCluster;
  let node: CorosyncNode;
  beforeAll(async () => {
    cluster = await startCorosync({ sockets: 'abstract' });
    node = cluster.nodes[0]!;
  });
  afterAll(() => cluster.stop());

  test('another network namespace', async () => {
    const { cause, findings, line } = await info({ inside: ['unshare', '--net', '--'] });
    expect(cause).toBe('network-namespace');
    expect(findings).toMatch(
      new RegExp(`as pid ${node.pid}, in another network namespace, and listens at @cpg\\.$`, 'm'),
    );
    expect(line).toMatch(/nsenter --target \d+ --net/);
  });

  test('force-filesystem-sockets on our side alone', async () => {
    const after = `
      mkdir -p ${directory}/layer; mount -t tmpfs tmpfs ${directory}/layer; mkdir ${directory}/layer/upper ${directory}/layer/work
      mount -t overlay overlay -o lowerdir=/etc,upperdir=${directory}/layer/upper,workdir=${directory}/layer/work /etc
      mkdir -p /etc/libqb; : > /etc/libqb/force-filesystem-sockets`;
    const { cause, findings, line } = await info({ node: inDirectory(node), after });
    expect(cause).toBe('forced-sockets');
    expect(findings).toContain('Tried @cpg: a daemon answers.');
    expect(line).toMatch(
      /@cpg, which is \/run\/cpg as .* exists \(ENOENT\).*remove \/etc\/libqb\/force-filesystem-sockets/,
    );
    expect(line).not.toMatch(/wait until|systemctl/);
  });

  test('another name', async () => {
    const { cause, line } = await info({ node, args: ['--address', '@nobody'] });
    expect(cause).toBe('other-address');
    expect(line).toContain('--address @cpg');
  });
});

/** The directory of this test is below /tmp, which a node replaces. */
function inDirectory(node: CorosyncNode): Pick<CorosyncNode, 'spawn'> {
  return {
    spawn: (command, args, options) => {
      const [mount = '', sh = '', flags = '', script = '', ...others] = args ?? [];
      return node.spawn(command, [mount, sh, flags, `mkdir -p ${directory}\n${script}`, ...others], options);
    },
  };
}

describeWithCorosync('on a corosync with a /dev/shm that can be spoilt', () => {
  let cluster: CorosyncCluster;
  let node: CorosyncNode;
  const inNode = (script: string): Promise<unknown> => node.run('sh', ['-ec', script]);
  beforeAll(async () => {
    cluster = await startCorosync({ contained: true, uidgid: { uid: NOBODY } });
    node = cluster.nodes[0]!;
  });
  afterAll(() => cluster.stop());

  test('it is full', async () => {
    await inNode('mount -o remount,size=$(( $(df -k --output=used /dev/shm | tail -1) + 1000 ))k /dev/shm');
    try {
      const { cause, findings, line } = await info({ node });
      expect(cause).toBe('shm-too-small');
      expect(findings).toMatch(/\/dev\/shm .* has 1\.0 MB free of/);
      expect(line).toMatch(/ENOSPC\): CS_ERR_NO_SPACE.*--shm-size/);
    } finally {
      await inNode('mount -o remount,size=1g /dev/shm');
    }
  });

  test('it has bytes but no files left', async () => {
    await inNode('mount -o remount,nr_inodes=$(( $(df -i --output=iused /dev/shm | tail -1) + 3 )) /dev/shm');
    try {
      const { cause, findings, line } = await info({ node });
      expect(cause).toBe('shm-too-small');
      expect(findings).toMatch(/MB free of .* and [0-6] files free of/);
      expect(line).toContain('nr_inodes');
    } finally {
      await inNode('mount -o remount,nr_inodes=100000 /dev/shm');
    }
  });

  test('it is immutable to the daemon: EPERM for root', async () => {
    await inNode('chattr +i /dev/shm');
    try {
      const { cause, line } = await info({ node });
      expect(cause).toBe('daemon-cannot-write');
      expect(line).toMatch(/EPERM\): CS_ERR_ACCESS/);
      expect(line).not.toContain('uidgid');
    } finally {
      await inNode('chattr -i /dev/shm');
    }
  });

  test('we may not enter it', async () => {
    await inNode('chmod 700 /dev/shm');
    try {
      const { cause, line } = await info({ node, inside: AS_NOBODY });
      expect(cause).toBe('shm-permission');
      expect(line).toMatch(/\(EACCES\).*let this user into \/dev\/shm/);
    } finally {
      await inNode('chmod 1777 /dev/shm');
    }
  });
});

describeWithCorosync('on a corosync with qb_ipc_type: socket', () => {
  test('it says so', async () => {
    await using cluster = await startCorosync({ qbIpcType: 'socket' });
    const koffi = dirname(require.resolve('koffi/package.json'));
    const { cause, line } = await info({
      args: ['--address', cluster.nodes[0]!.address],
      after: `mount -t tmpfs none ${koffi}`,
    });
    expect(cause).toBe('ipc-type-socket');
    expect(line).toMatch(/CS_ERR_NOT_SUPPORTED \(19\): npm install koffi .*set "qb_ipc_type: native"/);
  });
});

describeWithCorosync('without a daemon', () => {
  test('none runs', async () => {
    const { cause, line } = await info({ inside: ALONE, after: 'mount -t tmpfs tmpfs /dev/shm' });
    expect(cause).toBe('not-running');
    expect(line).toContain('systemctl start corosync');
  });

  test('rings in /dev/shm are of a daemon outside, or were left', async () => {
    const after = 'mount -t tmpfs tmpfs /dev/shm; mkdir /dev/shm/qb-4711-1-1-AbCdEf';
    const { cause, findings, line } = await info({ inside: ALONE, after });
    expect(cause).toBe('unknown');
    expect(findings).toContain('it runs outside of this container, or has crashed');
    expect(line).toContain('--network=host');
  });

  test('processes cannot be seen, so it is not said that none runs', async () => {
    const hide = 'mount -t proc -o hidepid=2 proc /proc';
    const { cause, findings } = await info({
      inside: [...ALONE, 'sh', '-ec', `${hide}; "$@"; exit $?`, 'sh', ...AS_NOBODY],
    });
    expect(cause).toBe('unknown');
    expect(findings).toContain('Processes of others cannot be seen here');
  });

  test('a process named corosync that does not listen', async () => {
    const program = join(directory, 'corosync');
    copyFileSync('/bin/sleep', program);
    const script = `${program} 60 & "$@"; code=$?; kill %1 2>/dev/null || kill $!; exit $code`;
    const inside = [...ALONE, 'bash', '-c', script, 'bash'];
    const { cause, findings } = await info({ inside, after: 'mount -t tmpfs tmpfs /dev/shm' });
    expect(cause).toBe('starting');
    expect(findings).toMatch(/^corosync runs for \d+ s as pid \d+, in our network namespace\.$/m);
  });
});

describe('what no corosync does', () => {
  let server: Server | undefined;
  let fake: FakeDaemon | undefined;
  const others: ChildProcess[] = [];
  afterEach(async () => {
    // They remove their rings.
    for (const child of others.splice(0)) {
      child.kill('SIGTERM');
      await once(child, 'close');
    }
    await fake?.stop();
    await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
    server = fake = undefined;
  });

  async function serving(onSocket: (socket: Socket) => void): Promise<string[]> {
    const path = join(mkdtempSync(join(directory, 's-')), 'cpg');
    server = createServer((socket) => {
      socket.on('error', () => undefined);
      onSocket(socket);
    });
    await new Promise<void>((resolve) => server!.listen(path, resolve));
    return ['--address', path];
  }
  const answering = (bytes: Buffer): Promise<string[]> =>
    serving((socket) => socket.once('data', () => socket.end(bytes)).resume());
  const refusing = (error: number): Promise<string[]> => {
    const nothing = {
      connectionType: 0,
      maxMessageSize: 0,
      connection: 0n,
      request: '',
      response: '',
      event: '',
    };
    return answering(encodeHandshakeResponse({ error, ...nothing }));
  };
  const naming = async (change: (answer: HandshakeResponse) => HandshakeResponse): Promise<string[]> => {
    fake = await FakeDaemon.start({ answer: change });
    return ['--address', fake.address];
  };

  test('something that does not answer', async () => {
    const { cause, findings } = await info({ args: await serving((socket) => socket.resume()) });
    expect(cause).toBe('not-answering');
    expect(findings).toContain(`Pid ${process.pid} (`);
  });

  test('something that hangs up', async () => {
    const { cause, line } = await info({ args: await serving((socket) => socket.destroy()) });
    expect(cause).toBe('hung-up');
    expect(line).toContain('closed the connection after 0 bytes');
  });

  test('something else', async () => {
    const { cause, findings } = await info({
      args: await answering(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')),
    });
    expect(cause).toBe('not-corosync');
    expect(findings).toContain(`Pid ${process.pid} (`);
  });

  test.each([
    ['a file', (path: string): void => writeFileSync(path, '')],
    ['a directory', (path: string): void => mkdirSync(path)],
  ])('%s instead of a socket', async (what, make) => {
    const path = join(mkdtempSync(join(directory, 's-')), 'cpg');
    make(path);
    const { cause, findings } = await info({
      inside: process.getuid?.() === 0 ? ALONE : [],
      args: ['--address', path],
    });
    expect(cause).toBe('not-a-socket');
    expect(findings).toContain(`${path} is ${what}, not a socket.`);
  });

  test.each([
    [-11, 'starting', /./],
    [-12, 'daemon-out-of-memory', /CS_ERR_NO_MEMORY/],
    [-24, 'daemon-too-many-files', /CS_ERR_NO_RESOURCES/],
    [-38, 'no-service', /CS_ERR_NOT_SUPPORTED.*log of the daemon/],
    [-5, 'unknown', /CS_ERR_LIBRARY.*log of the daemon/],
  ])('a refusal with errno %d is %s', async (error, expected, text) => {
    const { cause, findings, line } = await info({ args: await refusing(error) });
    expect(cause).toBe(expected);
    expect(line).toMatch(text);
    if (cause === 'unknown') expect(findings).toMatch(/Namespaces of this process: user:\[\d+\]/);
  });

  const foreign = loadForeign();
  test.each([
    ['32-bit', foreign['little-32'].accepted, '32-bit'],
    ['32-bit, with datagrams', foreign['little-32'].datagrams, '32-bit'],
    ['big-endian', foreign['big-64'].accepted, 'byte-order'],
    ['big-endian, with datagrams', foreign['big-64'].datagrams, 'byte-order'],
    ['big-endian, which refuses', foreign['big-64'].refused, 'byte-order'],
    ['big-endian and 32-bit', foreign['big-32'].accepted, 'byte-order'],
  ])('a daemon that is %s', async (_, answer, expected) => {
    const args = await answering(answer);
    const { cause, line } = await info({ args });
    expect(cause).toBe(expected);
    expect(line).toMatch(/CS_ERR_NOT_SUPPORTED/);
    const error = await rejectionOf(connect({ address: args[1]! }));
    expect(error).toMatchObject({ code: 'CS_ERR_NOT_SUPPORTED', reason: expected });
  });

  test('a libqb before 1.0.4', async () => {
    const names = { request: 'cpg-request-1-2-3', response: 'cpg-response-1-2-3', event: 'cpg-event-1-2-3' };
    const { cause } = await info({ args: await naming((answer) => ({ ...answer, ...names })) });
    expect(cause).toBe('old-libqb');
  });

  test.each([
    [100, 'ring-layout'],
    [8236, '32-bit'],
  ])('rings whose header has %d bytes', async (size, expected) => {
    fake = await FakeDaemon.start({
      answer: (answer) => {
        truncateSync(`${answer.request}-header`, size);
        return answer;
      },
    });
    const { cause, line } = await info({ args: ['--address', fake.address] });
    expect(cause).toBe(expected);
    expect(line).toMatch(/has \d+ bytes, not 8252: CS_ERR_NOT_SUPPORTED/);
  });

  test('rings of another user', async () => {
    const path = join(mkdtempSync(join(directory, 's-')), 'cpg');
    chmodSync(join(path, '..'), 0o777);
    const child = spawn(
      AS_NOBODY[0]!,
      [...AS_NOBODY.slice(1), process.execPath, builtCli(), 'serve', '--address', path],
      {
        stdio: 'pipe',
      },
    );
    others.push(child);
    const serve = new CliProcess(child);
    await eventually('it to listen', () => serve.stdout.includes(path));
    const { cause, line } = await info({ args: ['--address', path] });
    expect(cause).toBe('other-owner');
    expect(line).toMatch(/belongs to uid 65534: CS_ERR_SECURITY.*run as its user \(uid 65534\)/);
  });
});

/** Those that need another Node, or a limit of the whole machine. */
const ELSEWHERE: Cause[] = ['old-node', 'machine-too-many-files'];

test('each row of the table is made above, or elsewhere', () => {
  if (process.getuid?.() !== 0) return;
  const missing = (Object.keys(CAUSES) as Cause[]).filter(
    (cause) => !made.has(cause) && !ELSEWHERE.includes(cause),
  );
  expect(missing).toEqual([]);
});

test('docs/troubleshooting.md has each of them, with what the command says', () => {
  const page = readFileSync(join(__dirname, '..', '..', 'docs', 'troubleshooting.md'), 'utf8');
  for (const [cause, { finding }] of Object.entries(CAUSES)) {
    expect(page).toContain(`## \`${cause}\``);
    expect(page).toContain(finding);
  }
});
