/**
 * The files of one connection (ring/paths.ts), made as a daemon makes them; transport/connection-files.ts is the other
 * side. The random end of the directory's name begins with the tag of its server, so that the next server can check whether
 * that one is dead (../claim.ts). Only the owner may use the directory (0700) and the files (0600).
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
  /** File name prefixes in the handshake's answer: two files per ring. */
  readonly stems: Record<RingName, string>;
  readonly rings: Record<RingName, Ring>;
  /** Closes and removes everything. Call it once. */
  remove(): void;
}

/** Shared memory for all rings of this process once they are full: their files are sparse. */
let promisedBytes = 0;

/**
 * The directory of the rings: shared memory, or the directory of temporary files if there is none, or too little for full
 * rings (containers often have 64 MiB).
 */
function baseFor(bytes: number): string {
  try {
    accessSync(SHM_DIRECTORY, constants.W_OK | constants.X_OK);
    const { bavail, blocks, bsize } = statfsSync(SHM_DIRECTORY);
    const unlimited = blocks === 0;
    // Leave half of it to others, corosync for example.
    if (unlimited || (bytes <= bavail * bsize && promisedBytes + bytes <= (blocks * bsize) / 2)) {
      return SHM_DIRECTORY;
    }
  } catch {
    // It is missing, or not ours to use.
  }
  return resolve(tmpdir());
}

/**
 * Makes the rings for frames of up to `frameBytes`. Throws the file system error, or RangeError for an unsupported size,
 * and then leaves nothing.
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
