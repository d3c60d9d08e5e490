/** The recorded frames, their expected values, and which of their bytes are significant. */
import {
  decodeEvent,
  decodeHandshakeRequest,
  decodeHandshakeResponse,
  decodeRequest,
  decodeResponse,
  encodeEvent,
  encodeHandshakeRequest,
  encodeHandshakeResponse,
  encodeRequest,
  encodeResponse,
} from '../../src/codec';
import type {
  CpgAddress,
  CpgRequest,
  CpgResponse,
  CpgWireEvent,
  HandshakeRequest,
  HandshakeResponse,
} from '../../src/codec';
import {
  loadCapture,
  loadLayout,
  type Frame,
  type FrameAddress,
  type FrameDirection,
  type Layout,
} from '../support/fixtures';

const facts = loadLayout();

type Value = HandshakeRequest | HandshakeResponse | CpgRequest | CpgResponse | CpgWireEvent;

/** Both directions of the codec for each direction of frames. */
export const CODECS: Record<
  FrameDirection,
  { decode: (bytes: Uint8Array) => Value; encode: (value: never) => Buffer }
> = {
  'handshake-request': { decode: decodeHandshakeRequest, encode: encodeHandshakeRequest },
  'handshake-response': { decode: decodeHandshakeResponse, encode: encodeHandshakeResponse },
  request: { decode: decodeRequest, encode: encodeRequest },
  response: { decode: decodeResponse, encode: encodeResponse },
  event: { decode: decodeEvent, encode: encodeEvent },
};

export function encodeAs(dir: FrameDirection, value: Value): Buffer {
  return CODECS[dir].encode(value as never);
}

export interface RecordedFrame extends Frame {
  /** Unique, for test titles. */
  title: string;
}

/** All frames of both recordings. */
export function recordedFrames(): RecordedFrame[] {
  return (['one-node', 'three-nodes'] as const).flatMap((capture) =>
    loadCapture(capture).map((frame, index) => ({
      ...frame,
      title: `${capture} ${index}: ${frame.dir} ${frame.name}, ${frame.bytes.length} bytes (${frame.step})`,
    })),
  );
}

/** Our value of a frame, made from what C read. */
export function expectedValue({ dir, name, values, bytes }: Frame): Value {
  const text = (field: 'request' | 'response' | 'event'): string => values[field]!;
  const group = new Uint8Array(Buffer.from(values.group ?? '', 'hex'));
  switch (dir) {
    case 'handshake-request':
      return { maxMessageSize: values.max_msg_size! };
    case 'handshake-response':
      return {
        error: values.error!,
        connectionType: values.connection_type!,
        maxMessageSize: values.max_msg_size!,
        connection: BigInt(values.connection!),
        request: text('request'),
        response: text('response'),
        event: text('event'),
      };
    case 'request':
      switch (name) {
        case 'join':
          return { type: 'join', group, pid: values.pid!, flags: values.flags! };
        case 'leave':
          return { type: 'leave', group, pid: values.pid! };
        case 'mcast':
          return {
            type: 'mcast',
            guarantee: values.guarantee!,
            message: bytes.subarray(bytes.length - values.msglen!),
          };
        case 'membership_get':
          return { type: 'membershipGet', group };
        case 'local_get':
          return { type: 'localGet' };
        case 'iteration_initialize':
          return { type: 'iterationInitialize', group, iterationType: values.type! };
        case 'iteration_next':
          return { type: 'iterationNext', handle: BigInt(values.handle!) };
        case 'iteration_finalize':
          return { type: 'iterationFinalize', handle: BigInt(values.handle!) };
        case 'finalize':
          return { type: 'finalize' };
        case 'partial_mcast':
          return {
            type: 'partialMcast',
            guarantee: values.guarantee!,
            messageLength: values.msglen!,
            fragmentType: values.type!,
            fragment: bytes.subarray(bytes.length - values.fraglen!),
          };
      }
      break;
    case 'response': {
      const type = camel(name);
      const error = values.error!;
      if (error !== 1) return { type, error } as CpgResponse;
      switch (name) {
        case 'membership_get':
          return { type: 'membershipGet', error, members: addresses(values.members as FrameAddress[]) };
        case 'local_get':
          return { type: 'localGet', error, nodeId: values.nodeid! };
        case 'iteration_initialize':
          return { type: 'iterationInitialize', error, handle: BigInt(values.handle!) };
        case 'iteration_next':
          return { type: 'iterationNext', error, group, nodeId: values.nodeid!, pid: values.pid! };
        default:
          return { type, error } as CpgResponse;
      }
    }
    case 'event':
      switch (name) {
        case 'confchg':
          return {
            type: 'confchg',
            group,
            members: addresses(values.members as FrameAddress[]),
            left: addresses(values.left!),
            joined: addresses(values.joined!),
          };
        case 'deliver':
          return {
            type: 'deliver',
            group,
            nodeId: values.nodeid!,
            pid: values.pid!,
            message: bytes.subarray(bytes.length - values.msglen!),
          };
        case 'totem_confchg':
          return {
            type: 'totemConfchg',
            ringId: { nodeId: values.ring!.nodeid, seq: BigInt(values.ring!.seq) },
            members: values.members as number[],
          };
        case 'partial_deliver':
          return {
            type: 'partialDeliver',
            group,
            messageLength: values.msglen!,
            nodeId: values.nodeid!,
            pid: values.pid!,
            fragmentType: values.type!,
            fragment: bytes.subarray(bytes.length - values.fraglen!),
          };
      }
  }
  throw new Error(`no expectation for ${dir} ${name}`);
}

