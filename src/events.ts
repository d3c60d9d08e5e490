/** The events of a client: what listeners and loops get. */
import type { CpgAddress as WireAddress, Reason } from './codec/addresses';
import type { RingId } from './codec/events';

/** One member of a group: `struct cpg_address`. */
export interface CpgAddress extends WireAddress {
  /** Why it is in a list; 0 in lists of members. A number that a later corosync may add arrives as it is. */
  reason: Reason;
}

/** The membership of the group changed: `cpg_confchg_fn_t`. */
export interface ConfchgEvent {
  /** Which event it is. */
  type: 'confchg';
  /** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
  group: string | Uint8Array;
  /** The bytes of the group. One object for all events of a handle: not to be changed. */
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
  /** Which event it is. */
  type: 'deliver';
  /** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
  group: string | Uint8Array;
  /** The bytes of the group. One object for all events of a handle: not to be changed. */
  groupBytes: Uint8Array;
  /** The sender's nodeid. */
  nodeId: number;
  /** The sender's pid, as it announced it on join. */
  pid: number;
  /** This handle sent it. */
  own: boolean;
  /** The receiver's own bytes. Messages that came together may share one ArrayBuffer, as Node's Buffers do. */
  message: Buffer;
}

/** The nodes of the ring changed: `cpg_totem_confchg_fn_t`. */
export interface TotemConfchgEvent {
  /** Which event it is. */
  type: 'totemConfchg';
  /** The ring there is now. */
  ringId: RingId;
  /** The nodeids in it. */
  members: number[];
}

/** Anything that happens in a group, told apart by `type`. */
export type CpgEvent = ConfchgEvent | DeliverEvent | TotemConfchgEvent;

/** One loop over events. `AsyncIterableIterator<CpgEvent, undefined>`, which TypeScript has from 5.6 on. */
export interface CpgEventLoop extends AsyncIterator<CpgEvent, undefined> {
  /** Itself, for `for await`. */
  [Symbol.asyncIterator](): CpgEventLoop;
}
