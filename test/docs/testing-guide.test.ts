/** Every block of the testing guide is run as a reader would: in a project of its own, outside of this repository. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ModuleKind, ScriptTarget, transpileModule } from 'typescript';

jest.setTimeout(60_000);

const ROOT = resolve(__dirname, '..', '..');
const guide = readFileSync(join(ROOT, 'docs', 'testing-your-cluster-code.md'), 'utf8');
const blocks = [...guide.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].map(([, language, code], index) => ({
  name: `block ${index + 1}: ${code!.split('\n')[0]!}`,
  language: language!,
  code: code!,
}));
const excerpts = blocks.filter(({ code }) => code.startsWith('// test/'));
const programs = blocks.filter((block) => !excerpts.includes(block));

let project: string;
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'cpg-guide-'));
  const modules = join(project, 'node_modules');
  mkdirSync(modules);
  symlinkSync(ROOT, join(modules, 'corosync-cpg'));
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

test('there are programs and excerpts', () => {
  expect(blocks.map(({ language }) => language)).not.toContain('');
  expect(programs.length).toBeGreaterThanOrEqual(4);
  expect(excerpts.length).toBeGreaterThanOrEqual(3);
});

test.each(programs)('$name', ({ code }) => {
  const { outputText } = transpileModule(code, {
    compilerOptions: { target: ScriptTarget.ES2022, module: ModuleKind.ESNext },
  });
  const file = join(project, `block-${programs.findIndex((block) => block.code === code)}.mjs`);
  writeFileSync(file, outputText);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
    cwd: project,
    encoding: 'utf8',
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, TMPDIR: project },
    timeout: 50_000,
  });
  expect({ status, stderr, output: status === 0 ? '' : stdout }).toEqual({
    status: 0,
    stderr: '',
    output: '',
  });
});

test.each(excerpts)('$name', ({ code }) => {
  const [place, ...lines] = code.trimEnd().split('\n');
  const source = readFileSync(join(ROOT, place!.slice('// '.length)), 'utf8')
    .split('\n')
    .map((line) => line.trim().replaceAll('!.', '.'));
  for (const line of lines) if (!line.startsWith('//')) expect(source).toContain(line.trim());
});
