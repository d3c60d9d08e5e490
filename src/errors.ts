import { inspect, types } from 'node:util';

/**
 * Every cs_error_t of corosync/corotypes.h with its number and what a caller can do about it.
 * The texts are defaults; the place that throws usually says something more precise.
 */
const CS_ERRORS = {
  CS_ERR_LIBRARY: { errno: 2, text: 'the connection to corosync failed', remedy: 'connect again' },
  CS_ERR_VERSION: {
    errno: 3,
    text: 'the daemon speaks another version',
    remedy: 'compare the versions of both sides',
  },
  CS_ERR_INIT: { errno: 4, text: 'initialisation failed', remedy: 'see the daemon log' },
  CS_ERR_TIMEOUT: {
    errno: 5,
    text: 'the deadline passed',
    remedy: 'raise timeoutMs, or see whether the daemon is overloaded',
  },
  CS_ERR_TRY_AGAIN: { errno: 6, text: 'the daemon cannot take this now', remedy: 'try again after a pause' },
  CS_ERR_INVALID_PARAM: {
    errno: 7,
    text: 'a parameter or the state of the handle does not allow this',
    remedy: 'check the call',
  },
  CS_ERR_NO_MEMORY: { errno: 8, text: 'the daemon is out of memory', remedy: 'free memory on the node' },
  CS_ERR_BAD_HANDLE: { errno: 9, text: 'the handle is closed', remedy: 'connect again' },
  CS_ERR_BUSY: {
    errno: 10,
    text: 'the daemon is busy with an earlier request of this handle',
    remedy: 'try again after a pause',
  },
  CS_ERR_ACCESS: {
    errno: 11,
    text: 'permission denied',
    remedy: 'allow this user with a uidgid stanza in corosync.conf',
  },
  CS_ERR_NOT_EXIST: {
    errno: 12,
    text: 'no such thing',
    remedy: 'check that the handle has joined the group',
  },
  CS_ERR_NAME_TOO_LONG: { errno: 13, text: 'the name is too long', remedy: 'use at most 128 bytes' },
  CS_ERR_EXIST: { errno: 14, text: 'it exists already', remedy: 'use another group, or another process' },
  CS_ERR_NO_SPACE: { errno: 15, text: 'no space left', remedy: 'make room, for example in /dev/shm' },
  CS_ERR_INTERRUPT: {
    errno: 16,
    text: 'a membership change interrupted the operation',
    remedy: 'send again',
  },
  CS_ERR_NAME_NOT_FOUND: { errno: 17, text: 'the name was not found', remedy: 'check the name' },
  CS_ERR_NO_RESOURCES: {
    errno: 18,
    text: 'the daemon has no resources left',
    remedy: 'close unused connections',
  },
  CS_ERR_NOT_SUPPORTED: { errno: 19, text: 'not supported', remedy: 'see the documentation' },
  CS_ERR_BAD_OPERATION: {
    errno: 20,
    text: 'the operation is not valid here',
    remedy: 'check the order of the calls',
  },
  CS_ERR_FAILED_OPERATION: { errno: 21, text: 'the operation failed', remedy: 'see the daemon log' },
  CS_ERR_MESSAGE_ERROR: {
    errno: 22,
    text: 'a malformed message',
    remedy: 'check that the peer is corosync; the connection is not usable any more',
  },
  CS_ERR_QUEUE_FULL: { errno: 23, text: 'a queue is full', remedy: 'send more slowly' },
  CS_ERR_QUEUE_NOT_AVAILABLE: {
    errno: 24,
    text: 'a queue is not available',
    remedy: 'try again after a pause',
  },
  CS_ERR_BAD_FLAGS: { errno: 25, text: 'unknown flags', remedy: 'check the flags' },
  CS_ERR_TOO_BIG: { errno: 26, text: 'too big', remedy: 'send it in parts' },
  CS_ERR_NO_SECTIONS: { errno: 27, text: 'nothing more to iterate', remedy: 'stop iterating' },
  CS_ERR_CONTEXT_NOT_FOUND: { errno: 28, text: 'the context was not found', remedy: 'check the handle' },
  CS_ERR_TOO_MANY_GROUPS: { errno: 30, text: 'too many groups', remedy: 'use fewer groups' },
  CS_ERR_SECURITY: { errno: 100, text: 'a security violation', remedy: 'check the keys of the cluster' },
} as const satisfies Record<string, { errno: number; text: string; remedy: string }>;

