/** Upstream's sources: built in a copy, for a prefix of our own. */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { shorten } from './checks';
import { Skipped } from './releases';

const run = promisify(execFile);
const BUILD_TIMEOUT_MS = 900_000;

const SCRIPT = `
[ -e .tarball-version ] || [ -d .git ] || echo "$2" > .tarball-version
[ -x configure ] || ./autogen.sh
./configure --prefix="$1" --disable-static
make -j2
make install
`;

/** Without a version of its own (a directory that is no clone), configure would refuse. */
const NO_VERSION = '9.9.9';

export async function build(directory: string, home: string): Promise<{ prefix: string }> {
  const prefix = join(home, 'upstream');
  mkdirSync(prefix);
  const env = { ...process.env, PKG_CONFIG_PATH: join(prefix, 'lib/pkgconfig'), LC_ALL: 'C' };
  for (const name of ['libqb', 'corosync']) {
    const source = join(directory, name);
    if (!existsSync(source)) throw new Skipped(`there is no ${name} in the directory of sources`);
    const copy = join(home, name);
    cpSync(source, copy, { recursive: true });
    try {
      await run('sh', ['-ec', SCRIPT, 'sh', prefix, NO_VERSION], {
        cwd: copy,
        env,
        timeout: BUILD_TIMEOUT_MS,
        maxBuffer: 1 << 28,
      });
    } catch (error) {
      const { stderr = '', message } = error as Error & { stderr?: string };
      throw new Skipped(`${name} could not be built: ${shorten(stderr.slice(-300) || message)}`);
    }
  }
  return { prefix };
}
