/** Messages as lines of text, and as objects for JSON. */
import { types } from 'node:util';
import { check } from '../../arguments';
import type { CpgAddress } from '../../codec/addresses';
import { Guarantee, IterationType, FragmentType } from '../../codec/requests';
import { codeOf, CS_OK, errnoOf } from '../../errors';
import type { RingName, TapConnection } from '../connections';
import type { TapFrame } from '../frames';
import { jsonGroup, jsonMessage } from './json';
import { SERVICE_NAMES } from './services';
import { MESSAGE, payloadOf, type Content, type TapMessage } from './messages';
import {
  counted,
  cut,
  durationLabel,
  groupLabel,
  messageLabel,
  reasonLabel,
  timeLabel,
  visible,
} from './text';

/** Characters of a message in a line. */
const MAX_SHOWN = 80;

/** `node[4711]`. */
export function processLabel(name: string, pid: number): string {
  return `${name === '' ? '' : visible(name)}[${pid}]`;
}

/** `cpg node[4711] - corosync[815]`. */
export function connectionLabel(connection: TapConnection): string {
  return endsLabel(connection, '-');
}

function endsLabel(connection: TapConnection, between: string): string {
  const { id, service, clientPid, serverName, serverPid } = connection;
  // Several clients may have no pid visible to the daemon.
  const clientName = clientPid === 0 ? `connection-${id}` : connection.clientName;
  return `${visible(service)} ${processLabel(clientName, clientPid)} ${between} ${processLabel(serverName, serverPid)}`;
}

const ARROWS = { request: '>', response: '<', event: '<' } as const;
const knownEnds = new WeakMap<TapConnection, Partial<Record<RingName, string>>>();

/** Sender and receiver; the same for all messages of a ring. */
function endsOf({ connection, ring }: TapFrame): string {
  const known = knownEnds.get(connection) ?? {};
  knownEnds.set(connection, known);
  return (known[ring] ??= endsLabel(connection, ARROWS[ring]));
}

/** The parts of a message's line: time, both ends, content. */
export function describeMessage(message: TapMessage): { time: string; ends: string; what: string } {
  const { frame, name, group, error, problem, answers, afterNs, content } = check(
    'describeMessage',
    'message',
    message,
    MESSAGE,
  );
  const words = [name];
  if (frame.ring === 'response' && error !== undefined)
    words.push(errorLabel(error, frame.connection.service));
  if (group !== undefined) words.push(groupLabel(group));
  words.push(problem === undefined ? details(content, frame.bytes.length) : `MALFORMED: ${visible(problem)}`);
  // Both were seen in one round, so the time between them is unknown.
  const after = afterNs === undefined || afterNs === 0n ? '' : ` after ${durationLabel(afterNs)}`;
  if (answers !== undefined) words.push(`(answers #${answers}${after})`);
  return {
    // A message from before the tap has no time of its own.
    time: frame.old ? 'before'.padEnd(15) : timeLabel(frame.timeNs),
    ends: endsOf(frame),
    what: words.filter((word) => word !== '').join(' '),
  };
}

function details(content: Content | undefined, frameBytes: number): string {
  if (content === undefined) return counted(frameBytes, 'byte');
  const payload = payloadOf(content);
  switch (content.type) {
    case 'mcast':
      return 'guarantee' in content ? `${sized(payload!)}${guarantee(content.guarantee)}` : '';
    case 'partialMcast':
      if (!('fragment' in content)) return '';
      return `${fragment(content)}${guarantee(content.guarantee)}`;
    case 'deliver':
      return `from ${content.nodeId}:${content.pid} ${sized(content.message)}`;
    case 'partialDeliver':
      return `from ${content.nodeId}:${content.pid} ${fragment(content)}`;
    case 'confchg':
      return [
        `members ${list(content.members)}`,
        ...changes('joined', content.joined),
        ...changes('left', content.left),
      ].join(', ');
    case 'totemConfchg':
      return `ring ${content.ringId.nodeId}.${content.ringId.seq.toString()} of nodes ${content.members.join(' ')}`;
    case 'join':
      return 'pid' in content
        ? `as pid ${content.pid}${content.flags === 0 ? '' : ` flags ${content.flags}`}`
        : '';
    case 'leave':
      return 'pid' in content ? `as pid ${content.pid}` : '';
    case 'membershipGet':
      return 'members' in content ? list(content.members) : '';
    case 'localGet':
      return 'nodeId' in content ? `node ${content.nodeId}` : '';
    case 'iterationInitialize':
      if ('iterationType' in content) return nameOf(IterationType, content.iterationType);
      return 'handle' in content ? `handle ${content.handle.toString()}` : '';
    case 'iterationNext':
      if ('nodeId' in content) return `${content.nodeId}:${content.pid}`;
      return 'handle' in content ? `handle ${content.handle.toString()}` : '';
    case 'iterationFinalize':
      return 'handle' in content ? `handle ${content.handle.toString()}` : '';
    default:
      return '';
  }
}

