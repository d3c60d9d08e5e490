/** What is made from the tables: docs/cli.md, man/cpg.1, completion. UPDATE_DOCS=1 writes the files anew. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { commands } from '../../src/cli/commands';
import { cli } from './harness';

const ROOT = resolve(__dirname, '..', '..');

test.each([
  ['docs/cli.md', ['manual', '--markdown']],
  ['man/cpg.1', ['manual']],
])('%s is what the tables say', async (file, args) => {
  const { code, stdout } = await cli(args);
  expect(code).toBe(0);
  const path = resolve(ROOT, file);
  if (process.env['UPDATE_DOCS'] === '1') {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, stdout);
  }
  expect(readFileSync(path, 'utf8')).toBe(stdout);
});

/** What bash offers for a line that ends where the cursor is. */
function complete(script: string, ...line: string[]): string[] {
  const test = `${script}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_cpg
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', test, 'bash', ...line], {
    encoding: 'utf8',
    cwd: ROOT,
  });
  expect(stderr).toBe('');
  return stdout.split('\n').filter((word) => word !== '');
}

test('bash completes commands, options and values', async () => {
  const { stdout: script } = await cli(['completion', 'bash']);
  expect(complete(script, 'cpg', '')).toEqual(expect.arrayContaining(commands.map(({ name }) => name)));
  expect(complete(script, 'cpg', 'jo')).toEqual(['join']);
  expect(complete(script, 'cpg', 'join', 'g', '--co')).toEqual(['--count']);
  expect(complete(script, 'cpg', 'tap', '--direction', 're')).toEqual(['request', 'response']);
  expect(complete(script, 'cpg', 'decode', 'package.j')).toEqual(['package.json']);
});

test.each(['zsh', 'fish'])('%s: every command and option is there', async (shell) => {
  const { code, stdout } = await cli(['completion', shell]);
  expect(code).toBe(0);
  for (const { name, options } of commands) {
    expect(stdout).toContain(name);
    for (const option of Object.keys(options))
      expect(stdout).toContain(shell === 'fish' ? `-l ${option}` : `--${option}`);
  }
  const directory = mkdtempSync(join(tmpdir(), 'cpg-completion-'));
  try {
    const file = join(directory, `cpg.${shell}`);
    writeFileSync(file, stdout);
    const check = spawnSync(shell, ['-n', file], { encoding: 'utf8' });
    if (check.error === undefined) expect(check).toMatchObject({ status: 0, stderr: '' });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('another shell is a usage error', async () => {
  expect((await cli(['completion', 'tcsh'])).code).toBe(2);
});
