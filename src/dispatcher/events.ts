/** What a client hands to its user. */
import type { CpgAddress } from '../codec/addresses';
import type { RingId } from '../codec/events';

/** The membership of the group changed: cpg_confchg_fn_t. */
export interface ConfchgEvent {
  /** A string when the bytes are valid UTF-8, else the bytes. */
  group: string | Uint8Array;
  /** All members after the change; their reason is 0. */
  members: CpgAddress[];
  /** Who left, and why: 2 leave, 3 node down, 5 process down. */
  left: CpgAddress[];
  /** Who joined, and why: 1 join, 4 node up. */
  joined: CpgAddress[];
}

/** A message, in total order: cpg_deliver_fn_t. */
export interface DeliverEvent {
  group: string | Uint8Array;
  nodeId: number;
  pid: number;
  /** The receiver's own bytes. Messages that came together may share one ArrayBuffer, as Node's Buffers do. */
  message: Uint8Array;
}

/** The nodes of the ring changed: cpg_totem_confchg_fn_t. */
export interface TotemConfchgEvent {
  ringId: RingId;
  members: number[];
}

/** What each kind of event carries. */
export interface EventPayloads {
  confchg: ConfchgEvent;
  deliver: DeliverEvent;
  totemConfchg: TotemConfchgEvent;
}

/** The events as `for await` gives them. */
export type CpgEvent = {
  [Type in keyof EventPayloads]: { type: Type } & EventPayloads[Type];
}[keyof EventPayloads];
