/**
 * The files of one connection (ring/paths.ts), made as a daemon makes them; transport/connection-files.ts is the other
 * side. The directory is for its owner alone (0700), and so are the files (0600).
 */
import { accessSync, chmodSync, constants, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { MAX_FRAME_BYTES } from '../../codec/limits';
import { debugServer as debug } from '../../debug';
import { createRing } from '../../ring/files';
import { CHUNK_MARGIN_BYTES, RING_HEADER_BYTES } from '../../ring/layout';
import { directoryPrefix, forEachRing, ringStem, SHM_DIRECTORY, type RingName } from '../../ring/paths';
import type { Ring } from '../../ring/ring';
import { removeOnExit } from '../exit';

const PAGE_BYTES = 4096;
const SERVICE = 'cpg';

export interface RingDirectory {
  readonly path: string;
  /** What the handshake tells the client: the two files of each ring begin with this. */
  readonly stems: Record<RingName, string>;
  readonly rings: Record<RingName, Ring>;
  /** Closes and removes everything. Can be called again. */
  remove(): void;
}

/** What the rings of this process may take of shared memory once they are full: their files are sparse. */
let promisedBytes = 0;

/**
 * Where rings go: shared memory, or the directory for temporary files where there is none, or too little for
 * rings that are full (containers often have 64 MiB).
 */
function baseFor(bytes: number): string {
  try {
    accessSync(SHM_DIRECTORY, constants.W_OK | constants.X_OK);
    const { bavail, blocks, bsize } = statfsSync(SHM_DIRECTORY);
    const unlimited = blocks === 0;
    // Half of it is left to others, a corosync for example.
    if (unlimited || (bytes <= bavail * bsize && promisedBytes + bytes <= (blocks * bsize) / 2)) {
      return SHM_DIRECTORY;
    }
  } catch {
    // There is none, or not for us.
  }
  return resolve(tmpdir());
}

/**
 * Makes the rings for frames of up to `frameBytes`. Throws the error of the file system, or RangeError for a
 * size no ring of ours has; nothing is left then.
 */
export function createRings(clientPid: number, connection: number, frameBytes: number): RingDirectory {
  if (!(frameBytes > 0 && frameBytes <= MAX_FRAME_BYTES))
    throw new RangeError(`frames of ${frameBytes} bytes`);
  const dataBytes = Math.ceil((frameBytes + CHUNK_MARGIN_BYTES + 1) / PAGE_BYTES) * PAGE_BYTES;
  const bytes = 3 * (dataBytes + RING_HEADER_BYTES);
  const base = baseFor(bytes);
  const path = mkdtempSync(join(base, directoryPrefix(process.pid, clientPid, connection)));
  try {
    const stem = (ring: RingName): string => ringStem(path, ring, SERVICE);
    const rings = forEachRing((ring) => createRing(stem(ring), dataBytes));
    const closeAndRemove = (): void => {
      for (const ring of Object.values(rings)) ring.close();
      removeDirectory(path);
    };
    const keepOnExit = removeOnExit(closeAndRemove);
    let promised = base === SHM_DIRECTORY ? bytes : 0;
    promisedBytes += promised;
    return {
      path,
      stems: { request: stem('request'), response: stem('response'), event: stem('event') },
      rings,
      remove: () => {
        keepOnExit();
        closeAndRemove();
        promisedBytes -= promised;
        promised = 0;
      },
    };
  } catch (error) {
    removeDirectory(path);
    throw error;
  }
}

/**
 * Clients may write in it, or have removed it already, so it may be in any state; what cannot be removed is left, and
 * never an error of ours.
 */
export function removeDirectory(path: string): void {
  try {
    try {
      rmSync(path, { recursive: true, force: true });
    } catch {
      chmodSync(path, 0o700);
      rmSync(path, { recursive: true, force: true });
    }
  } catch (error) {
    debug('%s cannot be removed: %s', path, (error as Error).message);
  }
}
