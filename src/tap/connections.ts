/**
 * Which connections of libqb services there are: each has a directory in /dev/shm,
 *
 *     qb-<server pid>-<client pid>-<server's descriptor>-XXXXXX/qb-{request,response,event}-<service>-{header,data}
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { kind, uint32 } from '../arguments';

export const SHM_DIRECTORY = '/dev/shm';

/** A ring of a connection: requests go to the daemon, responses and events to the client. */
export type RingName = 'request' | 'response' | 'event';
export const RING_NAMES: readonly RingName[] = ['request', 'response', 'event'];

/** One connection, as a tap or a capture knows it. */
export interface TapConnection {
  /** Counts connections from 1 on, in the order in which they were found. */
  readonly id: number;
  /** The name of the service: cpg, cmap, quorum ... */
  readonly service: string;
  /** The client's pid as the daemon sees it; 0 where it sees none. */
  readonly clientPid: number;
  /** The daemon's pid as it sees itself. */
  readonly serverPid: number;
  /** The name of the client's process; empty when it cannot be known. */
  readonly clientName: string;
  /** The name of the daemon's process; empty when it cannot be known. */
  readonly serverName: string;
  /** The name of its directory, which no other connection of the machine has; a capture may not tell it. */
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

const DIRECTORY = /^qb-(\d+)-(\d+)-\d+-[^/]+$/;
const REQUEST_HEADER = /^qb-request-(.+)-header$/;

export function isConnectionDirectory(name: string): boolean {
  return DIRECTORY.test(name);
}

/** Names of the directories that connections have. */
export function connectionDirectories(root: string): string[] {
  return readdirSync(root).filter(isConnectionDirectory);
}

/** What a directory's name and files tell; undefined while the files are not all there. */
export function describeConnection(root: string, directory: string): Omit<TapConnection, 'id'> | undefined {
  const [, server, client] = DIRECTORY.exec(directory) ?? [];
  const files = readdirSync(join(root, directory));
  const service = files.map((name) => REQUEST_HEADER.exec(name)?.[1]).find((name) => name !== undefined);
  if (service === undefined || server === undefined || client === undefined) return undefined;
  const complete = RING_NAMES.every((ring) =>
    ['header', 'data'].every((part) => files.includes(`qb-${ring}-${service}-${part}`)),
  );
  if (!complete) return undefined;
  const [serverPid, clientPid] = [Number(server), Number(client)];
  return {
    service,
    serverPid,
    clientPid,
    serverName: processName(serverPid),
    clientName: processName(clientPid),
    directory,
  };
}

export function ringStem(root: string, directory: string, ring: RingName, service: string): string {
  return join(root, directory, `qb-${ring}-${service}`);
}

function processName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}
