/** What this process has open, to see that nothing is left open. */
import { readdirSync, readlinkSync } from 'node:fs';

/** Sockets and ring files of this process, one entry a descriptor. Others come and go with the test runner. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        // The descriptor of the listing itself.
        return [];
      }
    })
    .filter((target) => target.startsWith('socket:') || /-(header|data)( \(deleted\))?$/.test(target))
    .sort();
}
