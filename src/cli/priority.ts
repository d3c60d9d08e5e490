/** The priority of this process against others: how nice it is, from 0 to MAX_NICE. */
import { readdirSync } from 'node:fs';
import { setPriority } from 'node:os';
import { debugTap as debug } from '../debug';

export const MAX_NICE = 19;

/** Sets that of every thread: on Linux a priority is a thread's own, and the garbage collector has several. */
export function setNice(nice: number): void {
  for (const thread of threads()) {
    try {
      setPriority(Number(thread), nice);
    } catch (error) {
      // Not allowed, or ended just now: it runs as it is.
      debug('nice %d: %s', nice, String(error));
    }
  }
}

function threads(): string[] {
  try {
    return readdirSync('/proc/self/task');
  } catch {
    return [];
  }
}
