/** The priority of this process against others: how nice it is, from 0 to MAX_NICE. */
import { readdirSync, readFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { debugTap as debug } from '../debug';

export const MAX_NICE = 19;
/** CAP_SYS_NICE of capabilities(7). */
const MAY_RAISE_BIT = 23n;

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

/** Whether we may take back what we gave up. Root may, and in a container often not even root. */
export function mayRaisePriority(): boolean {
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    // In a user namespace of its own, as of a container that was not started by root, the capability is not enough.
    const ownNamespace = !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'));
    if (effective === undefined || ownNamespace) return false;
    return ((BigInt(`0x${effective}`) >> MAY_RAISE_BIT) & 1n) === 1n;
  } catch {
    return false;
  }
}
