/** The commands against a private real corosync. */
import { spawn } from 'node:child_process';
import { startCorosync, type CorosyncCluster } from '../support/corosync';
import { enterNetwork } from '../support/network-namespace';
import { describeWithCorosync } from '../support/suites';
import { builtCli, cli, CliProcess, interrupted } from './harness';

jest.setTimeout(60_000);

describeWithCorosync('the command on corosync', () => {
  let cluster: CorosyncCluster;
  let address: string;
  const processes: CliProcess[] = [];

  beforeAll(async () => {
    cluster = await startCorosync();
    ({ address } = cluster.nodes[0]!);
    builtCli();
  });
  afterEach(async () => {
    for (const { child } of processes.splice(0)) child.kill('SIGKILL');
  });
  afterAll(() => cluster.stop());

  const start = (...args: string[]): CliProcess => {
    const started = CliProcess.start(args, { env: { ...process.env, CPG_ADDRESS: address } });
    processes.push(started);
    return started;
  };
  const here = (args: string[], options: Parameters<typeof cli>[1] = {}): ReturnType<typeof cli> =>
    cli([...args, '--address', address], options);

  describe('join', () => {
    test('sends lines, prints them back in order, leaves, exits 0', async () => {
      const { code, stdout, stderr } = await here(['join', 'lines'], { stdin: 'one\n\nthree' });
      const self = `1:${process.pid}`;
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toBe(
        [
          `joined ${self} join`,
          `members ${self}`,
          `message ${self} one`,
          `message ${self} `,
          `message ${self} three`,
          '',
        ].join('\n'),
      );
      expect((await here(['members', 'lines'])).stdout).toBe('');
    });

    test('--json has the shapes of the events, one a line', async () => {
      const stdin = Buffer.concat([Buffer.from('grüße\n'), Buffer.from([0xff, 0xfe, 0x0a])]);
      const { json } = await here(['join', 'jß', '--json', '--totem'], { stdin });
      const sender = { nodeId: 1, pid: process.pid };
      const self = { ...sender, reason: expect.any(Number) as number };
      const events = json();
      expect(events).toHaveLength(4);
      expect(events).toContainEqual({
        type: 'totemConfchg',
        ringId: { nodeId: 1, seq: expect.any(Number) as number },
        members: [1],
      });
      expect(events).toContainEqual({
        type: 'confchg',
        group: 'jß',
        members: [self],
        left: [],
        joined: [{ ...self, reason: 1 }],
      });
      expect(events.slice(2)).toEqual([
        { type: 'deliver', group: 'jß', ...sender, message: 'grüße' },
        { type: 'deliver', group: 'jß', ...sender, messageBase64: '//4=' },
      ]);
    });

    test('many lines, more than may be unconfirmed at a time', async () => {
      const lines = Array.from({ length: 5000 }, (_, index) => `line ${index}`);
      const { code, stdout } = await here(['join', 'many'], { stdin: lines.join('\n') });
      expect(code).toBe(0);
      const delivered = stdout.split('\n').filter((line) => line.startsWith('message'));
      expect(delivered.map((line) => line.replace(/^message \S+ /, ''))).toEqual(lines);
    });

    test('a message larger than a frame goes through a pipe unchanged', async () => {
      const line = 'x'.repeat(3_000_000);
      const { code, stdout } = await here(['join', 'large'], { stdin: line });
      expect(code).toBe(0);
      expect(stdout.endsWith(` ${line}\n`)).toBe(true);
    });

    test('--count ends it, --stay keeps it after the end of the input', async () => {
      const listener = start('join', 'two', '--count', '3', '--json');
      listener.end();
      await listener.until(/"confchg"/);
      const stayer = start('join', 'two', '--stay');
      stayer.end();
      await stayer.until(/^members 1:\d+ 1:\d+$/m);
      const sender = await here(['join', 'two'], { stdin: 'a\nb\nc\nd\n' });
      expect(sender.code).toBe(0);
      const { code, json } = await listener.done();
      expect(code).toBe(0);
      const messages = json().flatMap(({ type, message }) => (type === 'deliver' ? [message] : []));
      expect(messages).toEqual(['a', 'b', 'c']);
      await stayer.until(/^message 1:\d+ d$/m);
      await stayer.until(new RegExp(`^left 1:${process.pid} leave$`, 'm'));
      stayer.child.kill('SIGINT');
      expect((await stayer.done()).code).toBe(130);
    });

    test('--timeout is a failure when something was awaited', async () => {
      const { code, stderr } = await here(['join', 'late', '--count', '1', '--timeout', '0.3'], {
        stdin: '',
      });
      expect(code).toBe(1);
      expect(stderr).toMatch(/^cpg: join: 0 of 1 delivery within 0\.3 s: CS_ERR_TIMEOUT \(5\): .+\n$/);
    });

    test('--timeout is a good end when nothing was awaited', async () => {
      expect((await here(['join', 'late', '--stay', '--timeout', '0.3'], { stdin: '' })).code).toBe(0);
      expect((await here(['join', 'late', '--timeout', '0.3'])).code).toBe(0);
    });

    test('an interrupt leaves the group and exits 130', async () => {
      const witness = start('join', 'broken');
      await witness.until(/^members/m);
      const interrupt = new AbortController();
      const running = here(['join', 'broken'], { interrupt: interrupt.signal });
      await witness.until(/^members 1:\d+ 1:\d+$/m);
      interrupt.abort(interrupted());
      expect(await running).toMatchObject({ code: 130, stderr: '' });
      await witness.until(new RegExp(`^left 1:${process.pid} leave$`, 'm'));
    });

    test('on a terminal it marks our own, colours, and shows control characters', async () => {
      const { stdout } = await here(['join', 'tty'], { stdin: 'a\u001b[2Jb\n', terminal: true });
      expect(stdout).toContain(`(us)`);
      expect(stdout).toContain('\u001b[32mjoined');
      expect(stdout).toContain('a\\x1b[2Jb');
      const plain = await here(['join', 'tty'], { stdin: 'x\n', terminal: true, env: { NO_COLOR: '1' } });
      expect(plain.stdout).not.toContain('\u001b');
    });

    test.each([
      ['', 'CS_ERR_INVALID_PARAM (7)'],
      ['x'.repeat(129), 'CS_ERR_NAME_TOO_LONG (13)'],
    ])('refuses the group name %j', async (group, code) => {
      const { code: exitCode, stderr } = await here(['join', group], { stdin: '' });
      expect(exitCode).toBe(1);
      expect(stderr).toContain(code);
    });

    test('a reader that goes away is no trouble', async () => {
      const command = `${process.execPath} ${builtCli()} join pipe --address ${address} | head -1`;
      const shell = spawn('bash', ['-c', `set -o pipefail; yes | head -2000 | ${command}`], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let output = '';
      shell.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
      shell.stderr.on('data', (chunk: Buffer) => (output += `stderr: ${chunk.toString()}`));
      const code = await new Promise((resolve) => shell.once('close', resolve));
      expect(output).toMatch(/^joined \S+ join\n$/);
      // 141: `yes` and the first `head` may be killed by the pipe, which is not ours to say.
      expect([0, 141]).toContain(code);
    });
  });

  test('members and groups', async () => {
    const one = start('join', 'listed');
    await one.until(/^members/m);
    const { pid } = one.child;
    expect((await here(['members', 'listed'])).stdout).toBe(`1:${pid}\n`);
    expect((await here(['members', 'listed', '--json'])).json()).toEqual([
      { type: 'member', group: 'listed', nodeId: 1, pid, reason: expect.any(Number) as number },
    ]);
    const nasty = start('join', 'nasty\u001b[31m\nname');
    await nasty.until(/^members/m);
    const groups = (await here(['groups'])).stdout;
    expect(groups).toContain(`1:${pid} listed\n`);
    expect(groups).toContain(`1:${nasty.child.pid} nasty\\x1b[31m\\nname\n`);
    expect((await here(['groups'], { terminal: true })).stdout).toContain('nasty\\x1b[31m\\nname\n');
    const names = (await here(['groups', '--names', '--json'])).json();
    expect(names).toContainEqual({ type: 'group', group: 'listed' });
  });

  test('info tells about the daemon', async () => {
    const { code, stdout } = await here(['info']);
    expect(code).toBe(0);
    expect(stdout).toContain(`daemon        pid ${cluster.nodes[0]!.pid}`);
    expect((await here(['info', '--json'])).json()).toEqual([
      expect.objectContaining({
        type: 'info',
        address,
        reachable: true,
        transport: 'shm',
        daemonPid: cluster.nodes[0]!.pid,
        localNodeId: 1,
        pid: process.pid,
        flowControl: false,
        native: expect.any(Array) as string[],
      }),
    ]);
  });

  test('info finds out that a stopped daemon does not answer', async () => {
    cluster.nodes[0]!.pause();
    try {
      const { code, stdout, stderr } = await here(['info', '--json', '--timeout', '0.5']);
      expect(code).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({ reachable: false, cause: 'not-answering' });
      expect(stderr).toMatch(/CS_ERR_TIMEOUT \(5\)/);
    } finally {
      cluster.nodes[0]!.resume();
    }
  });
});

describe('without a daemon', () => {
  const nowhere = ['--address', '/nonexistent/cpg'];

  test.each([['members', 'g'], ['groups'], ['join', 'g'], ['info']])(
    '%s fails with advice',
    async (...args) => {
      const { code, stdout, stderr } = await cli([...args, ...nowhere], { stdin: '' });
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(
        /^cpg: cannot connect to \/nonexistent\/cpg \(ENOENT\): CS_ERR_LIBRARY \(2\): .+$/m,
      );
    },
  );

  test('the address of the environment counts', async () => {
    expect((await cli(['groups'], { env: {} })).code).toBe(1);
  });
});

describeWithCorosync('info on special daemons', () => {
  test('qb_ipc_type: socket', async () => {
    const cluster = await startCorosync({ qbIpcType: 'socket' });
    try {
      const { address, netns } = cluster.nodes[0]!;
      const outside = await cli(['info', '--json', '--address', address]);
      expect(outside.code).toBe(1);
      expect(outside.json()).toMatchObject([{ cause: 'datagrams-not-there' }]);
      expect(outside.stderr).toMatch(/CS_ERR_LIBRARY \(2\): datagrams do not leave a network namespace/);
      const leave = enterNetwork(netns);
      try {
        const inside = await cli(['info', '--json', '--address', address]);
        expect(inside.json()).toMatchObject([{ reachable: true, transport: 'socket' }]);
      } finally {
        leave();
      }
    } finally {
      await cluster.stop();
    }
  });
});
