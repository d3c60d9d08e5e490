/** The events that listeners and loops receive. */
import type { CpgAddress as WireAddress, Reason } from './codec/addresses';
import type { RingId } from './codec/events';

/** One member of a group: `struct cpg_address`. */
export interface CpgAddress extends WireAddress {
  /** Why it is listed; 0 in lists of members. Numbers added by a later corosync are passed through. */
  reason: Reason;
}

/** The membership of the group changed: `cpg_confchg_fn_t`. */
export interface ConfchgEvent {
  /** The type of the event. */
  type: 'confchg';
  /** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
  group: string | Uint8Array;
  /** The bytes of the group name. All events of a handle share this object: do not change it. */
  groupBytes: Uint8Array;
  /** All members after the change; their reason is 0. */
  members: CpgAddress[];
  /** Members that left, and why: 2 leave, 3 node down, 5 process down. */
  left: CpgAddress[];
  /** Members that joined, and why: 1 join, 4 node up. */
  joined: CpgAddress[];
}

/** A message, in total order: `cpg_deliver_fn_t`. */
export interface DeliverEvent {
  /** The type of the event. */
  type: 'deliver';
  /** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
  group: string | Uint8Array;
  /** The bytes of the group name. All events of a handle share this object: do not change it. */
  groupBytes: Uint8Array;
  /** The sender's nodeid. */
  nodeId: number;
  /** The sender's pid, as it announced it on join. */
  pid: number;
  /** This handle sent it. */
  own: boolean;
  /** The receiver's own copy. Messages that came together may share an ArrayBuffer, as Node's Buffers do. */
  message: Buffer;
}

/** The nodes of the ring changed: `cpg_totem_confchg_fn_t`. */
export interface TotemConfchgEvent {
  /** The type of the event. */
  type: 'totemConfchg';
  /** The new ring. */
  ringId: RingId;
  /** The nodeids in the ring. */
  members: number[];
}

/** Any event of a group, discriminated by `type`. */
export type CpgEvent = ConfchgEvent | DeliverEvent | TotemConfchgEvent;

/** One loop over events: `AsyncIterableIterator<CpgEvent, undefined>`, which needs TypeScript 5.6. */
export interface CpgEventLoop extends AsyncIterator<CpgEvent, undefined> {
  /** Itself, for `for await`. */
  [Symbol.asyncIterator](): CpgEventLoop;
}
