/** Our assumptions about the C library also hold for musl (Alpine Linux), as far as a compiler can tell. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FIXTURES = join(__dirname, '..', 'fixtures');

const missing = [
  ...['gcc', 'musl-gcc'].filter((compiler) => spawnSync(compiler, ['--version']).error !== undefined),
  ...['corosync/cpg.h', 'qb/qbipc_common.h'].filter((header) => !existsSync(join('/usr/include', header))),
];
if (missing.length > 0 && process.env['CPG_REQUIRE_COROSYNC'] === '1')
  throw new Error(`missing: ${missing.join(', ')} (install gcc, musl-tools, libcpg-dev and libqb-dev)`);

(missing.length === 0 ? describe : describe.skip)(`musl (missing: ${missing.join(', ')})`, () => {
  let directory: string;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'corosync-cpg-musl-'));
    // Headers of the daemon without those of glibc, which lie beside them.
    for (const name of ['corosync', 'qb']) symlinkSync(join('/usr/include', name), join(directory, name));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** The output of a program of fixtures/c. */
  const said = (compiler: string, program: string): string => {
    const binary = join(directory, `${program}-${compiler}`);
    const source = join(FIXTURES, 'c', `${program}.c`);
    execFileSync(compiler, ['-std=gnu11', '-static', '-I', directory, '-o', binary, source]);
    return execFileSync(binary, { encoding: 'utf8' });
  };

  test('the semaphore of a ring, mmap and socket names', () => {
    const glibc = said('gcc', 'libc');
    expect(glibc).toContain('posted: 1');
    expect(said('musl-gcc', 'libc')).toBe(glibc);
  });

  test('every structure of the protocol', () => {
    const recorded = JSON.parse(readFileSync(join(FIXTURES, 'layout.json'), 'utf8')) as object;
    expect(recorded).toMatchObject(JSON.parse(said('musl-gcc', 'layout')) as object);
  });
});
