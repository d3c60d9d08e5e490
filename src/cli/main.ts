#!/usr/bin/env node
/** The `cpg` command. */
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

const { stdin, stdout, stderr, env } = process;
void run({ args: process.argv.slice(2), stdin, stdout, stderr, env, interrupt: interrupt.signal }).then(
  (code) => {
    // A terminal or pipe we read from would keep the process alive.
    process.exit(code);
  },
);
