import { check, kind } from '../../arguments';
import { meansGroup, parseGroup } from '../../codec/groups';
import { CONNECTION, type RingName, type TapConnection } from '../connections';
import { MESSAGE, nodesOf, type TapMessage } from './messages';

/** A message is wanted if it matches every list; an empty list matches all. */
export interface Filter {
  /** The pid of either end; if the daemon sees no pid of the client, also the announced one. */
  pids: readonly number[];
  /** Names of services: cpg, cmap, quorum ... */
  services: readonly string[];
  /** Names of rings: request, response, event. */
  rings: readonly RingName[];
  /** Names of messages: mcast, deliver, ... */
  names: readonly string[];
  /** Groups, as printed by groupLabel() or as bytes; a name also matches itself with trailing NULs. */
  groups: readonly (string | Uint8Array)[];
  /** Nodeids in the message. */
  nodes: readonly number[];
}

/** The filter that accepts all messages. */
export const EVERYTHING: Filter = { pids: [], services: [], rings: [], names: [], groups: [], nodes: [] };

const FILTER = kind<Filter>(
  `a Filter: an object with the arrays ${Object.keys(EVERYTHING).join(', ')}`,
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    Object.keys(EVERYTHING).every((name) => Array.isArray((value as Record<string, unknown>)[name])),
);

/** The part of the filter that needs no message of the connection. */
export function acceptsConnection(filter: Filter, connection: TapConnection): boolean {
  check('acceptsConnection', 'filter', filter, FILTER);
  return mayAccept(filter, check('acceptsConnection', 'connection', connection, CONNECTION));
}

function mayAccept(filter: Filter, connection: TapConnection): boolean {
  return (
    (hasPid(filter, connection) || connection.clientPid === 0) &&
    (filter.services.length === 0 || filter.services.includes(connection.service))
  );
}

/** Whether one of the pids is in the name of the connection's directory. */
export function hasPid({ pids }: Filter, { clientPid, serverPid }: TapConnection): boolean {
  return pids.length === 0 || pids.includes(clientPid) || pids.includes(serverPid);
}

/** Whether a message is wanted. Throws CS_ERR_INVALID_PARAM for an invalid filter or message. */
export function accepts(filter: Filter, message: TapMessage): boolean {
  const { pids, rings, names, groups, nodes } = check('accepts', 'filter', filter, FILTER);
  const { frame, name, group, content, announcedPid } = check('accepts', 'message', message, MESSAGE);
  return (
    mayAccept(filter, frame.connection) &&
    (hasPid(filter, frame.connection) || (announcedPid !== undefined && pids.includes(announcedPid))) &&
    (rings.length === 0 || rings.includes(frame.ring)) &&
    (names.length === 0 || names.includes(name)) &&
    (groups.length === 0 || (group !== undefined && groups.some((wanted) => sameGroup(wanted, group)))) &&
    (nodes.length === 0 || nodesOf(content).some((nodeId) => nodes.includes(nodeId)))
  );
}

function sameGroup(wanted: string | Uint8Array, group: string | Uint8Array): boolean {
  return meansGroup(typeof wanted === 'string' ? parseGroup(wanted) : wanted, group);
}
