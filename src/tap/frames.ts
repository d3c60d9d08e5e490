/** What a tap and a capture are made of. */
import { types } from 'node:util';
import { kind, uint32 } from '../arguments';
import { CONNECTION, RING_NAMES, type RingName, type TapConnection } from './connections';

/** One frame, as a tap saw it or a capture has it. */
export interface TapFrame {
  /** The connection it belongs to: one object for all its frames. */
  readonly connection: TapConnection;
  /** The ring it went through. */
  readonly ring: RingName;
  /** When it was seen, in nanoseconds since 1970: up to some milliseconds after it was written. */
  readonly timeNs: bigint;
  /** The whole frame, header included. */
  readonly bytes: Uint8Array;
  /** It was in the ring before the tap came: the time says only when the tap did. */
  readonly old: boolean;
  /** Its reader had taken it already, so its length comes from its own header. */
  readonly consumed: boolean;
  /** Frames of this ring that were missed just before it; an estimate, at least 1 when any. */
  readonly missed: number;
}

/** What a capture has room for. */
export const END_OF_TIME_NS = 2n ** 64n;

export const FRAME = kind<TapFrame>('a TapFrame, as Tap and CaptureReader make them', (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { connection, ring, timeNs, bytes, missed } = value as Record<string, unknown>;
  return (
    types.isUint8Array(bytes) &&
    RING_NAMES.includes(ring as RingName) &&
    typeof timeNs === 'bigint' &&
    timeNs >= 0n &&
    timeNs < END_OF_TIME_NS &&
    uint32.accepts(missed) &&
    CONNECTION.accepts(connection)
  );
});
