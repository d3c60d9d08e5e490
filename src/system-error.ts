/** System errors (errno) as CpgError. */
import { CpgError, isCpgError, type CpgErrorCode, type CpgErrorReason } from './errors';

/** Corosync's translation (qb_to_cs_error) with additions; anything else is CS_ERR_LIBRARY. */
const CODES: Readonly<Record<string, CpgErrorCode>> = {
  EACCES: 'CS_ERR_ACCESS',
  EPERM: 'CS_ERR_ACCESS',
  EROFS: 'CS_ERR_ACCESS',
  ERR_ACCESS_DENIED: 'CS_ERR_ACCESS',
  EADDRINUSE: 'CS_ERR_EXIST',
  EEXIST: 'CS_ERR_EXIST',
  EAGAIN: 'CS_ERR_TRY_AGAIN',
  EDQUOT: 'CS_ERR_NO_SPACE',
  EFBIG: 'CS_ERR_NO_SPACE',
  ENOSPC: 'CS_ERR_NO_SPACE',
  EINVAL: 'CS_ERR_INVALID_PARAM',
  EMFILE: 'CS_ERR_NO_RESOURCES',
  ENFILE: 'CS_ERR_NO_RESOURCES',
  ENAMETOOLONG: 'CS_ERR_NAME_TOO_LONG',
  ENOMEM: 'CS_ERR_NO_MEMORY',
  ENOSYS: 'CS_ERR_NOT_SUPPORTED',
  ENOTSUP: 'CS_ERR_NOT_SUPPORTED',
};

/** Default remedies for system errors; CpgError's own defaults are about the daemon. */
const REMEDIES: Remedies = {
  CS_ERR_ACCESS: 'let this user write there: see the permissions, and whether it is mounted read-only',
  CS_ERR_NAME_TOO_LONG: 'use a shorter path',
  CS_ERR_NO_MEMORY: 'free memory, or raise the limits of this process',
  CS_ERR_NO_RESOURCES: 'close files and connections, or raise the limit of this process (ulimit -n)',
  CS_ERR_NO_SPACE: 'make room there: see df and quota',
};

/** Remedies by code. */
export type Remedies = Partial<Record<CpgErrorCode, string>>;

/** The code for an errno name such as 'ENOSPC'. */
export function systemErrorCode(name: string | undefined): CpgErrorCode {
  return CODES[name ?? ''] ?? 'CS_ERR_LIBRARY';
}

/** Wraps a system error as the error `what`; a CpgError is returned unchanged. */
export function systemError(
  error: unknown,
  what: string,
  remedies: Remedies = {},
  reason?: CpgErrorReason,
): CpgError {
  if (isCpgError(error)) return error;
  const { code: name } = error as NodeJS.ErrnoException;
  const code = systemErrorCode(name);
  const remedy = remedies[code] ?? REMEDIES[code];
  return new CpgError(code, `${what} (${name ?? String(error)})`, {
    cause: error,
    reason,
    ...(remedy === undefined ? {} : { remedy }),
  });
}
