/** Frames as a pcapng file: one interface for each ring of each connection. */
import { randomBytes } from 'node:crypto';
import { check, listOf } from '../../arguments';
import type { RingName, TapConnection } from '../connections';
import { connectionLabel } from '../decode/describe';
import { FRAME, type TapFrame } from '../frames';
import { LINK_TYPE_EXPORTED_PDU, MAX_PART_BYTES, packetFields, packetPrefix } from './packet';
import {
  BLOCK_OVERHEAD_BYTES,
  BlockType,
  BYTE_ORDER_MAGIC,
  Direction,
  encodeBlock,
  encodeOptions,
  NANOSECONDS,
  OptionCode,
  padded,
} from './pcapng';

const U32 = 0xffffffffn;
const PACKET_FIELDS_BYTES = 20;
/** The two options of a packet block, and their end. */
const FLAGS_OPTION_BYTES = 8;
const DROPS_OPTION_BYTES = 12;
const OPTIONS_END_BYTES = 4;
const WORD_BYTES = 6;

const FRAMES = listOf('an array of TapFrames, as Tap and CaptureReader make them', FRAME);

interface Interface {
  number: number;
  prefix: Buffer;
  frames: number;
  missed: number;
  timeNs: bigint;
}

/** Makes the bytes of a capture, piece by piece, for the caller to write. */
export class CaptureWriter {
  readonly #interfaces = new Map<TapConnection, Map<RingName, Interface>>();
  readonly #captureWord = randomBytes(WORD_BYTES).toString('hex');
  #count = 0;
  readonly #time = Buffer.alloc(8);
  #timeNs = 0n;

  /** Write this first. */
  begin(): Buffer {
    const body = Buffer.alloc(16);
    body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
    body.writeUInt16LE(1, 4);
    // The length of the section is not known.
    body.writeBigInt64LE(-1n, 8);
    const options = encodeOptions([{ code: OptionCode.SECTION_APPLICATION, value: Buffer.from('cpg tap') }]);
    return encodeBlock(BlockType.SECTION, Buffer.concat([body, options]));
  }

  /** One frame. Throws CS_ERR_INVALID_PARAM. */
  frame(frame: TapFrame): Buffer {
    return this.#frames([check('CaptureWriter.frame', 'frame', frame, FRAME)]);
  }

  /** Many at a time are much faster: they share one piece of memory. */
  frames(frames: readonly TapFrame[]): Buffer {
    return this.#frames(check('CaptureWriter.frames', 'frames', frames, FRAMES));
  }

  #frames(frames: readonly TapFrame[]): Buffer {
    const descriptions: Buffer[] = [];
    let length = 0;
    for (const frame of frames) length += packetBlocksBytes(this.#interface(frame, descriptions), frame);
    const memory = Buffer.allocUnsafe(length);
    let at = 0;
    for (const frame of frames) {
      const entry = this.#interface(frame, descriptions);
      entry.frames++;
      entry.missed += frame.missed;
      entry.timeNs = frame.timeNs;
      // A frame without bytes is a packet as well.
      let offset = 0;
      do {
        at = this.#packetBlock(memory, at, entry, frame, offset);
        offset += MAX_PART_BYTES;
      } while (offset < frame.bytes.length);
    }
    return descriptions.length === 0 ? memory : Buffer.concat([...descriptions, memory]);
  }

  /** Write this last: the seen and missed frames of each ring. */
  end(): Buffer {
    const blocks: Buffer[] = [];
    for (const rings of this.#interfaces.values()) {
      for (const entry of rings.values()) blocks.push(statistics(entry));
    }
    return Buffer.concat(blocks);
  }

