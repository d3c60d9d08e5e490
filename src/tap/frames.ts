/** What a tap and a capture are made of. */
import type { RingName, TapConnection } from './connections';

export interface TapFrame {
  readonly connection: TapConnection;
  readonly ring: RingName;
  /** When it was seen, in nanoseconds since 1970: up to some milliseconds after it was written. */
  readonly timeNs: bigint;
  readonly bytes: Uint8Array;
  /** It was in the ring before the tap came: the time says only when the tap did. */
  readonly old: boolean;
  /** Its reader had taken it already, so its length comes from its own header. */
  readonly consumed: boolean;
  /** Frames of this ring that were missed just before it; an estimate, at least 1 when any. */
  readonly missed: number;
}
