/** How commands fail, and what the shell and the user see of it. */
import { getSystemErrorMap, types } from 'node:util';
import { asError, CpgError, isCpgError, type CpgErrorReason } from '../errors';
import { systemErrorCode } from '../system-error';
import { visible } from '../text';

export const ExitCode = {
  OK: 0,
  FAILURE: 1,
  USAGE: 2,
  HUNG_UP: 129,
  INTERRUPTED: 130,
  TERMINATED: 143,
} as const;

/** The command line cannot be understood. */
export class UsageError extends Error {}

/** SIGHUP, SIGINT or SIGTERM: the reason with which everything under way is aborted. */
export class Interrupted extends Error {
  constructor(readonly exitCode: number) {
    super('interrupted');
  }
}

/** Nobody reads our output any more: the end, and no failure. */
export class OutputClosed extends Error {
  constructor() {
    super('the output was closed');
  }
}

/** An error of the system; it keeps its own code. */
export class SystemFailure extends Error {
  constructor(
    readonly code: string,
    readonly what: string,
    cause: unknown,
  ) {
    super(what, { cause });
  }
}

const NO_ROOM = 'make room there: see df and quota';
const SYSTEM_REMEDIES: Readonly<Record<string, string>> = {
  ENOENT: 'check the path',
  ENOTDIR: 'check the path',
  ELOOP: 'check the path: its links lead in a circle',
  EISDIR: 'give a file, not a directory',
  ENAMETOOLONG: 'use a shorter path',
  EACCES: 'run as a user who may, root for instance',
  EPERM: 'run as a user who may, root for instance',
  EROFS: 'choose another place: this one is mounted read-only',
  EMFILE: 'close files, or raise the limit of this process (ulimit -n)',
  ENFILE: 'close files: the system has too many open',
};

/** The failure for an error of the system: no room is CS_ERR_NO_SPACE, everything else keeps its own code. */
export function systemFailure(error: NodeJS.ErrnoException, what: string): CpgError | SystemFailure {
  const { code = 'unknown error' } = error;
  if (systemErrorCode(code) !== 'CS_ERR_NO_SPACE') return new SystemFailure(code, what, error);
  return new CpgError('CS_ERR_NO_SPACE', `${what} (${code})`, { cause: error, remedy: NO_ROOM });
}

/** Whether the system says so, and not Node, whose codes begin with ERR_. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  return types.isNativeError(error) && typeof code === 'string' && /^E(?!RR_)[A-Z0-9]+$/.test(code);
}

/**
 * `cpg: <what>: CS_ERR_X (N): <what to do>`; for an error of the system, `cpg: <command> <what>: ENOENT: <what to do>`.
 */
export function failureLine(error: unknown, command: string): string {
  const failure = asFailure(error);
  if (isCpgError(failure)) return `cpg: ${visible(failure.message)}`;
  const { code, what } = failure;
  return `cpg: ${visible(`${command} ${what}`)}: ${code}: ${SYSTEM_REMEDIES[code] ?? meaningOf(code)}`;
}

function asFailure(error: unknown): CpgError | SystemFailure {
  if (isCpgError(error) || error instanceof SystemFailure) return error;
  if (isSystemError(error)) return systemFailure(error, error.path ?? error.syscall ?? error.message);
  return new CpgError('CS_ERR_LIBRARY', asError(error).message, {
    cause: error,
    remedy: 'see the message; with DEBUG=cpg:* in the environment there is more',
  });
}

function meaningOf(code: string): string {
  for (const [name, meaning] of getSystemErrorMap().values()) if (name === code) return meaning;
  return 'see errno(3)';
}

/** Failures of the way to the daemon: `cpg info` looks for their cause. */
const OF_THE_WAY: readonly (CpgErrorReason | undefined)[] = [
  'no-daemon',
  'connection-lost',
  'handshake-failed',
  'rings-not-there',
  'not-allowed',
  'socket-permission',
  'ring-permission',
  'socket-mode',
  'old-libqb',
  'ring-layout',
  'old-node',
  'no-answer',
];

export function isOfTheWay(error: unknown): boolean {
  return isCpgError(error) && OF_THE_WAY.includes(error.reason);
}