  /** The interface of a frame's ring; a new one is described first. */
  #interface({ connection, ring, timeNs }: TapFrame, descriptions: Buffer[]): Interface {
    let rings = this.#interfaces.get(connection);
    if (rings === undefined) this.#interfaces.set(connection, (rings = new Map<RingName, Interface>()));
    let entry = rings.get(ring);
    if (entry === undefined) {
      const prefix = packetPrefix(connection, ring, this.#captureWord);
      entry = { number: this.#count++, prefix, frames: 0, missed: 0, timeNs };
      rings.set(ring, entry);
      // Tools that write the file again leave statistics out, so these say that it is as it was written: see reader.ts.
      descriptions.push(describe(connection, ring, this.#captureWord), statistics(entry));
    }
    return entry;
  }

  /** Writes the block of one packet and returns where the next one begins. */
  #packetBlock(block: Buffer, start: number, entry: Interface, frame: TapFrame, offset: number): number {
    const { prefix } = entry;
    const { bytes, missed, ring, timeNs } = frame;
    const part = bytes.length <= MAX_PART_BYTES ? bytes : bytes.subarray(offset, offset + MAX_PART_BYTES);
    const packetBytes = prefix.length + part.length;
    const drops = offset === 0 ? missed : 0;
    const length = packetBlockBytes(packetBytes, drops);
    block.writeUInt32LE(BlockType.PACKET, start);
    block.writeUInt32LE(length, start + 4);
    block.writeUInt32LE(entry.number, start + 8);
    this.#writeTime(block, start + 12, timeNs);
    block.writeUInt32LE(packetBytes, start + 20);
    block.writeUInt32LE(packetBytes, start + 24);
    let at = start + 28;
    block.set(prefix, at);
    packetFields(block, at, frame, offset);
    block.set(part, at + prefix.length);
    at += packetBytes;
    for (const end = start + 28 + padded(packetBytes); at < end; at++) block[at] = 0;
    block.writeUInt16LE(OptionCode.PACKET_FLAGS, at);
    block.writeUInt16LE(4, at + 2);
    // As the client sees it.
    block.writeUInt32LE(ring === 'request' ? Direction.OUTBOUND : Direction.INBOUND, at + 4);
    at += FLAGS_OPTION_BYTES;
    if (drops > 0) {
      block.writeUInt16LE(OptionCode.PACKET_DROPS, at);
      block.writeUInt16LE(8, at + 2);
      block.writeBigUInt64LE(BigInt(drops), at + 4);
      at += DROPS_OPTION_BYTES;
    }
    block.writeUInt32LE(0, at);
    block.writeUInt32LE(length, at + OPTIONS_END_BYTES);
    return start + length;
  }

  /** All frames of a round have the same time, so cache its two halves. */
  #writeTime(target: Buffer, at: number, timeNs: bigint): void {
    if (timeNs !== this.#timeNs) {
      this.#timeNs = timeNs;
      writeTime(this.#time, 0, timeNs);
    }
    target.set(this.#time, at);
  }
}

/** Unique across captures, too: merging tools join equal interfaces. */
function describe(connection: TapConnection, ring: RingName, captureWord: string): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt16LE(LINK_TYPE_EXPORTED_PDU, 0);
  const options = encodeOptions([
    {
      code: OptionCode.INTERFACE_NAME,
      value: Buffer.from(`${connection.service}-${connection.clientPid}-${connection.id}-${ring}`),
    },
    {
      code: OptionCode.INTERFACE_DESCRIPTION,
      value: Buffer.from(
        `${ring} ring of ${connectionLabel(connection)}, ${captureWord}/${connection.directory ?? ''}`,
      ),
    },
    { code: OptionCode.INTERFACE_RESOLUTION, value: Buffer.from([NANOSECONDS]) },
  ]);
  return encodeBlock(BlockType.INTERFACE, Buffer.concat([body, options]));
}

function statistics({ number, frames, missed, timeNs }: Interface): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt32LE(number, 0);
  writeTime(body, 4, timeNs);
  const options = encodeOptions([
    { code: OptionCode.STATISTICS_RECEIVED, value: uint64(frames + missed) },
    { code: OptionCode.STATISTICS_DROPPED, value: uint64(missed) },
  ]);
  return encodeBlock(BlockType.STATISTICS, Buffer.concat([body, options]));
}

/** Bytes of all blocks of a frame. */
function packetBlocksBytes({ prefix }: Interface, { bytes, missed }: TapFrame): number {
  let total = 0;
  let offset = 0;
  do {
    const part = Math.min(MAX_PART_BYTES, bytes.length - offset);
    total += packetBlockBytes(prefix.length + part, offset === 0 ? missed : 0);
    offset += MAX_PART_BYTES;
  } while (offset < bytes.length);
  return total;
}

function packetBlockBytes(packetBytes: number, drops: number): number {
  const options = FLAGS_OPTION_BYTES + (drops > 0 ? DROPS_OPTION_BYTES : 0) + OPTIONS_END_BYTES;
  return BLOCK_OVERHEAD_BYTES + PACKET_FIELDS_BYTES + padded(packetBytes) + options;
}

/** Two halves, the high one first. */
function writeTime(target: Buffer, offset: number, timeNs: bigint): void {
  target.writeUInt32LE(Number(timeNs >> 32n), offset);
  target.writeUInt32LE(Number(timeNs & U32), offset + 4);
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
