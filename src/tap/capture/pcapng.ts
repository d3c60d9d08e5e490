/**
 * The blocks of a pcapng file (draft-ietf-opsawg-pcapng) that we write and read.
 *
 *     block   type uint32, total length uint32, body padded to 4 bytes, total length uint32 again
 *     option  code uint16, length uint16, value padded to 4 bytes; the list ends with code 0, length 0
 */
export const BlockType = {
  SECTION: 0x0a0d0d0a,
  INTERFACE: 1,
  OBSOLETE_PACKET: 2,
  SIMPLE_PACKET: 3,
  STATISTICS: 5,
  PACKET: 6,
} as const;

export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
/** Type, both lengths. */
export const BLOCK_OVERHEAD_BYTES = 12;
/** No block of a sane file is larger: do not wait for gigabytes after a corrupted length. */
export const MAX_BLOCK_BYTES = 4 * 1024 * 1024;

export const OptionCode = {
  END: 0,
  SECTION_APPLICATION: 4,
  INTERFACE_NAME: 2,
  INTERFACE_DESCRIPTION: 3,
  INTERFACE_RESOLUTION: 9,
  INTERFACE_TIME_OFFSET: 14,
  PACKET_FLAGS: 2,
  PACKET_DROPS: 4,
  STATISTICS_RECEIVED: 4,
  STATISTICS_DROPPED: 5,
} as const;

/** Direction in the packet flags. */
export const Direction = { INBOUND: 1, OUTBOUND: 2 } as const;

/** 10^-9: the resolution we write. */
export const NANOSECONDS = 9;

export interface Option {
  code: number;
  value: Buffer;
}

export function encodeBlock(type: number, body: Buffer): Buffer {
  const length = BLOCK_OVERHEAD_BYTES + padded(body.length);
  const block = Buffer.alloc(length);
  block.writeUInt32LE(type, 0);
  block.writeUInt32LE(length, 4);
  body.copy(block, 8);
  block.writeUInt32LE(length, length - 4);
  return block;
}

export function encodeOptions(options: readonly Option[]): Buffer {
  const parts = options.map(({ code, value }) => {
    const bytes = Buffer.alloc(4 + padded(value.length));
    bytes.writeUInt16LE(code, 0);
    bytes.writeUInt16LE(value.length, 2);
    value.copy(bytes, 4);
    return bytes;
  });
  return Buffer.concat([...parts, Buffer.alloc(4)]);
}

/** The value of an option in a list that ends with the block; undefined if absent. */
export function findOption(list: Buffer, code: number, little: boolean): Buffer | undefined {
  let at = 0;
  while (at + 4 <= list.length) {
    const present = little ? list.readUInt16LE(at) : list.readUInt16BE(at);
    const length = little ? list.readUInt16LE(at + 2) : list.readUInt16BE(at + 2);
    if (present === OptionCode.END) return undefined;
    if (present === code) return list.subarray(at + 4, at + 4 + length);
    at += 4 + padded(length);
  }
  return undefined;
}

export function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}
