import { chmodSync, rmSync } from 'node:fs';
import { debugServer as debug } from '../debug';

/**
 * Removes a file, or a directory with its content. It may be in any state: clients may be writing in it, or have removed it
 * already. Files that cannot be removed stay, and are never an error.
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
