import { chmodSync, rmSync } from 'node:fs';
import { debugServer as debug } from '../debug';

/**
 * Removes a file, or a directory with all that is in it. Clients may write in it, or have removed it already, so it may be
 * in any state; what cannot be removed is left, and never an error of ours.
 */
export function removeQuietly(path: string): void {
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
