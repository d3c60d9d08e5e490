/**
 * libqb's names for the rings of a connection. Each connection has a directory,
 *
 *     /dev/shm/qb-<server pid>-<client pid>-<server's descriptor>-XXXXXX/qb-{request,response,event}-<service>
 *
 * and each name, the stem of the ring, denotes two files: `...-header` and `...-data`.
 */
import { basename, dirname, isAbsolute, join } from 'node:path';

export const SHM_DIRECTORY = '/dev/shm';

/** A ring of a connection: requests go to the daemon, responses and events to the client. */
export type RingName = 'request' | 'response' | 'event';
export const RING_NAMES: readonly RingName[] = ['request', 'response', 'event'];

export interface ConnectionPids {
  readonly serverPid: number;
  /** The client's pid as the daemon sees it. */
  readonly clientPid: number;
}

export interface ConnectionPath extends ConnectionPids {
  readonly directory: string;
}

const DIRECTORY = /^qb-(\d+)-(\d+)-\d+-[^/]+$/;
const REQUEST_HEADER = /^qb-request-(.+)-header$/;

/** The beginning of a directory's name, for mkdtemp() to complete. */
export function directoryPrefix(serverPid: number, clientPid: number, connection: number): string {
  return `qb-${serverPid}-${clientPid}-${connection}-`;
}

/** The pids in the name of a connection's directory; undefined for any other name. */
export function pidsOf(name: string): ConnectionPids | undefined {
  const match = DIRECTORY.exec(name);
  return match === null ? undefined : { serverPid: Number(match[1]), clientPid: Number(match[2]) };
}

export function ringStem(directory: string, ring: RingName, service: string): string {
  return join(directory, `qb-${ring}-${service}`);
}

/** The header file and the data file of a ring. */
export function ringFiles(stem: string): [header: string, data: string] {
  return [`${stem}-header`, `${stem}-data`];
}

/** Parses three stems; undefined unless they are the rings of one service, in the directory of a connection. */
export function connectionOf(stems: Readonly<Record<RingName, string>>): ConnectionPath | undefined {
  const directory = dirname(stems.request);
  const service = basename(stems.request).slice('qb-request-'.length);
  const pids = pidsOf(basename(directory));
  const fits = RING_NAMES.every((ring) => stems[ring] === ringStem(directory, ring, service));
  return fits && service !== '' && isAbsolute(directory) && pids ? { directory, ...pids } : undefined;
}

/** The service whose request ring is in a directory with these files; the other rings may be missing. */
export function serviceOf(files: readonly string[]): string | undefined {
  return files.map((name) => REQUEST_HEADER.exec(name)?.[1]).find((name) => name !== undefined);
}

/** The files of a service's rings that are missing among these. */
export function missingFiles(service: string, files: readonly string[]): string[] {
  return RING_NAMES.flatMap((ring) => ringFiles(ringStem('', ring, service))).filter(
    (file) => !files.includes(file),
  );
}

/** Creates something for each ring; if one fails, closes the others. */
export function forEachRing<T extends { close(): void }>(make: (ring: RingName) => T): Record<RingName, T> {
  const made: T[] = [];
  const next = (ring: RingName): T => {
    const one = make(ring);
    made.push(one);
    return one;
  };
  try {
    return { request: next('request'), response: next('response'), event: next('event') };
  } catch (error) {
    for (const one of made) one.close();
    throw error;
  }
}
