import { types } from 'node:util';
import { kind, uint32 } from '../arguments';
import { CONNECTION, RING_NAMES, type RingName, type TapConnection } from './connections';

/** One frame from a tap or a capture. */
export interface TapFrame {
  /** Its connection: one object for all its frames. */
  readonly connection: TapConnection;
  /** Its ring. */
  readonly ring: RingName;
  /** When the tap saw it, in nanoseconds since 1970: up to a few milliseconds after it was written. */
  readonly timeNs: bigint;
  /** The whole frame, header included. */
  readonly bytes: Uint8Array;
  /** It was in the ring before the tap started: the time is that of the start. */
  readonly old: boolean;
  /** Its reader had already consumed it, so its length comes from its own header. */
  readonly consumed: boolean;
  /** Estimated number of frames missed just before it in this ring; at least 1 if any. */
  readonly missed: number;
}

/** Limits of the capture format. */
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
