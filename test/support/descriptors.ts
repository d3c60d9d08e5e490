/** What this process has open, to see that nothing is left open. */
import { readdirSync, readlinkSync } from 'node:fs';

/** Sockets and ring files of this process, each with its number. Others come and go with the test runner. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    let target;
    try {
      target = readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // The descriptor of the listing itself.
      return [];
    }
    const counts = target.startsWith('socket:') || /-(header|data)( \(deleted\))?$/.test(target);
    return counts ? [`${fd} ${target}`] : [];
  });
}

/**
 * What was opened since `before` and is still open. What an earlier file of the same process left may go away
 * meanwhile: a client whose server stopped closes a turn later.
 */
export const openedSince = (before: readonly string[]): string[] =>
  openDescriptors().filter((descriptor) => !before.includes(descriptor));
