/** What a server of this process has left in the file system and in the table of descriptors. */
import { readdirSync } from 'node:fs';

export function ringDirectories(): string[] {
  return readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${process.pid}-`));
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Resolves when the condition holds; rejects after a while. */
export async function eventually(what: string, condition: () => boolean, timeoutMs = 5000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
