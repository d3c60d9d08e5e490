#!/usr/bin/env node
/** The `cpg` command. */
import { createWriteStream, fstatSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { ExitCode, Interrupted } from './failure';
import { run } from './run';

const interrupt = new AbortController();
const SIGNALS = {
  SIGHUP: ExitCode.HUNG_UP,
  SIGINT: ExitCode.INTERRUPTED,
  SIGTERM: ExitCode.TERMINATED,
} as const;

for (const [signal, exitCode] of Object.entries(SIGNALS)) {
  process.on(signal, () => {
    // Who asks twice does not want to wait for an orderly end.
    if (interrupt.signal.aborted) process.exit(exitCode);
    interrupt.abort(new Interrupted(exitCode));
  });
}

const { stdin, stderr, env } = process;
const args = process.argv.slice(2);
void run({ args, stdin, stdout: standardOutput(), stderr, env, interrupt: interrupt.signal }).then((code) => {
  // A terminal or pipe we read from would keep the process alive.
  process.exit(code);
});

/** Node's own stream on a file takes a write that the system did only in part for a whole one. */
function standardOutput(): Writable & { isTTY?: boolean } {
  const { stdout } = process;
  return fstatSync(stdout.fd).isFile() ? createWriteStream('', { fd: stdout.fd, autoClose: false }) : stdout;
}
