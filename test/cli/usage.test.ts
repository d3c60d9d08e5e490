/** The frame: help, usage errors, exit codes, a closed output. */
import { Writable } from 'node:stream';
import { commands } from '../../src/cli/commands';
import { run } from '../../src/cli/run';
import { cli, Collected } from './harness';

const USAGE = 2;

describe('help', () => {
  test('lists every command', async () => {
    const { code, stdout } = await cli(['--help']);
    expect(code).toBe(0);
    for (const { name } of commands) expect(stdout).toMatch(new RegExp(`^  ${name} `, 'm'));
  });

  test.each(commands.map((command) => [command.name, command] as const))(
    '%s shows its options and examples',
    async (name, command) => {
      const { code, stdout, stderr } = await cli([name, '--help']);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(new RegExp(`^Usage: cpg ${name}`));
      for (const option of Object.keys(command.options)) expect(stdout).toContain(`--${option}`);
      expect(stdout).toContain('Examples:');
      for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(120);
      expect((await cli(['help', name])).stdout).toBe(stdout);
    },
  );

  test.each([[['-h']], [['help']], [['help', '-h']], [['--help', '--help']]])(
    '%j is the overview',
    async (args) => {
      expect(await cli(args)).toEqual(expect.objectContaining({ code: 0, stderr: '' }));
      expect((await cli(args)).stdout).toMatch(/^Usage: cpg COMMAND/);
    },
  );

  test('short options stand beside the long ones', async () => {
    expect((await cli(['tap', '-h'])).stdout).toMatch(/^ {2}-w, --write FILE +write a pcapng/m);
    expect((await cli(['decode', '-h'])).stdout).toMatch(
      /^ {2}-r, --read FILE .*[^]*^ {2}-g, --group GROUP /m,
    );
    expect((await cli(['join', '-h'])).stdout).toMatch(/^ {2}-n, --count N .*[^]*^ {6}--stay /m);
    expect((await cli(['manual'])).stdout).toContain('.B \\-w, \\-\\-write FILE');
  });

  test('only commands that talk to a daemon, or are one, have --address', () => {
    const withAddress = commands.filter(({ options }) => 'address' in options).map(({ name }) => name);
    expect(withAddress).toEqual(
      expect.arrayContaining(['join', 'members', 'groups', 'info', 'replay', 'bench']),
    );
    for (const name of ['tap', 'decode', 'timeline', 'dissector', 'completion', 'manual'])
      expect(withAddress).not.toContain(name);
  });

  test('only commands with data have --json', () => {
    for (const { name, options } of commands)
      expect([name, 'json' in options]).toEqual([name, !['completion', 'manual'].includes(name)]);
  });

  test('is preferred to complaints', async () => {
    expect((await cli(['join', '--nonsense', '--help'])).code).toBe(0);
  });

  test('the version', async () => {
    expect((await cli(['--version'])).stdout).toMatch(/^cpg \d+\.\d+\.\d+\n$/);
  });
});

