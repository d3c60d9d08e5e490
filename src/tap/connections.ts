/** A connection of a libqb service, as a tap or a capture knows it. */
import { kind, uint32 } from '../arguments';

export type RingName = 'request' | 'response' | 'event';
export const RING_NAMES: readonly RingName[] = ['request', 'response', 'event'];

/** One connection, as a tap or a capture knows it. */
export interface TapConnection {
  /** Counts connections from 1 on, in the order in which they were found. */
  readonly id: number;
  readonly service: string;
  readonly clientPid: number;
  readonly serverPid: number;
  /** Names of the two processes; empty when they cannot be known. */
  readonly clientName: string;
  readonly serverName: string;
  /** The name of its directory, which no other connection of the machine has; a capture may not tell it. */
  readonly directory?: string;
}

export const CONNECTION = kind<TapConnection>(
  'a TapConnection, as Tap and CaptureReader make them',
  (value) => {
    if (typeof value !== 'object' || value === null) return false;
    const { id, service, clientPid, serverPid, clientName, serverName } = value as Record<string, unknown>;
    return (
      typeof service === 'string' &&
      typeof clientName === 'string' &&
      typeof serverName === 'string' &&
      uint32.accepts(id) &&
      uint32.accepts(clientPid) &&
      uint32.accepts(serverPid)
    );
  },
);
