/** Messages that nodes exchange in total order, and their senders. */
import { DELIVER, encodeEvent } from '../codec/events';
import { requestHeader } from '../codec/header';
import { groupBytesOf } from './groups';

const SIZE_OFFSET = requestHeader.offsetOf('size');
const EMPTY = Buffer.alloc(0);

/** A member that sends: its address, and the header of its messages. */
export class Sender {
  readonly #head: Buffer;

  constructor(
    readonly nodeId: number,
    readonly pid: number,
    readonly group: string,
  ) {
    this.#head = encodeEvent({ type: 'deliver', group: groupBytesOf(group), nodeId, pid, message: EMPTY });
  }

  /** The part of a deliver event before its message; valid until the next call. */
  deliverHead(messageLength: number): Buffer {
    this.#head.writeInt32LE(DELIVER.headerBytes + messageLength, SIZE_OFFSET);
    this.#head.writeUInt32LE(messageLength, DELIVER.messageLength);
    return this.#head;
  }
}

export type TotemMessage =
  | { readonly kind: 'join'; readonly nodeId: number; readonly pid: number; readonly group: string }
  | {
      readonly kind: 'leave';
      readonly nodeId: number;
      readonly pid: number;
      readonly group: string;
      readonly reason: number;
    }
  | {
      readonly kind: 'message';
      readonly sender: Sender;
      /** The message begins at `start`: a view per message would cost more than all the rest. */
      readonly body: Buffer;
      readonly start: number;
    }
  | {
      readonly kind: 'fragment';
      readonly sender: Sender;
      readonly body: Uint8Array;
      readonly messageLength: number;
      readonly fragmentType: number;
    };

/** Bytes of a message in a queue. */
export function queuedSize(message: TotemMessage): number {
  return 64 + ('body' in message ? message.body.length : message.group.length);
}

/** A copy with its own memory, valid after the present call. */
export function withOwnMemory(message: TotemMessage): TotemMessage {
  switch (message.kind) {
    case 'message':
      return { ...message, body: Buffer.from(message.body.subarray(message.start)), start: 0 };
    case 'fragment':
      return { ...message, body: Buffer.from(message.body) };
    default:
      return message;
  }
}