describe('usage errors', () => {
  test.each([
    [[], 'a command is missing'],
    [['frobnicate'], "'frobnicate' is not a command"],
    [['join'], 'GROUP is missing'],
    [['join', 'a', 'b'], "unexpected argument 'b'"],
    [['join', 'a', '--frob'], "unknown option '--frob'"],
    [['join', 'a', '--count'], "option '--count <value>' argument missing"],
    [['join', 'a', '--count', 'x'], "option --count: 'x' where a number from 1 on is expected"],
    [['join', 'a', '--count', '0'], "option --count: '0' where a number from 1 on is expected"],
    [
      ['join', 'a', '--timeout', '-1'],
      "option --timeout: '-1' where a number of seconds up to 2000000 is expected",
    ],
    [['replay', 'f', '--rate', '-0.5'], "option --rate: '-0.5' where a number greater than 0 is expected"],
    [['tap', '--pid', '-2'], "option --pid: '-2' where a number from 0 to 4294967295 is expected"],
    [['tap', '-n', '-3'], "option --count: '-3' where a number from 1 on is expected"],
    [
      ['tap', '--write', '--json'],
      "option '--write <value>' argument missing; a value that begins with '-' is given as --write=--json",
    ],
    [['tap', '-w', '-h2'], "option '--write <value>' argument missing"],
    [['tap', '-w'], "option '--write <value>' argument missing"],
    [['join', 'a', '-x'], "unknown option '-x'"],
    [['join', 'a', '--tiemout', '3'], "unknown option '--tiemout'; did you mean '--timeout'?"],
    [['tap', '--filter=x'], "unknown option '--filter'\n"],
    [['mebmers', 'a'], "'mebmers' is not a command; did you mean 'members'?"],
    [['group'], "'group' is not a command; did you mean 'groups'?"],
    [['help', 'decod'], "'decod' is not a command; did you mean 'decode'?"],
    [['tap', '--message', 'delivr'], "no message is called 'delivr'; did you mean 'deliver'?"],
    [
      ['tap', '--direction', 'requests'],
      "one of request, response, event is expected; did you mean 'request'?",
    ],
    [['tap', '--group', 'a\\q'], "option --group: '\\q' in the group name 'a\\q' means nothing: write \\0"],
    [['tap', '--group', ''], 'option --group: a name of 0 bytes where 1 to 128 are expected'],
    [['join', 'a\ufffd'], "'a\ufffd' holds bytes that are no UTF-8: write the name in hex"],
    [['tap', '--service', ','], "option --service: ',' names nothing"],
    [['tap', '--pid', ''], "option --pid: '' names nothing"],
    [['decode', 'a', '--direction', ',,'], "option --direction: ',,' names nothing"],
    [['join', '0x1'], "'0x1' is not a group name in hex"],
    [['members', 'a\\'], "'\\' in the group name"],
    [['decode', 'a', '--read', 'b'], "unexpected argument 'a'"],
    [['decode', 'a', '--address', '@x'], "unknown option '--address'"],
    [['completion', 'bahs'], "'bahs' is not one of bash, zsh, fish; did you mean 'bash'?"],
    [['join', 'a', '--timeout', 'soon'], "option --timeout: 'soon' where a number of seconds"],
    [['tap', '--message', 'mcast,nonsense'], "option --message: no message is called 'nonsense'"],
    [['join', 'a', '--json=yes'], "option '--json' does not take an argument"],
  ])('%j', async (args, complaint) => {
    const { code, stdout, stderr } = await cli(args);
    expect({ code, stdout }).toEqual({ code: USAGE, stdout: '' });
    expect(stderr).toContain(`cpg: `);
    expect(stderr).toContain(complaint);
    expect(stderr).toMatch(/\nTry 'cpg .*--help'\.\n$/);
  });

  test('control characters of arguments are not printed', async () => {
    expect((await cli(['\u001b[2J'])).stderr).toBe("cpg: '\\x1b[2J' is not a command\nTry 'cpg --help'.\n");
  });
});

describe('where a daemon is not reached, cpg info is pointed to', () => {
  test.each([['groups'], ['members', 'g'], ['join', 'g'], ['bench']])('%s', async (...args) => {
    const { code, stderr } = await cli([...args, '--address', '/nonexistent/cpg'], { stdin: '' });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^cpg: cannot connect .+\nTry 'cpg info --address \/nonexistent\/cpg', which looks for the cause\.\n$/,
    );
  });

  test('not by itself, and not where something else is wrong', async () => {
    expect((await cli(['info', '--address', '/nonexistent/cpg'])).stderr).not.toContain('Try');
    expect((await cli(['decode', '/nonexistent/file'])).stderr).not.toContain('Try');
    expect((await cli(['groups'], { env: { CPG_ADDRESS: '/nonexistent/cpg' } })).stderr).toContain(
      "'cpg info'",
    );
  });
});

test('a closed output is quiet', async () => {
  const closed = new Writable({
    write: (_, __, done) => done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })),
  });
  const stderr = new Collected();
  const code = await run({
    args: ['--help'],
    stdin: process.stdin,
    stdout: closed,
    stderr,
    env: {},
    interrupt: new AbortController().signal,
  });
  expect({ code, stderr: stderr.text }).toEqual({ code: 0, stderr: '' });
});
