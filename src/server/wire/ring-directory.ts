/**
 * The files of one connection (ring/paths.ts), made as a daemon makes them; transport/connection-files.ts is the other
 * side. The random end of the directory's name begins with a tag, which says which server made it, for the next one to see
 * whether that is dead (../claim.ts). The directory is for its owner alone (0700), and so are the files (0600).
 */
import { accessSync, constants, mkdtempSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { MAX_FRAME_BYTES } from '../../codec/limits';
import { createRing } from '../../ring/files';
import { CHUNK_MARGIN_BYTES, RING_HEADER_BYTES } from '../../ring/layout';
import { directoryPrefix, forEachRing, ringStem, SHM_DIRECTORY, type RingName } from '../../ring/paths';
import type { Ring } from '../../ring/ring';
import { claim } from '../claim';
import { removeOnExit } from '../exit';
import { removeQuietly } from '../remove';

const PAGE_BYTES = 4096;
const SERVICE = 'cpg';

export interface RingDirectory {
  readonly path: string;
  /** What the handshake tells the client: the two files of each ring begin with this. */
  readonly stems: Record<RingName, string>;
  readonly rings: Record<RingName, Ring>;
  /** Closes and removes everything. To be called once. */
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
  const share = claim(base);
  let path: string;
  try {
    path = mkdtempSync(join(base, `${directoryPrefix(process.pid, clientPid, connection)}${share.tag}.`));
  } catch (error) {
    share.release();
    throw error;
  }
  let rings: Record<RingName, Ring> | undefined;
  const closeAndRemove = (): void => {
    for (const ring of Object.values(rings ?? {})) ring.close();
    removeQuietly(path);
    share.release();
  };
  try {
    const stem = (ring: RingName): string => ringStem(path, ring, SERVICE);
    rings = forEachRing((ring) => createRing(stem(ring), dataBytes));
    const keepOnExit = removeOnExit(() => removeQuietly(path));
    const promised = base === SHM_DIRECTORY ? bytes : 0;
    promisedBytes += promised;
    return {
      path,
      stems: { request: stem('request'), response: stem('response'), event: stem('event') },
      rings,
      remove: () => {
        keepOnExit();
        closeAndRemove();
        promisedBytes -= promised;
      },
    };
  } catch (error) {
    closeAndRemove();
    throw error;
  }
}
