/**
 * A frame as the packet of a capture: Wireshark's "exported PDU" (link type 252), a list of tags that names
 * the dissector, then a header of ours, so that each packet can be understood by itself, then the frame.
 *
 *     tags          type uint16, length uint16, value; big-endian; type 12 names the dissector: "qbcpg"; ends with 0, 0
 *     version       uint8 @0 = 1              ring           uint8 @1: 0 request, 1 response, 2 event
 *     flags         uint8 @2: 1 old, 2 consumed
 *     connection    uint32 @4                 client pid     uint32 @8      server pid   uint32 @12
 *     missed before uint32 @16                frame length   uint32 @20     offset       uint32 @24
 *     lengths       uint8 each @28: of the service's, the client's and the server's name, and of the origin
 *     names         @32, in a row, padded to 4 bytes
 *     the frame, or the part of it that begins at `offset`
 *
 * The origin is `<capture>/<directory>`: a random word for each capture, because captures of several machines that are
 * merged have connections with the same numbers and pids, and the name of the connection's directory.
 *
 * Our header is little-endian, as the frames are. Wireshark takes packets of up to 262,144 bytes, so a larger
 * frame is cut into several packets, one right after the other.
 */
import { malformed } from '../../codec/fields';
import { MAX_FRAME_BYTES } from '../../codec/limits';
import { RING_NAMES, type TapConnection } from '../connections';
import type { TapFrame } from '../frames';
import { counted } from '../../text';

export const LINK_TYPE_EXPORTED_PDU = 252;

const DISSECTOR = 'qbcpg';
const TAG_DISSECTOR_NAME = 12;
const TAG_END = 0;
const TAG_HEADER_BYTES = 4;
const HEADER_BYTES = 32;
const VERSION = 1;
const MAX_NAME_BYTES = 255;
const Flag = { OLD: 1, CONSUMED: 2 } as const;

/** Frame bytes in one packet, so that it stays below Wireshark's limit with all its headers. */
export const MAX_PART_BYTES = 256 * 1024 - 2048;

const tags = makeTags();

/** The common prefix of all packets of a ring, except the fields set by packetFields(). */
export function packetPrefix(connection: TapConnection, ring: TapFrame['ring'], captureWord: string): Buffer {
  const { service, clientName, serverName, directory = '' } = connection;
  const names = [service, clientName, serverName, `${captureWord}/${directory}`].map((name) =>
    Buffer.from(name).subarray(0, MAX_NAME_BYTES),
  );
  const namesLength = names.reduce((sum, { length }) => sum + length, 0);
  const start = tags.length;
  const prefix = Buffer.alloc(start + HEADER_BYTES + padded(namesLength));
  tags.copy(prefix);
  prefix.writeUInt8(VERSION, start);
  prefix.writeUInt8(RING_NAMES.indexOf(ring), start + 1);
  prefix.writeUInt32LE(connection.id, start + 4);
  prefix.writeUInt32LE(connection.clientPid, start + 8);
  prefix.writeUInt32LE(connection.serverPid, start + 12);
  let at = start + HEADER_BYTES;
  for (const [index, name] of names.entries()) {
    prefix.writeUInt8(name.length, start + 28 + index);
    name.copy(prefix, at);
    at += name.length;
  }
  return prefix;
}

/** Completes the copy of a prefix at `at`, for the part of the frame that begins at `offset`. */
export function packetFields(
  target: Buffer,
  at: number,
  { bytes, old, consumed, missed }: TapFrame,
  offset: number,
): void {
  const start = at + tags.length;
  target.writeUInt8((old ? Flag.OLD : 0) | (consumed ? Flag.CONSUMED : 0), start + 2);
  target.writeUInt32LE(Math.min(missed, 0xffffffff), start + 16);
  target.writeUInt32LE(bytes.length, start + 20);
  target.writeUInt32LE(offset, start + 24);
}

