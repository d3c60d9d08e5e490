/** Systems with other releases of corosync and libqb, unpacked from the mirror that apt uses. */
import { execFile } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';

const run = promisify(execFile);
const UNPACK_TIMEOUT_MS = 120_000;
/** For corosync, its libcpg, and programs that are built against it. */
const PACKAGES = ['corosync', 'libcpg-dev', 'libc6-dev'];

export interface Release {
  name: string;
  codename: string;
  /** Debian's name of the architecture; that of this machine when it is left out. */
  architecture?: string;
}

export const RELEASES: readonly Release[] = [
  { name: 'Debian 11', codename: 'bullseye' },
  { name: 'Debian 12', codename: 'bookworm' },
  { name: 'Debian 13', codename: 'trixie' },
  { name: 'Debian sid', codename: 'sid' },
  { name: 'Debian 12, arm64', codename: 'bookworm', architecture: 'arm64' },
];

/** Something cannot be tried here; the message says why. */
export class Skipped extends Error {}

/** Unpacks a release into a directory. Nothing is installed, and no program of it runs. */
export async function unpack(release: Release, root: string): Promise<void> {
  const { codename, architecture } = release;
  const options = [
    '--variant=extract',
    `--include=${PACKAGES.join()}`,
    // A mirror that stands still keeps its signatures, which are checked, and old dates.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    ...(architecture === undefined ? [] : [`--architectures=${architecture}`]),
    ...(await proxies()).map((line) => `--aptopt=${line}`),
  ];
  try {
    // When this process is killed, it ends too and removes what it has made.
    const command = ['--pdeathsig', 'TERM', '--', 'mmdebstrap', ...options, codename, root, await mirror()];
    await run('setpriv', command, {
      timeout: UNPACK_TIMEOUT_MS,
      env: { ...process.env, LC_ALL: 'C' },
      maxBuffer: 1 << 26,
    });
  } catch (error) {
    throw new Skipped(whyNotUnpacked(error as UnpackError));
  }
  // What a package would do when it is installed: programs look for their libraries there.
  for (const name of ['lib', 'lib64', 'bin', 'sbin']) {
    const [here, there] = [join(root, name), join(root, 'usr', name)];
    if (!existsSync(here) && existsSync(there)) symlinkSync(`usr/${name}`, here);
  }
  // The loader of Debian 11 is a link from the root, which leads out of a system that is not running.
  for (const name of existsSync(join(root, 'lib64')) ? readdirSync(join(root, 'lib64')) : []) {
    const link = join(root, 'lib64', name);
    const target = lstatSync(link).isSymbolicLink() ? readlinkSync(link) : '';
    if (!target.startsWith('/')) continue;
    rmSync(link);
    symlinkSync(join('..', target), link);
  }
}

interface UnpackError extends Error {
  code?: unknown;
  killed?: boolean;
  stderr?: string;
}

function whyNotUnpacked({ code, killed, stderr = '', message }: UnpackError): string {
  if (code === 127) return 'mmdebstrap is not installed';
  if (killed === true) return `it could not be unpacked within ${UNPACK_TIMEOUT_MS / 1000} s`;
  if (/does not have a Release file|404 +Not Found/.test(stderr)) return 'the mirror does not serve it';
  const cause = /^E: (.+)$/m.exec(stderr)?.[1] ?? message;
  return `it could not be unpacked: ${withoutAddresses(cause)}`;
}

/** What is written down must not name the mirror of this machine. */
function withoutAddresses(text: string): string {
  return text.replaceAll(/\b\w+:\/\/\S+?(?=[/\s])/g, 'the mirror');
}

/** Where apt gets the packages of this machine's own release. */
async function mirror(): Promise<string> {
  const format = '$(ORIGIN)\t$(LABEL)\t$(COMPONENT)\t$(SITE)';
  const { stdout } = await run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']).catch(
    () => ({ stdout: '' }),
  );
  const sites = stdout
    .split('\n')
    .map((line) => line.split('\t'))
    .filter(
      ([origin, label, component]) => origin === 'Debian' && label === 'Debian' && component === 'main',
    );
  const site = sites[0]?.[3];
  if (site === undefined) throw new Skipped('apt has no mirror of Debian (apt-get update tells it)');
  return site;
}

async function proxies(): Promise<string[]> {
  const { stdout } = await run('apt-config', ['dump']);
  return stdout.split('\n').filter((line) => /^Acquire::https?::(.*::)?Proxy/i.test(line));
}

/** The version of a package in an unpacked system, from the head of its list of changes. */
export function packageVersion(root: string, name: string): string {
  const changes = gunzipSync(
    readFileSync(join(root, 'usr/share/doc', name, 'changelog.Debian.gz')),
  ).toString();
  return /\(([^)]+)\)/.exec(changes)?.[1] ?? 'unknown';
}