/** The name of a cs_error_t, as in corosync/corotypes.h. */
export type CpgErrorCode = keyof typeof CS_ERRORS;

/** CS_OK of cs_error_t: what a successful reply carries. */
export const CS_OK = 1;

const codeByErrno = new Map<number, CpgErrorCode>(
  (Object.keys(CS_ERRORS) as CpgErrorCode[]).map((code) => [CS_ERRORS[code].errno, code]),
);

/** The number of a code, as it stands on the wire. */
export function errnoOf(code: CpgErrorCode): number {
  return CS_ERRORS[code].errno;
}

/** The code for a number from the wire; a number we do not know is CS_ERR_LIBRARY. */
export function codeOf(errno: number): CpgErrorCode {
  return codeByErrno.get(errno) ?? 'CS_ERR_LIBRARY';
}

/**
 * Tells apart causes that share a code. Absent where the code says it all.
 *
 * | reason | code | cause |
 * |---|---|---|
 * | `no-daemon` | CS_ERR_LIBRARY | nobody listens at the address |
 * | `connection-lost` | CS_ERR_LIBRARY | the daemon closed the connection: it stopped, crashed or dropped us |
 * | `handshake-failed` | CS_ERR_LIBRARY | the connection was closed before the daemon answered |
 * | `rings-not-there` | CS_ERR_LIBRARY | the daemon's ring files do not exist here: /dev/shm is not shared |
 * | `not-allowed` | CS_ERR_ACCESS | the daemon does not allow this user |
 * | `socket-permission` | CS_ERR_ACCESS | the system does not let this user reach the socket |
 * | `ring-permission` | CS_ERR_ACCESS | the system does not let this user open the rings |
 * | `ring-read-only` | CS_ERR_ACCESS | the rings are in a file system that is mounted read-only here |
 * | `effective-user` | CS_ERR_ACCESS | the daemon let the real user in, and the effective one is another |
 * | `node-permission` | CS_ERR_ACCESS | Node's permission model forbids it |
 * | `socket-mode` | CS_ERR_NOT_SUPPORTED | the daemon uses datagrams (qb_ipc_type: socket), and nothing here can |
 * | `datagrams-not-there` | CS_ERR_LIBRARY | the daemon's datagram sockets are not here: it is in another network namespace |
 * | `old-libqb` | CS_ERR_NOT_SUPPORTED | the daemon runs with a libqb before 1.0.4 |
 * | `32-bit` | CS_ERR_NOT_SUPPORTED | the daemon is a 32-bit program |
 * | `byte-order` | CS_ERR_NOT_SUPPORTED | the daemon is built for the other byte order |
 * | `ring-layout` | CS_ERR_NOT_SUPPORTED | the rings have an unknown layout |
 * | `old-node` | CS_ERR_NOT_SUPPORTED | this Node cannot use abstract sockets |
 * | `no-koffi` | CS_ERR_NOT_SUPPORTED | `mapped: true` needs the package koffi or node:ffi |
 * | `bad-argument` | CS_ERR_INVALID_PARAM | an argument or an option cannot be used |
 * | `second-join` | CS_ERR_INVALID_PARAM | the handle has joined, or is joining |
 * | `other-group` | CS_ERR_INVALID_PARAM | leave() of a group that is not the joined one |
 * | `left` | CS_ERR_INVALID_PARAM, CS_ERR_NOT_EXIST, CS_ERR_INTERRUPT | the handle has left its group |
 * | `not-joined` | CS_ERR_NOT_EXIST | the handle has not joined a group |
 * | `joining` | CS_ERR_BUSY | the join of the handle is not complete |
 * | `pid-taken` | CS_ERR_EXIST | a member on this node has the same pid |
 * | `outbox-full` | CS_ERR_TRY_AGAIN | too much waits to be sent |
 * | `no-event` | CS_ERR_TRY_AGAIN | dispatch('oneNonblocking') found nothing |
 * | `no-answer` | CS_ERR_TIMEOUT | the daemon did not answer |
 * | `refused-until-deadline` | CS_ERR_TIMEOUT | the daemon answered "try again" until the deadline |
 * | `not-sent` | CS_ERR_TIMEOUT | the daemon took nothing; the message will not be sent |
 * | `sent-later` | CS_ERR_TIMEOUT | the daemon took nothing yet; the message is sent when it goes on |
 * | `not-confirmed` | CS_ERR_TIMEOUT | the message was sent and has not come back; it may still |
 * | `unread-events` | CS_ERR_QUEUE_FULL | events came and were dropped before anything listened |
 * | `refused` | any | the daemon answered with this code |
 */
