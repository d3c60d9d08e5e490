import { kind, uint32 } from '../arguments';

export { RING_NAMES, type RingName } from '../ring/paths';

/** One connection, as a tap or a capture knows it. */
export interface TapConnection {
  /** Number of the connection, from 1 on, in order of discovery. */
  readonly id: number;
  /** The name of the service: cpg, cmap, quorum ... */
  readonly service: string;
  /** The client's pid as the daemon sees it; 0 if it sees none. */
  readonly clientPid: number;
  /** The daemon's pid as it sees itself. */
  readonly serverPid: number;
  /** The name of the client's process; empty if unknown. */
  readonly clientName: string;
  /** The name of the daemon's process; empty if unknown. */
  readonly serverName: string;
  /** The name of its directory, unique on the machine; a capture may lack it. */
  readonly directory?: string | undefined;
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