/** The significant bytes of a frame: the fields C read. All others are padding. */
export function meaningfulBytes(frame: Frame): Uint8Array {
  const { dir, name, values, bytes } = frame;
  const mask = new Uint8Array(bytes.length);
  const mark = (offset: number, size: number): void => void mask.fill(1, offset, offset + size);
  const layout = layoutOf(frame);
  mark(0, 4);
  mark(8, 4);
  if (values.error !== undefined) mark(16, 4);
  // After an error nothing is set.
  if (dir === 'response' && values.error !== 1) return mask;
  for (const [field, { offset, size }] of Object.entries(layout.fields)) {
    if (field === 'name' || field === 'description.name') {
      if (values.group === undefined) continue;
      mark(offset, 4);
      mark(offset + 8, values.group.length / 2);
    } else if (dir === 'handshake-response' && ['request', 'response', 'event'].includes(field)) {
      mark(offset, values[field as 'request' | 'response' | 'event']!.length + 1);
    } else if (field !== 'members' || dir !== 'response') {
      mark(offset, size);
    }
  }
  const list = (offset: number, count: number): void => {
    for (let index = 0; index < count; index++) {
      for (const cell of [0, 8, 16]) mark(offset + 24 * index + cell, 4);
    }
  };
  if (dir === 'response' && name === 'membership_get') list(32, values.members!.length);
  if (name === 'confchg') list(184, values.members!.length + values.left!.length + values.joined!.length);
  if (name === 'totem_confchg') mark(44, 4 * values.members!.length);
  if (name === 'mcast' || name === 'deliver') mark(bytes.length - values.msglen!, values.msglen!);
  if (name === 'partial_mcast' || name === 'partial_deliver') {
    if (values.fraglen !== undefined) mark(bytes.length - values.fraglen, values.fraglen);
  }
  return mask;
}

function layoutOf({ dir, name }: Frame): Layout {
  switch (dir) {
    case 'handshake-request':
      return facts.parts['handshake_request']!;
    case 'handshake-response':
      return facts.parts['handshake_response']!;
    case 'request':
      return facts.requests[name]!;
    case 'response':
      return facts.responses[name]!;
    case 'event':
      return facts.events[name]!;
  }
}

function addresses(list: readonly FrameAddress[]): CpgAddress[] {
  return list.map(({ nodeid, pid, reason }) => ({ nodeId: nodeid, pid, reason }));
}

function camel(name: string): string {
  return name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
}