export type CpgErrorReason =
  | 'no-daemon'
  | 'connection-lost'
  | 'handshake-failed'
  | 'rings-not-there'
  | 'not-allowed'
  | 'socket-permission'
  | 'ring-permission'
  | 'ring-read-only'
  | 'effective-user'
  | 'node-permission'
  | 'socket-mode'
  | 'datagrams-not-there'
  | 'old-libqb'
  | '32-bit'
  | 'byte-order'
  | 'ring-layout'
  | 'old-node'
  | 'no-koffi'
  | 'bad-argument'
  | 'second-join'
  | 'other-group'
  | 'left'
  | 'not-joined'
  | 'joining'
  | 'pid-taken'
  | 'outbox-full'
  | 'no-event'
  | 'no-answer'
  | 'refused-until-deadline'
  | 'not-sent'
  | 'sent-later'
  | 'not-confirmed'
  | 'unread-events'
  | 'refused';

/** What the constructor of CpgError takes beside the code. */
export interface CpgErrorOptions {
  /**
   * Which of the causes that share the code.
   *
   * @default none
   */
  reason?: CpgErrorReason | undefined;
  /**
   * What to do next.
   *
   * @default the general advice for the code
   */
  remedy?: string | undefined;
  /**
   * The error that caused this one.
   *
   * @default none
   */
  cause?: unknown;
}

/**
 * The one error type of this package. Match on `code`, and on `reason` where causes share a code; `errno` is the same
 * as a cs_error_t number.
 * The message reads `<what happened>: <CODE> (<errno>): <what to do>`.
 */
export class CpgError extends Error {
  override readonly name = 'CpgError';
  /** The name of the cs_error_t, `CS_ERR_...`. */
  readonly code: CpgErrorCode;
  /** The number of the cs_error_t. */
  readonly errno: number;
  /** Which cause, where several share the code. */
  declare readonly reason?: CpgErrorReason;
  /** What happened, without code and advice. */
  readonly what: string;
  /** What to do next. */
  readonly remedy: string;

  constructor(code: CpgErrorCode, what?: string, options: CpgErrorOptions = {}) {
    if (!Object.hasOwn(CS_ERRORS, code)) {
      throw new CpgError('CS_ERR_INVALID_PARAM', `CpgError: code is ${inspect(code)}`, {
        remedy: 'give the name of a cs_error_t, CS_ERR_...',
      });
    }
    const entry = CS_ERRORS[code];
    const happened = what ?? entry.text;
    const remedy = options.remedy ?? entry.remedy;
    super(
      `${happened}: ${code} (${entry.errno}): ${remedy}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.code = code;
    this.errno = entry.errno;
    if (options.reason !== undefined) this.reason = options.reason;
    this.what = happened;
    this.remedy = remedy;
  }

  /**
   * `instanceof CpgError` is true for those of another copy of this package as well: import and require() make two.
   *
   * @internal
   */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this === CpgError) return isCpgError(value);
    return Function.prototype[Symbol.hasInstance].call(this, value);
  }

  /** The error for a cs_error_t number that a reply to `what` carried. */
  static fromReply(errno: number, what: string): CpgError {
    const code = codeByErrno.get(errno);
    if (code === undefined)
      return new CpgError('CS_ERR_LIBRARY', `${what}: the daemon answered the unknown error ${errno}`, {
        reason: 'refused',
      });
    return new CpgError(code, `${what}: ${CS_ERRORS[code].text}`, { reason: 'refused' });
  }
}

/** True when `error` is a CpgError, also one from another copy of this package, or from another realm. */
export function isCpgError(error: unknown): error is CpgError {
  return types.isNativeError(error) && error.name === 'CpgError' && 'code' in error && 'errno' in error;
}

/** What was thrown, as an Error: an own one for what is none. */
export function asError(thrown: unknown): Error {
  // As process.emitWarning() knows them: also those of other realms, and a DOMException.
  const isError = typeof thrown === 'object' && thrown !== null && Object.hasOwn(thrown, 'stack');
  return isError ? (thrown as Error) : new Error(typeof thrown === 'string' ? thrown : inspect(thrown));
}