function sized(message: Uint8Array): string {
  const shown = cut(message, MAX_SHOWN);
  const label = messageLabel(shown, MAX_SHOWN / 2);
  return `${counted(message.length, 'byte')}${message.length === 0 ? '' : `: ${label}${shown === message ? '' : '...'}`}`;
}

function fragment(part: { fragmentType: number; messageLength: number; fragment: Uint8Array }): string {
  const { fragmentType, messageLength, fragment: bytes } = part;
  return `${nameOf(FragmentType, fragmentType).toLowerCase()} fragment of ${counted(messageLength, 'byte')}, ${sized(bytes)}`;
}

function guarantee(value: number): string {
  return value === Guarantee.AGREED ? '' : ` (${nameOf(Guarantee, value)})`;
}

function list(members: readonly CpgAddress[]): string {
  return members.length === 0 ? 'none' : members.map(({ nodeId, pid }) => `${nodeId}:${pid}`).join(' ');
}

function changes(word: string, members: readonly CpgAddress[]): string[] {
  if (members.length === 0) return [];
  return [
    `${word} ${members.map(({ nodeId, pid, reason }) => `${nodeId}:${pid} (${reasonLabel(reason)})`).join(' ')}`,
  ];
}

function nameOf(table: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(table).find((name) => table[name] === value) ?? String(value);
}

/** `CS_ERR_BUSY (10)`; a bare number where it is not a cs_error_t. */
function errorLabel(error: number, service: string): string {
  const code = codeIn(service, error);
  if (code === undefined) return `error ${error}`;
  return error === CS_OK ? code : `${code} (${error})`;
}

/** The name of an error. Services of others, Pacemaker's for example, have error numbers of their own. */
function codeIn(service: string, error: number): string | undefined {
  if (!SERVICE_NAMES.includes(service)) return undefined;
  const code = codeOf(error);
  return error === CS_OK ? 'CS_OK' : errnoOf(code) === error ? code : undefined;
}

/** The message with all its fields; text bytes as text, others in base64. */
export function jsonOf(message: TapMessage): object {
  check('jsonOf', 'message', message, MESSAGE);
  const { frame, number, id, name, group, error, problem, answers, afterNs, content } = message;
  const { connection, ring, timeNs, bytes, old, consumed, missed } = frame;
  return {
    type: name,
    direction: ring,
    ...(content === undefined ? {} : fieldsOf(content)),
    ...(group === undefined ? {} : jsonGroup(group)),
    ...(error === undefined ? {} : { error, code: codeIn(connection.service, error) }),
    ...(problem === undefined ? {} : { problem }),
    number,
    timeNs: timeNs.toString(),
    ...(answers === undefined ? {} : { answers }),
    ...(afterNs === undefined ? {} : { afterMs: Number(afterNs) / 1e6 }),
    service: connection.service,
    connection: connection.id,
    clientPid: connection.clientPid,
    serverPid: connection.serverPid,
    ...(connection.directory === undefined ? {} : { directory: connection.directory }),
    id,
    size: bytes.length,
    ...(old ? { old } : {}),
    ...(consumed ? { consumed } : {}),
    ...(missed > 0 ? { missedBefore: missed } : {}),
  };
}

function fieldsOf(content: Content): object {
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(content)) {
    if (key === 'type' || key === 'group' || key === 'error') continue;
    if (key === 'message' && types.isUint8Array(value)) Object.assign(fields, jsonMessage(value));
    else if (types.isUint8Array(value)) fields[`${key}Base64`] = Buffer.from(value).toString('base64');
    else fields[key] = value;
  }
  return fields;
}
