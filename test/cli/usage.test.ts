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
    [['join', 'a', '--timeout', '-1'], '--timeout'],
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
