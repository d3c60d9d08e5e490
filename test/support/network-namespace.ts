/**
 * Puts this thread into the network namespace of another process: abstract sockets are only there. The calls of the C
 * library that do it go through koffi.
 */
import { closeSync, openSync } from 'node:fs';
import { createRequire } from 'node:module';

const CLONE_NEWNET = 0x4000_0000;

interface Koffi {
  load(path: null): { func(declaration: string): (fd: number, kind: number) => number };
  errno(): number;
}

const koffi = createRequire(__filename)('koffi') as Koffi;
const setns = koffi.load(null).func('int setns(int, int)');

/** Enters it; the function that is returned leads back. What is opened meanwhile stays where it was opened. */
export function enterNetwork(path: string): () => void {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  const there = openSync(path, 'r');
  const enter = (fd: number): void => {
    if (setns(fd, CLONE_NEWNET) !== 0) throw new Error(`setns: errno ${koffi.errno()}`);
  };
  try {
    enter(there);
  } catch (error) {
    closeSync(home);
    throw error;
  } finally {
    closeSync(there);
  }
  return () => {
    enter(home);
    closeSync(home);
  };
}
