/**
 * The states of a handle, and the calls each state allows. A call the table refuses is rejected before anything is
 * sent, because the daemon's own answers are traps: it accepts a leave of a foreign group and keeps a ghost member,
 * answers a second join with CS_ERR_EXIST or CS_ERR_BUSY forever, and accepts an mcast without a join only to drop it.
 *
 *     unjoined --join--> joining --ok--> joined --leave--> leaving --ok--> left
 *         ^                 |               ^                 |
 *         +----- error -----+               +----- error -----+        any state --close--> closed
 */
import { CpgError, type CpgErrorCode, type CpgErrorReason } from '../errors';

/** The state of a handle: it joins one group once, and cannot join again after it has left. */
export type SessionState = 'unjoined' | 'joining' | 'joined' | 'leaving' | 'left' | 'closed';

/** Calls by required state: `query` is membership, groups, localNodeId and alloc. */
export type SessionCall = 'join' | 'leave' | 'mcast' | 'query';

interface Refusal {
  code: CpgErrorCode;
  reason?: CpgErrorReason;
  why: string;
  remedy: string;
}

const ok = 'ok';
const secondJoin: Refusal = {
  code: 'CS_ERR_INVALID_PARAM',
  reason: 'second-join',
  why: 'this handle has joined a group already',
  remedy: 'a handle joins one group once; connect again for another group',
};
const joining: Refusal = {
  ...secondJoin,
  why: 'a join of this handle is under way, and its answer is still to come',
};
const spent: Refusal = {
  code: 'CS_ERR_INVALID_PARAM',
  reason: 'left',
  why: 'this handle has left its group',
  remedy: 'a handle is spent after a leave; connect again to join',
};
const notJoined: Refusal = {
  code: 'CS_ERR_NOT_EXIST',
  reason: 'not-joined',
  why: 'this handle has not joined a group',
  remedy: 'await join() first',
};
const stillJoining: Refusal = {
  code: 'CS_ERR_BUSY',
  reason: 'joining',
  why: 'the join of this handle is not complete',
  remedy: 'await join() first',
};
const gone: Refusal = {
  code: 'CS_ERR_NOT_EXIST',
  reason: 'left',
  why: 'this handle is not a member of its group any more',
  remedy: 'connect again and join',
};
const closed: Refusal = { code: 'CS_ERR_BAD_HANDLE', why: 'this handle is closed', remedy: 'connect again' };

export const SESSION_TABLE: Readonly<
  Record<SessionState, Readonly<Record<SessionCall, typeof ok | Refusal>>>
> = {
  unjoined: { join: ok, leave: notJoined, mcast: notJoined, query: ok },
  joining: { join: joining, leave: stillJoining, mcast: notJoined, query: ok },
  joined: { join: secondJoin, leave: ok, mcast: ok, query: ok },
  leaving: { join: secondJoin, leave: gone, mcast: gone, query: ok },
  left: { join: spent, leave: gone, mcast: gone, query: ok },
  closed: { join: closed, leave: closed, mcast: closed, query: closed },
};

/** Throws the table's CpgError unless `call` is allowed in `state`; `name` is what the user called. */
export function assertAllowed(state: SessionState, call: SessionCall, name: string = call): void {
  const cell = SESSION_TABLE[state][call];
  if (cell === ok) return;
  const { code, reason, why, remedy } = cell;
  throw new CpgError(code, `${name}: ${why}`, { reason, remedy });
}
