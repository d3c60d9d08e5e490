/** corosync-cpg: a client for Corosync closed process groups. */
export { connect, CpgClient } from './client';
export type { ConnectOptions, CpgClientEvents, JoinOptions, Message, MessageOptions } from './client';
export { Guarantee } from './codec/requests';
export { Reason } from './codec/addresses';
export type { CpgAddress } from './codec/addresses';
export type { RingId } from './codec/events';
export type { DispatchFlag, DispatchMode } from './dispatcher/dispatcher';
export type { ConfchgEvent, CpgEvent, DeliverEvent, TotemConfchgEvent } from './dispatcher/events';
export { CpgError, isCpgError } from './errors';
export type { CpgErrorCode, CpgErrorReason } from './errors';
export { MAX_GROUP_NAME_BYTES, MAX_MESSAGE_BYTES } from './codec/limits';
export type { GroupEntry } from './session/session';
export type { SessionState } from './session/states';
