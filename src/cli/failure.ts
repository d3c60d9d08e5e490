/** How commands fail, and what the shell and the user see of it. */
import { CpgError, isCpgError, type CpgErrorCode } from '../errors';
import { visible } from './text';

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

const SYSTEM_ERRORS: Record<string, { code: CpgErrorCode; remedy: string }> = {
  ENOENT: { code: 'CS_ERR_NOT_EXIST', remedy: 'check the path' },
  ENOTDIR: { code: 'CS_ERR_NOT_EXIST', remedy: 'check the path' },
  EISDIR: { code: 'CS_ERR_INVALID_PARAM', remedy: 'give a file, not a directory' },
  EACCES: { code: 'CS_ERR_ACCESS', remedy: 'run as a user who may, root for instance' },
  EPERM: { code: 'CS_ERR_ACCESS', remedy: 'run as a user who may, root for instance' },
  ENOSPC: { code: 'CS_ERR_NO_SPACE', remedy: 'make room' },
  EADDRINUSE: { code: 'CS_ERR_EXIST', remedy: 'choose another address, or end who uses it' },
};

/** Any error as a CpgError, so that all failures read alike. */
export function asCpgError(error: unknown): CpgError {
  if (isCpgError(error)) return error;
  const { code, path, message } = error as NodeJS.ErrnoException;
  const known = SYSTEM_ERRORS[code ?? ''];
  const what = code !== undefined && path !== undefined ? `${path} (${code})` : message;
  return new CpgError(known?.code ?? 'CS_ERR_LIBRARY', what, {
    cause: error,
    remedy: known?.remedy ?? 'see the message; with DEBUG=cpg:* in the environment there is more',
  });
}

/** `cpg: <what>: CS_ERR_X (N): <what to do>`. */
export function failureLine(error: unknown): string {
  return `cpg: ${visible(asCpgError(error).message)}`;
}
