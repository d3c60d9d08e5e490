/** Frames as a pcapng file: one interface for each ring of each connection. */
import type { RingName, TapConnection } from '../connections';
import { connectionLabel } from '../describe';
import type { TapFrame } from '../frames';
import { LINK_TYPE_EXPORTED_PDU, packetsOf } from './packet';
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
/** Fixed fields of a packet block, and its two options with their end. */
const PACKET_FIELDS_BYTES = 20;
const PACKET_OPTIONS_BYTES = 24;

interface Interface {
  number: number;
  frames: number;
  missed: number;
  timeNs: bigint;
}

/** Makes the bytes of a capture, piece by piece; where they go is the caller's business. */
export class CaptureWriter {
  readonly #interfaces = new Map<TapConnection, Map<RingName, Interface>>();
  #count = 0;

  /** To be written first. */
  begin(): Buffer {
    const body = Buffer.alloc(16);
    body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
    body.writeUInt16LE(1, 4);
    // The length of the section is not known.
    body.writeBigInt64LE(-1n, 8);
    const options = encodeOptions([{ code: OptionCode.SECTION_APPLICATION, value: Buffer.from('cpg tap') }]);
    return encodeBlock(BlockType.SECTION, Buffer.concat([body, options]));
  }

  frame(frame: TapFrame): Buffer {
    const known = this.#interfaces.get(frame.connection)?.get(frame.ring);
    const description = known === undefined ? [this.#describe(frame)] : [];
    const entry = known ?? this.#interfaces.get(frame.connection)!.get(frame.ring)!;
    entry.frames++;
    entry.missed += frame.missed;
    entry.timeNs = frame.timeNs;
    const blocks = packetsOf(frame).map((packet, part) =>
      packetBlock(entry.number, frame, packet, part === 0 ? frame.missed : 0),
    );
    return description.length + blocks.length === 1 ? blocks[0]! : Buffer.concat([...description, ...blocks]);
  }

  /** To be written last: how much of each ring was seen and missed. */
  end(): Buffer {
    const blocks: Buffer[] = [];
    for (const rings of this.#interfaces.values()) {
      for (const { number, frames, missed, timeNs } of rings.values()) {
        const body = Buffer.alloc(12);
        body.writeUInt32LE(number, 0);
        writeTime(body, 4, timeNs);
        const options = encodeOptions([
          { code: OptionCode.STATISTICS_RECEIVED, value: uint64(frames + missed) },
          { code: OptionCode.STATISTICS_DROPPED, value: uint64(missed) },
        ]);
        blocks.push(encodeBlock(BlockType.STATISTICS, Buffer.concat([body, options])));
      }
    }
    return Buffer.concat(blocks);
  }

  #describe({ connection, ring, timeNs }: TapFrame): Buffer {
    const rings = this.#interfaces.get(connection) ?? new Map<RingName, Interface>();
    this.#interfaces.set(connection, rings);
    rings.set(ring, { number: this.#count++, frames: 0, missed: 0, timeNs });
    const body = Buffer.alloc(8);
    body.writeUInt16LE(LINK_TYPE_EXPORTED_PDU, 0);
    const options = encodeOptions([
      {
        code: OptionCode.INTERFACE_NAME,
        value: Buffer.from(`${connection.service}-${connection.clientPid}-${ring}`),
      },
      {
        code: OptionCode.INTERFACE_DESCRIPTION,
        value: Buffer.from(`${ring} ring of ${connectionLabel(connection)}`),
      },
      { code: OptionCode.INTERFACE_RESOLUTION, value: Buffer.from([NANOSECONDS]) },
    ]);
    return encodeBlock(BlockType.INTERFACE, Buffer.concat([body, options]));
  }
}

function packetBlock(
  interfaceNumber: number,
  { ring, timeNs }: TapFrame,
  packet: Buffer,
  missed: number,
): Buffer {
  const optionsBytes = missed > 0 ? PACKET_OPTIONS_BYTES : PACKET_OPTIONS_BYTES - 12;
  const length = BLOCK_OVERHEAD_BYTES + PACKET_FIELDS_BYTES + padded(packet.length) + optionsBytes;
  const block = Buffer.alloc(length);
  block.writeUInt32LE(BlockType.PACKET, 0);
  block.writeUInt32LE(length, 4);
  block.writeUInt32LE(interfaceNumber, 8);
  writeTime(block, 12, timeNs);
  block.writeUInt32LE(packet.length, 20);
  block.writeUInt32LE(packet.length, 24);
  packet.copy(block, 28);
  let at = 28 + padded(packet.length);
  block.writeUInt16LE(OptionCode.PACKET_FLAGS, at);
  block.writeUInt16LE(4, at + 2);
  // As the client sees it.
  block.writeUInt32LE(ring === 'request' ? Direction.OUTBOUND : Direction.INBOUND, at + 4);
  at += 8;
  if (missed > 0) {
    block.writeUInt16LE(OptionCode.PACKET_DROPS, at);
    block.writeUInt16LE(8, at + 2);
    block.writeBigUInt64LE(BigInt(missed), at + 4);
  }
  block.writeUInt32LE(length, length - 4);
  return block;
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
