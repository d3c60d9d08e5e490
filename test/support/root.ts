import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function directoryAbove(directory: string): string {
  return existsSync(join(directory, 'package.json')) ? directory : directoryAbove(dirname(directory));
}

/** The checkout, also for what runs compiled, from build/. */
export const ROOT = directoryAbove(__dirname);
