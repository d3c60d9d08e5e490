/** Every block of the README, and every program of the guides, run as a reader would run it, on the embedded server. */
import { spawn } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import ts from 'typescript';
import { startServer, type CpgServer } from '../../src/server';

jest.setTimeout(60_000);

const ROOT = resolve(__dirname, '../..');
const DEADLINE_MS = 50_000;

interface Block {
  language: string;
  text: string;
  line: number;
}

function blocksOf(file: string): Block[] {
  const page = readFileSync(join(ROOT, file), 'utf8');
  return [...page.matchAll(/^```(\S*)\n(.*?)^```$/gms)].map(({ 1: language, 2: text, index }) => ({
    language: language!,
    text: text!,
    line: page.slice(0, index).split('\n').length,
  }));
}

/** The program around a fragment of the README, which may use what it exports. */
const AROUND = `
import { connect } from 'corosync-cpg';
export { connect };
export const client = await connect();
export const message = Buffer.from('a message');
export const messages = Array.from({ length: 500 }, (_, number) => String(number));
await client.join('orders');
`;
const BEFORE = "import { client, connect, message, messages } from './around.mjs';\n";
/** Listeners hear something, and the program ends. */
const AFTER = `
if (client.state === 'joined') await client.mcast('the end', { confirm: true });
await client.close();
`;

/** What commands that would go on, or take long, get in addition. */
const SHORTER: Record<string, string> = {
  serve: '--timeout 1',
  tap: '--timeout 1',
  bench: '--count 100 --size 64',
};
/** What .ci/run and `npm run consumers` run. */
const RUN_ELSEWHERE = ['npm install corosync-cpg', 'npm ci && npm run demo', 'npm ci && npm test'];

let server: CpgServer;
let project: string;

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'corosync-cpg-blocks-'));
  mkdirSync(join(project, 'node_modules'));
  symlinkSync(ROOT, join(project, 'node_modules/corosync-cpg'));
  writeFileSync(join(project, 'around.mjs'), AROUND);
  writeFileSync(
    join(project, 'cpg'),
    `#!/bin/sh\nexec '${process.execPath}' '${ROOT}/dist/cli/main.js' "$@"\n`,
  );
  chmodSync(join(project, 'cpg'), 0o755);
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

beforeEach(async () => {
  server = await startServer();
});
afterEach(() => server.close());

interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a command; it is interrupted when its output matches `until`. */
function run(command: string, args: string[], env: object, until?: RegExp): Promise<Finished> {
  const child = spawn(command, args, {
    cwd: project,
    env: { ...process.env, PATH: `${project}${delimiter}${process.env['PATH'] ?? ''}`, ...env },
    timeout: DEADLINE_MS,
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
    if (until?.test(stdout)) child.kill('SIGINT');
  });
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, stdout, stderr })));
}

function runProgram(text: string): Promise<Finished> {
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  writeFileSync(join(project, 'program.mjs'), outputText);
  // One that goes on until Ctrl-C gets it when it has heard a message.
  const until = text.includes('SIGINT') ? /says/ : undefined;
  return run(process.execPath, ['program.mjs'], { CPG_ADDRESS: server.address }, until);
}

/** It makes its own client or server. */
const isWhole = ({ text }: Block): boolean =>
  /^import \{.*\b(connect|startServer|SimulatedCluster|Tap)\b.* from 'corosync-cpg/m.test(text);

describe('README.md', () => {
  const blocks = blocksOf('README.md');
  const programs = blocks.filter(({ language }) => language === 'js');
  const lines = blocks
    .filter(({ language }) => language === 'sh')
    .flatMap(({ text }) => text.trim().split('\n'))
    .map((line) => line.replace(/ +# .*/, ''));

  test('has blocks that are run, and text', () => {
    expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['js', 'sh', 'text', '']));
  });

  test.each(programs.map((block) => [block.line, block] as const))(
    'the program in line %i',
    async (_, block) => {
      const whole = isWhole(block);
      const { code, stdout, stderr } = await runProgram(whole ? block.text : BEFORE + block.text + AFTER);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const next = blocks[blocks.indexOf(block) + 1];
      if (whole && next?.language === 'text') expect(stdout).toBe(next.text);
      // What a comment says that it prints.
      for (const [, shown] of block.text.matchAll(/console\.log\(.*\); \/\/ (CS_.*)/g))
        expect(stdout).toContain(shown);
    },
  );

  test.each(lines.filter((line) => !RUN_ELSEWHERE.includes(line)))('$ %s', async (line) => {
    const name = /\bcpg (\w+)/.exec(line)?.[1] ?? '';
    const shorter = name in SHORTER ? `${line} ${SHORTER[name]!}` : line;
    // A server listens where a client would connect.
    const env = { CPG_ADDRESS: name === 'serve' ? undefined : server.address };
    const { code, stderr } = await run('bash', ['-c', shorter], env);
    expect({ code, stderr }).toMatchObject({ code: 0 });
  });

  test('every option of the client is in it, with its default', () => {
    const page = readFileSync(join(ROOT, 'README.md'), 'utf8');
    const file = join(ROOT, 'src/client.ts');
    const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ES2022, true);
    const options = source.statements
      .filter((node) => ts.isInterfaceDeclaration(node))
      .filter(({ name }) => name.text.endsWith('Options'))
      .flatMap(({ members }) => [...members]);
    expect(options.length).toBeGreaterThan(15);
    for (const option of options) {
      const name = option.name!.getText();
      expect(page).toContain(`\`${name}\``);
      const tag = ts.getJSDocTags(option).find(({ tagName }) => tagName.text === 'default');
      const literal = /^('\w+'|[\d_]+|true|false)$/.exec(String(tag?.comment))?.[0].replaceAll('_', '');
      const row = new RegExp(`^\\| \`${name}\` +\\| ([^|]*)`, 'm').exec(page)?.[1];
      if (literal !== undefined && row !== undefined) expect(row.replaceAll(/[`, ]/g, '')).toBe(literal);
    }
  });
});

const guides = readdirSync(join(ROOT, 'docs'))
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`);
const programs = guides.flatMap((guide) =>
  blocksOf(guide)
    .filter((block) => ['js', 'ts'].includes(block.language) && isWhole(block))
    .map((block) => [guide, block.line, block] as const),
);

test.each(programs)('the program in %s, line %i', async (_, __, block) => {
  // A minute on the page is a moment here.
  const { code, stderr } = await runProgram(block.text.replaceAll('60_000', '500'));
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
});
