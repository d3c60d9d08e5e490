/** The address of a daemon. */
import { existsSync, type PathLike } from 'node:fs';
import { check, kind } from '../arguments';
import { failure, FORCE_FILESYSTEM_SOCKETS } from './causes';

/** sizeof(sockaddr_un.sun_path); libqb's abstract names fill all of it. */
const SUN_PATH_BYTES = 108;

/** The service name under which corosync registers CPG. */
export const DEFAULT_ADDRESS = '@cpg';

/** libqb's compiled-in directory for filesystem sockets (SOCKETDIR): /tmp on Debian 12, a run directory elsewhere. */
export const SOCKET_DIRECTORIES = ['/run', '/var/run', '/tmp'];

export interface Address {
  /** As the user wrote it. */
  text: string;
  /** For net.connect; abstract names begin with NUL. */
  path: string;
  /** Other paths of a '@name' that is a file here: tried if nothing listens at `path`. */
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
 * '@name' is an abstract socket, padded with NUL to 108 bytes as libqb binds it; '/path' is a filesystem socket. The
 * default is the environment variable CPG_ADDRESS if not empty, else '@cpg'. Throws CS_ERR_INVALID_PARAM for anything
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

/** Like existsSync(), but false where Node's permission model forbids access. */
export function exists(path: PathLike): boolean {
  try {
    return existsSync(path);
  } catch {
    return false;
  }
}

/** The possible filesystem sockets of libqb's service `name`. */
export function socketFiles(name: string): string[] {
  return SOCKET_DIRECTORIES.map((directory) => `${directory}/${name}`);
}

/** The abstract socket `name`, even where @names are files. */
export function abstractAddress(name: string): Address {
  const text = `@${name}`;
  return { text, path: `\0${name}${'\0'.repeat(SUN_PATH_BYTES - Buffer.byteLength(text))}` };
}

/** An address for an error text. */
export function describeAddress({ text, path }: Address): string {
  return text.startsWith('@') && path.startsWith('/')
    ? `${text}, which is ${path} as ${FORCE_FILESYSTEM_SOCKETS} exists`
    : text;
}

/** Before 20.8, Node cuts a socket name at the first NUL, and every abstract name begins with one. */
export function assertUsable({ text, path }: Address, verb: 'connect to' | 'listen at'): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (path.startsWith('/') || major > 20 || (major === 20 && minor >= 8)) return;
  const what = `Node ${process.versions.node} cannot ${verb} the abstract socket ${text}`;
  throw failure('old-node', what, { code: 'CS_ERR_NOT_SUPPORTED' });
}
