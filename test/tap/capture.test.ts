/** Capture files: written, read again, damaged in every way. */
import { gzipSync } from 'node:zlib';
import { isCpgError } from '../../src/errors';
import { readCapture, CaptureReader } from '../../src/tap/capture/reader';
import { CaptureWriter } from '../../src/tap/capture/writer';
import type { TapFrame } from '../../src/tap/frames';
import { CONNECTION, frame, numberedFrame, recordedFrames } from './support';

function write(frames: readonly TapFrame[]): Buffer {
  const writer = new CaptureWriter();
  return Buffer.concat([writer.begin(), ...frames.map((one) => writer.frame(one)), writer.end()]);
}

async function read(bytes: Uint8Array, pieceBytes = 65_536): Promise<TapFrame[]> {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) pieces.push(bytes.subarray(at, at + pieceBytes));
  const frames: TapFrame[] = [];
  for await (const one of readCapture(pieces)) frames.push(one);
  return frames;
}

/** What could be read, and the complaint. */
function readDamaged(bytes: Uint8Array): {
  frames: TapFrame[];
  complaint: string | undefined;
  findings: string[];
} {
  const texts = (): string[] => reader.findings.map(({ text }) => text);
  const reader = new CaptureReader();
  const frames: TapFrame[] = [];
  try {
    for (const one of reader.push(bytes)) frames.push(one);
    reader.end();
    return { frames, complaint: undefined, findings: texts() };
  } catch (error) {
    if (!isCpgError(error)) throw error;
    return { frames, complaint: error.message, findings: texts() };
  }
}

/** Frames with their bytes in hex: Jest takes seconds to compare a megabyte byte by byte. */
function comparable(frames: readonly TapFrame[]): unknown[] {
  return frames.map((one) => ({ ...one, bytes: Buffer.from(one.bytes).toString('hex') }));
}

test.each(['one-node', 'three-nodes'] as const)(
  'every recorded frame of %s comes back as it was',
  async (name) => {
    const frames = recordedFrames(name);
    expect(comparable(await read(write(frames)))).toEqual(comparable(frames));
  },
);

test('in pieces of any size', async () => {
  const frames = [frame('request', numberedFrame(1, 50)), frame('event', numberedFrame(2, 3000))];
  for (const pieceBytes of [1, 3, 7, 64, 1000])
    expect(comparable(await read(write(frames), pieceBytes))).toEqual(comparable(frames));
});

test('a frame larger than Wireshark takes goes in parts', async () => {
  const large = frame('event', numberedFrame(1, 1_048_000), { missed: 3, consumed: true });
  const small = frame('request', numberedFrame(2, 40), { old: true });
  const bytes = write([large, small]);
  expect(comparable(await read(bytes))).toEqual(comparable([large, small]));
});

test('connections and their names, gaps and flags', async () => {
  const other = { ...CONNECTION, id: 2, service: 'cmap', clientName: 'größe', serverName: '' };
  const frames = [
    frame('request', numberedFrame(1, 20), { missed: 70_000 }),
    frame('response', numberedFrame(2, 20), {
      connection: other,
      consumed: true,
      timeNs: 1_700_000_000_123_456_789n,
    }),
  ];
  expect(comparable(await read(write(frames)))).toEqual(comparable(frames));
});

describe('damage', () => {
  const frames = [1, 2, 3].map((number) => frame('event', numberedFrame(number, 40), { missed: number }));
  const bytes = write(frames);

  test('cut at every byte: frames before the cut are read, and the cut is reported', () => {
    const whole: number[] = [];
    // A capture that has only begun has nothing that could be missing.
    const start = new CaptureWriter().begin().length;
    const empty = [start, start + bytes.readUInt32LE(start + 4)];
    for (let length = 0; length < bytes.length; length++) {
      const { frames: found, complaint } = readDamaged(bytes.subarray(0, length));
      expect(comparable(found)).toEqual(comparable(frames.slice(0, found.length)));
      if (complaint !== undefined) expect(complaint).toMatch(/CS_ERR_MESSAGE_ERROR \(22\)/);
      else whole.push(length);
    }
    // Also between two blocks: the last ones say how many frames there are.
    expect(whole).toEqual(empty);
  });

  /** A block with two counters. */
  const STATISTICS_BYTES = 24 + 2 * 12 + 4;

  /** Without one of its blocks. */
  function* withoutEach(file: Buffer): Generator<Buffer> {
    for (let at = 0; at < file.length; at += file.readUInt32LE(at + 4))
      yield Buffer.concat([file.subarray(0, at), file.subarray(at + file.readUInt32LE(at + 4))]);
  }

  test('any block taken out is reported', () => {
    // All but the first statistics, which say that it is as it was written.
    const silent = [...withoutEach(bytes)].filter((file) => readDamaged(file).complaint === undefined);
    expect(silent.map(({ length }) => length)).toEqual([bytes.length - STATISTICS_BYTES]);
  });

  test('every recorded frame: cut and changed everywhere, nothing is lost in silence', () => {
    const recorded = recordedFrames('three-nodes');
    const file = write(recorded);
    // Prime, so that in time it meets every place of a block.
    for (let length = 1; length < file.length; length += 211) {
      const { frames: found, complaint } = readDamaged(file.subarray(0, length));
      expect(found.length < recorded.length && complaint === undefined && length > 100).toBe(false);
    }
    for (let at = 0; at < file.length; at += 97) {
      const damaged = Buffer.from(file);
      damaged[at] = damaged[at]! ^ 0xff;
      const { frames: found, complaint } = readDamaged(damaged);
      if (found.length !== recorded.length) expect(complaint).toMatch(/CS_ERR_MESSAGE_ERROR \(22\): ./);
    }
  });

  test('every byte changed in four ways: frames or a complaint, never anything else', () => {
    for (let at = 0; at < bytes.length; at++) {
      for (const change of [0x01, 0x80, 0xff, bytes[at]!]) {
        const damaged = Buffer.from(bytes);
        damaged[at] = damaged[at]! ^ change;
        const { frames: found, complaint } = readDamaged(damaged);
        expect(found.length).toBeLessThanOrEqual(frames.length);
        if (found.length < frames.length) expect(complaint).toBeDefined();
      }
    }
  });
});

