/**
 * The directory that holds the rings of one connection:
 *
 *     /dev/shm/qb-<server pid>-<client pid>-<server's descriptor>-XXXXXX/qb-{request,response,event}-<service>
 *
 * each name standing for two files, `...-header` and `...-data`.
 */
import { lstatSync, readFileSync, rmdirSync, unlinkSync } from 'node:fs';
import { basename, dirname, isAbsolute, normalize } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { HandshakeResponse } from '../codec/handshake';
import { debugTransport as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import { Ring } from './ring';
import { storeInFiles, type OpenStorage } from './ring-storage';
import { DESCRIPTORS_REMEDY, SHM_REMEDY } from './service-socket';

const DIRECTORY_NAME = /^qb-(\d+)-(\d+)-(\d+)-[^/]+$/;
const RINGS = ['request', 'response', 'event'] as const;
/** libqb makes the directory 0770; a member of our group can at worst break this connection. */
const OTHERS_MAY_WRITE = 0o002;

/** How long a daemon that hung up may take to remove the files itself, or to be gone. */
const DAEMON_GRACE_MS = [0, 10, 20, 40, 80, 160, 320];

export interface ConnectionFiles {
  directory: string;
  serverPid: number;
  clientPid: number;
  rings: Record<(typeof RINGS)[number], Ring>;
}

/**
 * Opens the three rings a handshake named. A spoofed daemon could name anything, so the names must have
 * libqb's form and lie in one directory, and all of it must belong to us; else CS_ERR_SECURITY, and nothing
 * was opened for writing elsewhere.
 */
export function openConnectionFiles(
  answer: HandshakeResponse,
  store: OpenStorage = storeInFiles,
  uid = process.getuid?.(),
): ConnectionFiles {
  const directory = dirname(answer.request);
  const match = DIRECTORY_NAME.exec(basename(directory));
  const wellNamed = RINGS.every((ring) => {
    const path = answer[ring];
    return (
      isAbsolute(path) &&
      normalize(path) === path &&
      dirname(path) === directory &&
      basename(path).startsWith(`qb-${ring}-`)
    );
  });
  if (match === null || !wellNamed) {
    throw refused(
      `the handshake names the rings ${RINGS.map((ring) => JSON.stringify(answer[ring])).join(', ')}`,
    );
  }
  const opened: Ring[] = [];
  try {
    const stat = lstatSync(directory);
    if (
      !stat.isDirectory() ||
      (uid !== undefined && stat.uid !== uid) ||
      (stat.mode & OTHERS_MAY_WRITE) !== 0
    ) {
      throw refused(`${directory} is not a directory of our own`);
    }
    const open = (ring: (typeof RINGS)[number]): Ring => {
      const opening = Ring.open(answer[ring], uid, store);
      opened.push(opening);
      return opening;
    };
    const rings = { request: open('request'), response: open('response'), event: open('event') };
    // Only now that all three are known to be ours.
    for (const ring of opened) ring.attach();
    return { directory, serverPid: Number(match[1]), clientPid: Number(match[2]), rings };
  } catch (error) {
    for (const ring of opened) ring.close();
    throw openError(error, directory);
  }
}

/**
 * After the daemon hung up: it removes the files itself, unless it died. Then nobody would, so we remove
 * this connection's files and directory, and only those.
 */
export async function removeIfDaemonDied(
  files: ConnectionFiles,
  daemon: 'dead already' | 'dying',
): Promise<void> {
  for (const waitMs of daemon === 'dying' ? DAEMON_GRACE_MS : [0]) {
    if (waitMs > 0) await pause(waitMs);
    if (!exists(files.directory)) return;
    if (!isAlive(files.serverPid)) {
      debug('daemon %d is gone, removing %s', files.serverPid, files.directory);
      for (const ring of Object.values(files.rings)) {
        quietly(() => unlinkSync(`${files.directory}/${ring.name}-header`));
        quietly(() => unlinkSync(`${files.directory}/${ring.name}-data`));
      }
      quietly(() => rmdirSync(files.directory));
      return;
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  // A killed daemon whose parent has not collected it yet still has its pid.
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return true;
  }
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

function quietly(action: () => void): void {
  try {
    action();
  } catch (error) {
    debug('clean-up: %s', (error as Error).message);
  }
}

function refused(what: string): CpgError {
  return new CpgError('CS_ERR_SECURITY', what, {
    remedy: 'find out which program answers on this address; nothing was written',
  });
}

function openError(error: unknown, directory: string): unknown {
  if (isCpgError(error)) return error;
  const { code } = error as NodeJS.ErrnoException;
  const what = `cannot open the rings in ${directory} (${code ?? String(error)})`;
  if (code === 'ENOENT') {
    return new CpgError('CS_ERR_LIBRARY', what, {
      cause: error,
      remedy:
        'the daemon made them in its own /dev/shm: share that with this container, or see whether the daemon is stopping',
    });
  }
  if (code === 'ELOOP') return refused(`${directory} holds symbolic links`);
  if (code === 'ENOSPC') return new CpgError('CS_ERR_NO_SPACE', what, { cause: error, remedy: SHM_REMEDY });
  if (code === 'EMFILE' || code === 'ENFILE') {
    return new CpgError('CS_ERR_NO_RESOURCES', what, { cause: error, remedy: DESCRIPTORS_REMEDY });
  }
  if (code === 'EACCES') {
    return new CpgError('CS_ERR_ACCESS', what, {
      cause: error,
      remedy:
        'the daemon let us in and gave the rings to our real user: see whether the effective user is another one, or a security module forbids it',
    });
  }
  return new CpgError('CS_ERR_LIBRARY', what, { cause: error });
}
