/** Where a daemon listens. */
import { existsSync } from 'node:fs';
import { CpgError } from '../errors';

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

/**
 * '@name' is an abstract socket, padded with NUL to 108 bytes as libqb binds it; '/path' a filesystem socket.
 * Without `text` the environment's CPG_ADDRESS counts unless it is empty, then '@cpg'.
 * Throws CS_ERR_INVALID_PARAM for anything else.
 */
export function resolveAddress(
  // eslint-disable-next-line @typescript-eslint/prefer-nullish-coalescing -- an empty variable is an unset one
  text = process.env['CPG_ADDRESS'] || DEFAULT_ADDRESS,
  fileExists = existsSync,
): Address {
  if (typeof (text as unknown) !== 'string') throw invalid(text, 'it is not a string');
  const bytes = Buffer.byteLength(text);
  if (text.includes('\0')) throw invalid(text, 'it contains a NUL');
  if (text.startsWith('/')) {
    if (bytes >= SUN_PATH_BYTES) throw invalid(text, `a socket path has at most ${SUN_PATH_BYTES - 1} bytes`);
    return { text, path: text };
  }
  if (!text.startsWith('@') || bytes < 2) throw invalid(text, 'it begins neither with @ nor with /');
  if (bytes > SUN_PATH_BYTES) throw invalid(text, `an abstract name has at most ${SUN_PATH_BYTES - 1} bytes`);
  const name = text.slice(1);
  if (fileExists(FORCE_FILESYSTEM_SOCKETS)) {
    const candidates = SOCKET_DIRECTORIES.map((directory) => `${directory}/${name}`);
    return { text, path: candidates.find((path) => fileExists(path)) ?? candidates[0]! };
  }
  return { text, path: `\0${name}${'\0'.repeat(SUN_PATH_BYTES - bytes)}` };
}

function invalid(text: string, why: string): CpgError {
  return new CpgError('CS_ERR_INVALID_PARAM', `the address ${JSON.stringify(text)} cannot be used: ${why}`, {
    remedy: "give '@name' for an abstract socket or '/path' for one in the filesystem",
  });
}