describe('files that are not ours', () => {
  /** A section and an Ethernet interface of a machine with the other byte order, with one packet. */
  const bigEndian = (): Buffer => {
    const block = (type: number, body: Buffer): Buffer => {
      const bytes = Buffer.alloc(12 + body.length);
      bytes.writeUInt32BE(type, 0);
      bytes.writeUInt32BE(bytes.length, 4);
      body.copy(bytes, 8);
      bytes.writeUInt32BE(bytes.length, bytes.length - 4);
      return bytes;
    };
    const section = Buffer.from('1a2b3c4d00010000ffffffffffffffff', 'hex');
    const ethernet = Buffer.from('0001000000040000', 'hex');
    const packet = Buffer.concat([
      Buffer.from('00000000000000000000000000000004000000ff', 'hex'),
      Buffer.alloc(4),
    ]);
    return Buffer.concat([
      block(0x0a0d0d0a, section),
      block(1, ethernet),
      block(6, packet),
      block(0xbad, Buffer.alloc(8)),
    ]);
  };

  test.each([
    ['nothing', Buffer.alloc(0), /the capture is empty/],
    ['text', Buffer.from('hello, world, this is text'), /not a pcapng file/],
    ['two bytes', Buffer.from('hi'), /not a pcapng file/],
    [
      'classic pcap',
      Buffer.from('d4c3b2a1020004000000000000000000ffff000001000000', 'hex'),
      /old format.*editcap -F pcapng/,
    ],
    ['a gzip file', gzipSync(write(recordedFrames('one-node'))), /this is a gzip file.*gzip -dc/],
    ['a zstd file', Buffer.from('28b52ffd0458', 'hex'), /this is a zstd file.*zstd -dc/],
    ['Ethernet', bigEndian(), /holds 1 packet, none of libqb IPC/],
  ])('%s', (_, bytes, complaint) => {
    const { frames, complaint: said } = readDamaged(bytes);
    expect(frames).toEqual([]);
    expect(said).toMatch(complaint);
    expect(said).toMatch(/CS_ERR_MESSAGE_ERROR \(22\): /);
  });

  test('packets of others among ours are passed over and counted', () => {
    const ours = write([frame('request', numberedFrame(1, 30))]);
    const { frames, complaint, findings } = readDamaged(Buffer.concat([bigEndian(), ours]));
    expect(complaint).toBeUndefined();
    expect(frames).toHaveLength(1);
    expect(findings).toEqual(['1 packet of other protocols (first: packet 1 at byte 48: link type 1)']);
  });
});

