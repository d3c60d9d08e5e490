/// <reference types="node" preserve="true" />
/** corosync-cpg: a client for Corosync closed process groups. */
export { connect, CpgClient } from './client';
export type {
  ConnectOptions,
  CpgClientEvents,
  GroupsOptions,
  JoinOptions,
  Message,
  MessageOptions,
  SignalOptions,
} from './client';
export { Guarantee } from './codec/requests';
export { Reason } from './codec/addresses';
export type { RingId } from './codec/events';
export type { DispatchFlag, DispatchMode } from './dispatcher/dispatcher';
export type {
  ConfchgEvent,
  CpgAddress,
  CpgEvent,
  CpgEventLoop,
  DeliverEvent,
  TotemConfchgEvent,
} from './events';
export { CpgError, isCpgError } from './errors';
export type { CpgErrorCode, CpgErrorOptions, CpgErrorReason } from './errors';
export { MAX_GROUP_NAME_BYTES, MAX_MESSAGE_BYTES } from './codec/limits';
export type { GroupEntry } from './session/session';
export type { SessionState } from './session/states';
