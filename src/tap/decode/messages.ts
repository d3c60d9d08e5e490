/**
 * What frames mean: a connection is a conversation, and only who follows it knows which group a message goes
 * to and which request a reply answers.
 */
import { check, kind } from '../../arguments';
import { decodeEvent, type CpgWireEvent } from '../../codec/events';
import { asBuffer } from '../../codec/fields';
import { groupText } from '../../codec/groups';
import { decodeRequest, type CpgRequest } from '../../codec/requests';
import { decodeResponse, type CpgResponse } from '../../codec/responses';
import { isCpgError } from '../../errors';
import { counted } from '../../text';
import { CONNECTION, type TapConnection } from '../connections';
import { FRAME, type TapFrame } from '../frames';
import { expectsReply, messageName } from './services';

const ID_BYTES = 4;
const SIZE_OFFSET = 8;
const REQUEST_HEADER_BYTES = 16;
const RESPONSE_HEADER_BYTES = 24;
const ERROR_OFFSET = 16;
/** Requests of a connection whose reply is awaited; libqb's clients have one at a time. */
const MAX_AWAITED = 64;

/** What a message says, by its `type`. */
export type Content = CpgRequest | CpgResponse | CpgWireEvent;

/** A frame and what it means. */
export interface TapMessage {
  /** The frame itself. */
  readonly frame: TapFrame;
  /** Counts all messages from 1 on. */
  readonly number: number;
  /** The id in its header. */
  readonly id: number;
  /** Its name: see messageName(). */
  readonly name: string;
  /** All fields; only of the service cpg. Byte fields are views into the frame. */
  readonly content: Content | undefined;
  /** The group it is about, known from the connection where the message itself does not say. */
  readonly group: string | Uint8Array | undefined;
  /** The pid by which members know the client of the connection, once a join was seen. */
  readonly announcedPid: number | undefined;
  /** cs_error_t of a reply. */
  readonly error: number | undefined;
  /** What is wrong with the frame, if it cannot be decoded. */
  readonly problem: string | undefined;
  /** `number` of the request that this reply answers. */
  readonly answers: number | undefined;
  /** Nanoseconds between that request and this reply, as far as they could be seen. */
  readonly afterNs: bigint | undefined;
}

const CONTENT = kind<Content | undefined>(
  'the content of a TapMessage',
  (value) => value === undefined || (typeof value === 'object' && value !== null && 'type' in value),
);

export const MESSAGE = kind<TapMessage>('a TapMessage, as Conversations makes them', (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { frame, name, content } = value as Record<string, unknown>;
  return typeof name === 'string' && CONTENT.accepts(content) && FRAME.accepts(frame);
});

interface Awaited {
  number: number;
  id: number;
  timeNs: bigint;
}

/** State of one connection. */
interface Conversation {
  group: string | Uint8Array | undefined;
  announcedPid: number | undefined;
  awaited: Awaited[];
}

/** Follows connections, and makes messages of their frames. */
export class Conversations {
  readonly #byConnection = new Map<TapConnection, Conversation>();
  #count = 0;

  /** The next frame, whatever its bytes. */
  add(frame: TapFrame): TapMessage {
    return this.#add(check('Conversations.add', 'frame', frame, FRAME));
  }