describe('packets that are not whole: each is counted, with the place of the first, and the others are read', () => {
  const frames = [1, 2, 3].map((number) => frame('event', numberedFrame(number, 40)));
  const file = write(frames);

  /** Changes the block of packet `number`, counted from 1. */
  function changed(number: number, change: (block: Buffer) => Buffer): Buffer {
    const blocks: Buffer[] = [];
    let packets = 0;
    for (let at = 0; at < file.length; at += file.readUInt32LE(at + 4)) {
      const block = Buffer.from(file.subarray(at, at + file.readUInt32LE(at + 4)));
      blocks.push(block.readUInt32LE(0) === 6 && ++packets === number ? change(block) : block);
    }
    return Buffer.concat(blocks);
  }
  /** Where packet 2 begins. */
  const place = (() => {
    let at = 0;
    for (let packets = 0; ; at += file.readUInt32LE(at + 4))
      if (file.readUInt32LE(at) === 6 && ++packets === 2) return `packet 2 at byte ${at}`;
  })();
  const word =
    (offset: number, value: number) =>
    (block: Buffer): Buffer => {
      block.writeUInt32LE(value, offset);
      return block;
    };
  /** From the beginning of a packet block: its fields, the tags, then our header. */
  const HEADER = 28 + 16;
  const blockOf = (type: number, body: Buffer): Buffer => {
    const head = Buffer.alloc(8);
    const tail = Buffer.alloc(4);
    for (const bytes of [head.subarray(4), tail]) bytes.writeUInt32LE(12 + body.length);
    head.writeUInt32LE(type);
    return Buffer.concat([head, body, tail]);
  };

  test.each<[string, (block: Buffer) => Buffer, string]>([
    ['a snap length', word(24, 4000), '1 packet cut to a snap length'],
    ['an unknown interface', word(8, 77), '1 packet damaged'],
    ['more bytes than the block has', word(20, 4000), '1 packet damaged'],
    ['a time that cannot be', word(12, 0xffffffff), ''],
    ['a frame that says more bytes than there are', word(HEADER + 20, 50), '1 frame in part only'],
    ['a frame that says fewer bytes', word(HEADER + 20, 30), '1 packet damaged'],
    ['a part that begins in the middle', word(HEADER + 24, 7), '1 packet damaged'],
    ['another version', (block) => (block.writeUInt8(9, HEADER), block), '1 packet damaged'],
    ['a ring that there is not', (block) => (block.writeUInt8(7, HEADER + 1), block), '1 packet damaged'],
    ['no connection', (block) => (block.writeUInt8(0, HEADER + 28), block), '1 packet damaged'],
    ['a block without a time', () => blockOf(3, Buffer.alloc(8)), '1 packet in blocks without a time'],
  ])('%s', (_, change, finding) => {
    const { frames: found, complaint, findings } = readDamaged(changed(2, change));
    if (finding === '') {
      expect(found).toHaveLength(3);
      return;
    }
    expect(comparable(found)).toEqual(comparable([frames[0]!, frames[2]!]));
    expect(findings[0]).toContain(finding);
    expect(complaint).toMatch(/^the capture is not whole: .*CS_ERR_MESSAGE_ERROR/);
    if (!finding.includes('in part')) expect(complaint).toContain(place);
  });

  test('a packet that was taken out of a capture of ours is missed', () => {
    const { frames: found, complaint } = readDamaged(changed(2, () => Buffer.alloc(0)));
    expect(found).toHaveLength(2);
    expect(complaint).toMatch(/1 frame that the statistics at the end count/);
  });

  test('a part of a large frame that was taken out', () => {
    const large = write([frame('event', numberedFrame(1, 600_000)), frame('event', numberedFrame(2, 40))]);
    const cuts: string[] = [];
    for (let at = 0; at < large.length; at += large.readUInt32LE(at + 4)) {
      const rest = Buffer.concat([large.subarray(0, at), large.subarray(at + large.readUInt32LE(at + 4))]);
      if (large.readUInt32LE(at) === 6) cuts.push(readDamaged(rest).complaint!);
    }
    expect(cuts).toHaveLength(4);
    for (const cut of cuts.slice(0, 3)) expect(cut).toMatch(/1 frame in part only \(first: packet/);
  });

  test('unknown blocks and another order are reported, and are no failure', () => {
    const { complaint, findings } = readDamaged(Buffer.concat([file, blockOf(0x1234, Buffer.alloc(4))]));
    expect(complaint).toBeUndefined();
    expect(findings).toEqual([expect.stringMatching(/^1 block of unknown types .*type 0x1234\)$/)]);
    const late = { ...frames[0]!, timeNs: frames[0]!.timeNs + 5_000_000n };
    const turned = readDamaged(write([late, frames[1]!]));
    expect(turned.complaint).toBeUndefined();
    expect(turned.findings).toEqual([
      expect.stringMatching(/^1 frame behind later ones .*reordercap.*packet 2/),
    ]);
  });

  test('the offset of an interface counts', () => {
    const option = Buffer.alloc(12);
    option.writeUInt16LE(14, 0);
    option.writeUInt16LE(8, 2);
    option.writeBigInt64LE(3600n, 4);
    const blocks: Buffer[] = [];
    for (let at = 0; at < file.length; at += file.readUInt32LE(at + 4)) {
      const block = file.subarray(at, at + file.readUInt32LE(at + 4));
      const isInterface = block.readUInt32LE(0) === 1;
      blocks.push(
        isInterface
          ? blockOf(1, Buffer.concat([block.subarray(8, 16), option, block.subarray(16, -4)]))
          : block,
      );
    }
    const { frames: found } = readDamaged(Buffer.concat(blocks));
    expect(found.map(({ timeNs }) => timeNs - frames[0]!.timeNs)).toEqual(Array(3).fill(3_600_000_000_000n));
  });
});
