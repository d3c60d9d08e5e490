/**
 * Decodes frames in context: only the previous frames of a connection reveal the group of a message and the request of a
 * reply.
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
/** Unanswered requests per connection; libqb's clients have one at a time. */
const MAX_AWAITED = 64;

/** The content of a message, by its `type`. */
export type Content = CpgRequest | CpgResponse | CpgWireEvent;

/** A decoded frame. */
export interface TapMessage {
  /** The frame itself. */
  readonly frame: TapFrame;
  /** Number of the message, from 1 on. */
  readonly number: number;
  /** The id in its header. */
  readonly id: number;
  /** Its name: see messageName(). */
  readonly name: string;
  /** All fields; only for the service cpg. Byte fields are views into the frame. */
  readonly content: Content | undefined;
  /** Its group; known from the connection if the message itself does not have it. */
  readonly group: string | Uint8Array | undefined;
  /** The pid in the client's join, if the join was seen. */
  readonly announcedPid: number | undefined;
  /** cs_error_t of a reply. */
  readonly error: number | undefined;
  /** The reason if the frame cannot be decoded. */
  readonly problem: string | undefined;
  /** `number` of the answered request. */
  readonly answers: number | undefined;
  /** Nanoseconds between that request and this reply, if visible. */
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

/** Follows connections and decodes their frames. */
export class Conversations {
  readonly #byConnection = new Map<TapConnection, Conversation>();
  #count = 0;

  /** Decodes the next frame, whatever its bytes. */
  add(frame: TapFrame): TapMessage {
    return this.#add(check('Conversations.add', 'frame', frame, FRAME));
  }

  #add(frame: TapFrame): TapMessage {
    const { connection, ring, bytes } = frame;
    const conversation = this.#conversation(connection);
    // After a gap the request of the next reply is unknown.
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

  /** Takes the next frame without decoding it: keeps only the state that later ones need. */
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

  /** A connection is a member of at most one group: the one it joined, or whose events it gets. */
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

/** Messages go to the group of the connection; other requests are not about a group. */
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

/** The message, or the part of it, that a frame carries for members of the group. */
export function payloadOf(content: Content | undefined): Uint8Array | undefined {
  check('payloadOf', 'content', content, CONTENT);
  if (content === undefined) return undefined;
  if ('message' in content) return content.message;
  return 'fragment' in content ? content.fragment : undefined;
}