/** A packet of ours, decoded. */
export interface FramePart {
  /** A word unique to the capture; empty if the packet has none. */
  captureWord: string;
  connection: TapConnection;
  ring: TapFrame['ring'];
  old: boolean;
  consumed: boolean;
  missed: number;
  /** Of the whole frame. */
  frameLength: number;
  /** Offset of this part. */
  offset: number;
  bytes: Buffer;
}

/** A part of a frame; undefined for a packet that is not ours. Throws CS_ERR_MESSAGE_ERROR. */
export function decodePacket(packet: Buffer): FramePart | undefined {
  const start = ownHeader(packet);
  if (start === undefined) return undefined;
  if (packet.length < start + HEADER_BYTES) {
    throw malformed(
      `a qbcpg packet of ${counted(packet.length, 'byte')}`,
      `at least ${start + HEADER_BYTES}`,
    );
  }
  const version = packet.readUInt8(start);
  if (version !== VERSION) throw malformed(`a qbcpg packet of version ${version}`, `${VERSION}`);
  const ring = RING_NAMES[packet.readUInt8(start + 1)];
  if (ring === undefined) throw malformed(`a qbcpg packet of ring ${packet.readUInt8(start + 1)}`, '0 to 2');
  const flags = packet.readUInt8(start + 2);
  const lengths = [0, 1, 2, 3].map((index) => packet.readUInt8(start + 28 + index));
  let at = start + HEADER_BYTES;
  const [service = '', clientName = '', serverName = '', origin = ''] = lengths.map((length) => {
    at += length;
    return packet.toString('utf8', at - length, at);
  });
  const bytes = packet.subarray(start + HEADER_BYTES + padded(at - start - HEADER_BYTES));
  const frameLength = packet.readUInt32LE(start + 20);
  const offset = packet.readUInt32LE(start + 24);
  if (service === '') throw malformed('a qbcpg packet of no connection', 'the name of its service');
  if (frameLength > MAX_FRAME_BYTES || offset + bytes.length > frameLength || at > packet.length) {
    throw malformed(
      `a part of ${counted(bytes.length, 'byte')} at ${offset} of a frame of ${frameLength}`,
      `a part within a frame of at most ${MAX_FRAME_BYTES}`,
    );
  }
  const slash = origin.indexOf('/');
  const directory = origin.slice(slash + 1);
  return {
    captureWord: origin.slice(0, Math.max(0, slash)),
    connection: {
      id: packet.readUInt32LE(start + 4),
      service,
      clientPid: packet.readUInt32LE(start + 8),
      serverPid: packet.readUInt32LE(start + 12),
      clientName,
      serverName,
      ...(directory === '' ? {} : { directory }),
    },
    ring,
    old: (flags & Flag.OLD) !== 0,
    consumed: (flags & Flag.CONSUMED) !== 0,
    missed: packet.readUInt32LE(start + 16),
    frameLength,
    offset,
    bytes,
  };
}

/** Offset of our header; undefined if the tags do not name our dissector. */
function ownHeader(packet: Buffer): number | undefined {
  let at = 0;
  let own = false;
  while (at + TAG_HEADER_BYTES <= packet.length) {
    const type = packet.readUInt16BE(at);
    const length = packet.readUInt16BE(at + 2);
    at += TAG_HEADER_BYTES;
    if (type === TAG_END) return own ? at : undefined;
    const value = packet.toString('latin1', at, at + length).replace(/\0+$/, '');
    if (type === TAG_DISSECTOR_NAME) own = value === DISSECTOR;
    at += length;
  }
  return undefined;
}

function makeTags(): Buffer {
  const name = Buffer.from(DISSECTOR);
  const bytes = Buffer.alloc(TAG_HEADER_BYTES + padded(name.length) + TAG_HEADER_BYTES);
  bytes.writeUInt16BE(TAG_DISSECTOR_NAME, 0);
  bytes.writeUInt16BE(padded(name.length), 2);
  name.copy(bytes, TAG_HEADER_BYTES);
  return bytes;
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}
