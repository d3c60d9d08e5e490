/** Where a daemon listens. */
import { existsSync, type PathLike } from 'node:fs';
import { check, kind } from '../arguments';
import { failure, FORCE_FILESYSTEM_SOCKETS } from './causes';

/** sizeof(sockaddr_un.sun_path); libqb's abstract names fill all of it. */
const SUN_PATH_BYTES = 108;

/** The service name corosync registers CPG under, and so the default address. */
export const DEFAULT_ADDRESS = '@cpg';

/** Where libqb puts filesystem sockets is compiled in (SOCKETDIR): /tmp on Debian 12, a run directory elsewhere. */
export const SOCKET_DIRECTORIES = ['/run', '/var/run', '/tmp'];

export interface Address {
  /** As the user wrote it. */
  text: string;
  /** For net.connect; abstract names begin with NUL. */
  path: string;
  /** The other places of a '@name' that is a file here: to be tried when nobody listens at the path. */
  others?: string[];
}

export const ADDRESS = kind<string>(
  `'@name' for an abstract socket or '/path' for one in the filesystem, of at most ${SUN_PATH_BYTES - 1} bytes`,
  (value) => {
    if (typeof value !== 'string' || value.includes('\0')) return false;
    const bytes = Buffer.byteLength(value);
    return value.startsWith('/') ? bytes < SUN_PATH_BYTES : /^@./s.test(value) && bytes <= SUN_PATH_BYTES;
  },
);

/**
 * '@name' is an abstract socket, padded with NUL to 108 bytes as libqb binds it; '/path' a filesystem socket. Without
 * `given` the environment's CPG_ADDRESS counts unless it is empty, then '@cpg'. Throws CS_ERR_INVALID_PARAM for anything
 * else.
 */
export function resolveAddress(given?: string, fileExists: typeof existsSync = exists): Address {
  // eslint-disable-next-line @typescript-eslint/prefer-nullish-coalescing -- an empty variable is an unset one
  const text = given ?? (process.env['CPG_ADDRESS'] || DEFAULT_ADDRESS);
  check('connect', given === undefined ? 'the environment variable CPG_ADDRESS' : 'address', text, ADDRESS);
  if (text.startsWith('/')) return { text, path: text };
  const name = text.slice(1);
  if (fileExists(FORCE_FILESYSTEM_SOCKETS)) {
    const places = socketFiles(name);
    const [path = places[0]!, ...others] = places.filter((place) => fileExists(place));
    return { text, path, others };
  }
  return abstractAddress(name);
}

/** What this process may not look at, by Node's permission model, is not there. */
export function exists(path: PathLike): boolean {
  try {
    return existsSync(path);
  } catch {
    return false;
  }
}

/** The files at which libqb may listen for the service `name`, when it listens at files. */
export function socketFiles(name: string): string[] {
  return SOCKET_DIRECTORIES.map((directory) => `${directory}/${name}`);
}

/** The abstract socket `name`, also where @names are files. */
export function abstractAddress(name: string): Address {
  const text = `@${name}`;
  return { text, path: `\0${name}${'\0'.repeat(SUN_PATH_BYTES - Buffer.byteLength(text))}` };
}

/** An address as it stands in an error. */
export function describeAddress({ text, path }: Address): string {
  return text.startsWith('@') && path.startsWith('/')
    ? `${text}, which is ${path} as ${FORCE_FILESYSTEM_SOCKETS} exists`
    : text;
}

/** Before 20.8, Node cuts the name of a socket at the first NUL, with which every abstract name begins. */
export function assertUsable({ text, path }: Address, verb: 'connect to' | 'listen at'): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (path.startsWith('/') || major > 20 || (major === 20 && minor >= 8)) return;
  const what = `Node ${process.versions.node} cannot ${verb} the abstract socket ${text}`;
  throw failure('old-node', what, { code: 'CS_ERR_NOT_SUPPORTED' });
}
