/** Where a daemon listens. */
import { existsSync } from 'node:fs';
import { check, kind } from '../arguments';

/** sizeof(sockaddr_un.sun_path); libqb's abstract names fill all of it. */
const SUN_PATH_BYTES = 108;

/** The service name corosync registers CPG under, and so the default address. */
export const DEFAULT_ADDRESS = '@cpg';

/** When this file exists, libqb uses filesystem sockets instead of abstract ones. */
const FORCE_FILESYSTEM_SOCKETS = '/etc/libqb/force-filesystem-sockets';
/** Where libqb then puts them is compiled in (SOCKETDIR): /tmp on Debian 12, a run directory elsewhere. */
const SOCKET_DIRECTORIES = ['/run', '/var/run', '/tmp'];

export interface Address {
  /** As the user wrote it. */
  text: string;
  /** For net.connect; abstract names begin with NUL. */
  path: string;
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
export function resolveAddress(given?: string, fileExists = existsSync): Address {
  // eslint-disable-next-line @typescript-eslint/prefer-nullish-coalescing -- an empty variable is an unset one
  const text = given ?? (process.env['CPG_ADDRESS'] || DEFAULT_ADDRESS);
  check('connect', given === undefined ? 'the environment variable CPG_ADDRESS' : 'address', text, ADDRESS);
  if (text.startsWith('/')) return { text, path: text };
  const name = text.slice(1);
  if (fileExists(FORCE_FILESYSTEM_SOCKETS)) {
    const candidates = SOCKET_DIRECTORIES.map((directory) => `${directory}/${name}`);
    return { text, path: candidates.find((path) => fileExists(path)) ?? candidates[0]! };
  }
  return { text, path: `\0${name}${'\0'.repeat(SUN_PATH_BYTES - Buffer.byteLength(text))}` };
}