  #add(frame: TapFrame): TapMessage {
    const { connection, ring, bytes } = frame;
    const conversation = this.#conversation(connection);
    // After a gap nobody knows whose reply comes next.
    if (frame.missed > 0 && ring !== 'event') conversation.awaited = [];
    const number = ++this.#count;
    const id = idOf(bytes);
    const { content, problem } = decode(frame);
    this.#learn(conversation, content);
    const awaited = this.#pair(conversation, frame, number, id);
    return {
      frame,
      number,
      id,
      name: messageName(connection.service, ring, id),
      content,
      group: groupOf(content) ?? (groupMatters(frame, content) ? conversation.group : undefined),
      announcedPid: conversation.announcedPid,
      error: ring === 'response' ? errorOf(bytes) : undefined,
      problem,
      answers: awaited?.number,
      afterNs: awaited === undefined || frame.old ? undefined : frame.timeNs - awaited.timeNs,
    };
  }

  /** The next frame, when nobody is to see it: only what later ones need is kept of it. */
  pass(frame: TapFrame): void {
    const { connection, ring, bytes } = check('Conversations.pass', 'frame', frame, FRAME);
    const tells =
      ring === 'response' ||
      (ring === 'request' && expectsReply(connection.service, idOf(bytes))) ||
      (ring === 'event' && this.#conversation(connection).group === undefined);
    if (tells) this.#add(frame);
    else this.#count++;
  }

  /** The connection is gone. */
  end(connection: TapConnection): void {
    this.#byConnection.delete(check('Conversations.end', 'connection', connection, CONNECTION));
  }

  #conversation(connection: TapConnection): Conversation {
    let conversation = this.#byConnection.get(connection);
    if (conversation === undefined) {
      conversation = { group: undefined, announcedPid: undefined, awaited: [] };
      this.#byConnection.set(connection, conversation);
    }
    return conversation;
  }

  /** A connection is a member of one group at most: the one it joined, or whose events it gets. */
  #learn(conversation: Conversation, content: Content | undefined): void {
    if (content === undefined) return;
    if (content.type === 'join' && 'pid' in content) conversation.announcedPid = content.pid;
    const tells = content.type === 'join' || content.type === 'deliver' || content.type === 'confchg';
    if (tells && 'group' in content) conversation.group = groupText(content.group);
  }

  /** Remembers a request, or finds the one that a reply answers. */
  #pair(conversation: Conversation, frame: TapFrame, number: number, id: number): Awaited | undefined {
    const { awaited } = conversation;
    if (frame.ring === 'request' && expectsReply(frame.connection.service, id)) {
      awaited.push({ number, id, timeNs: frame.timeNs });
      if (awaited.length > MAX_AWAITED) awaited.shift();
    }
    return frame.ring === 'response' ? awaited.shift() : undefined;
  }
}

function decode(frame: TapFrame): Pick<TapMessage, 'content' | 'problem'> {
  const { connection, ring, bytes } = frame;
  const problem = headerProblem(frame);
  if (connection.service !== 'cpg') return { content: undefined, problem };
  try {
    const decoders = { request: decodeRequest, response: decodeResponse, event: decodeEvent };
    const content = decoders[ring](bytes);
    return { content: problem === undefined ? content : undefined, problem };
  } catch (error) {
    if (!isCpgError(error)) throw error;
    return { content: undefined, problem: error.what };
  }
}

/** What is wrong with what the frames of all services of libqb have: a header, and in it the size of the whole. */
export function headerProblem(frame: TapFrame): string | undefined {
  const { ring, bytes } = check('headerProblem', 'frame', frame, FRAME);
  const headerBytes = ring === 'request' ? REQUEST_HEADER_BYTES : RESPONSE_HEADER_BYTES;
  const { length } = bytes;
  if (length < headerBytes) return `${counted(length, 'byte')}, where a header has ${headerBytes}`;
  const size = asBuffer(bytes).readInt32LE(SIZE_OFFSET);
  return size === length ? undefined : `a header that says ${counted(size, 'byte')} on a frame of ${length}`;
}

function groupOf(content: Content | undefined): string | Uint8Array | undefined {
  return content !== undefined && 'group' in content ? groupText(content.group) : undefined;
}

/** Messages are sent to the group of the connection; the others are not about a group. */
function groupMatters({ ring }: TapFrame, content: Content | undefined): boolean {
  if (ring !== 'request')
    return content !== undefined && (content.type === 'join' || content.type === 'leave');
  return content?.type === 'mcast' || content?.type === 'partialMcast';
}

function idOf(bytes: Uint8Array): number {
  return bytes.length >= ID_BYTES ? asBuffer(bytes).readInt32LE(0) : NaN;
}

function errorOf(bytes: Uint8Array): number | undefined {
  return bytes.length < RESPONSE_HEADER_BYTES ? undefined : asBuffer(bytes).readInt32LE(ERROR_OFFSET);
}

/** The nodes a message is about. */
export function nodesOf(content: Content | undefined): number[] {
  check('nodesOf', 'content', content, CONTENT);
  if (content === undefined) return [];
  switch (content.type) {
    case 'confchg':
      return [...content.members, ...content.left, ...content.joined].map(({ nodeId }) => nodeId);
    case 'totemConfchg':
      return content.members;
    case 'membershipGet':
      return 'members' in content ? content.members.map(({ nodeId }) => nodeId) : [];
    default:
      return 'nodeId' in content ? [content.nodeId] : [];
  }
}

/** The message a frame carries for the members of the group, if it carries one whole or in part. */
export function payloadOf(content: Content | undefined): Uint8Array | undefined {
  check('payloadOf', 'content', content, CONTENT);
  if (content === undefined) return undefined;
  if ('message' in content) return content.message;
  return 'fragment' in content ? content.fragment : undefined;
}
