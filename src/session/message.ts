/** Stages outgoing messages that fit one frame. */
import { MCAST_HEADER_BYTES, renewMcastHeader } from '../codec/requests';
import { debugMessage, showsMessages } from '../debug';
import type { Transport } from '../transport/transport';

export interface Confirm {
  resolve: () => void;
  reject: (error: Error) => void;
}

export interface OutgoingMessage {
  readonly parts: readonly Uint8Array[];
  readonly length: number;
  readonly guarantee: number;
  /** Settles once the message was delivered or is known to be lost. The bytes must not change before that. */
  readonly confirm?: Confirm | undefined;
}

/** Messages from allocMessage() and the memory around them. */
const preparedMemory = new WeakMap<Uint8Array, { memory: Buffer; headroomBytes: number }>();

const WORD_BYTES = 4;

/** Allocates a message with room for all headers before it, so that it is sent without a copy. */
export function allocMessage(transport: Transport, size: number): Buffer {
  const { headroomBytes } = transport;
  const start = headroomBytes + MCAST_HEADER_BYTES;
  const memory = Buffer.alloc(Math.ceil((start + size) / WORD_BYTES) * WORD_BYTES);
  const message = memory.subarray(start, start + size);
  preparedMemory.set(message, { memory, headroomBytes });
  return message;
}

const mcastHeader = Buffer.alloc(MCAST_HEADER_BYTES);

/** Stages a message that fits one frame. False when there is no room. */
export function stageMessage(transport: Transport, message: OutgoingMessage): boolean {
  const staged = stageFrame(transport, message);
  if (staged && showsMessages()) {
    const { guarantee, length, parts } = message;
    const shown = { type: 'mcast', guarantee, length, parts };
    debugMessage('>', shown);
  }
  return staged;
}

function stageFrame(transport: Transport, { guarantee, length, parts }: OutgoingMessage): boolean {
  const frameLength = MCAST_HEADER_BYTES + length;
  const prepared = parts.length === 1 ? preparedMemory.get(parts[0]!) : undefined;
  if (prepared?.headroomBytes === transport.headroomBytes) {
    renewMcastHeader(prepared.memory, prepared.headroomBytes, guarantee, length);
    return transport.stagePrepared(prepared.memory, frameLength);
  }
  renewMcastHeader(mcastHeader, 0, guarantee, length);
  return transport.stage(mcastHeader, parts, frameLength);
}
