/** Capture files: written, read again, damaged in every way. */
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
function readDamaged(bytes: Uint8Array): { frames: TapFrame[]; complaint: string | undefined } {
  const reader = new CaptureReader();
  const frames: TapFrame[] = [];
  try {
    for (const one of reader.push(bytes)) frames.push(one);
    reader.end();
    return { frames, complaint: undefined };
  } catch (error) {
    if (!isCpgError(error)) throw error;
    return { frames, complaint: error.message };
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

  test('cut at every byte: what was before is read, and the cut is told', () => {
    const whole = new Set<number>();
    for (let length = 0; length < bytes.length; length++) {
      const { frames: found, complaint } = readDamaged(bytes.subarray(0, length));
      expect(comparable(found)).toEqual(comparable(frames.slice(0, found.length)));
      if (complaint === undefined) whole.add(length);
      else expect(complaint).toMatch(/CS_ERR_MESSAGE_ERROR \(22\)/);
    }
    // Only between two blocks a cut cannot be seen.
    expect(whole.size).toBeLessThan(8);
  });

  test('every byte changed in four ways: frames or a complaint, never anything else', () => {
    for (let at = 0; at < bytes.length; at++) {
      for (const change of [0x01, 0x80, 0xff, bytes[at]!]) {
        const damaged = Buffer.from(bytes);
        damaged[at] = damaged[at]! ^ change;
        const { frames: found } = readDamaged(damaged);
        expect(found.length).toBeLessThanOrEqual(frames.length);
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
    ['classic pcap', Buffer.from('d4c3b2a1020004000000000000000000ffff000001000000', 'hex'), /old format/],
    ['Ethernet', bigEndian(), /1 packets and none of them is of libqb IPC/],
  ])('%s', (_, bytes, complaint) => {
    const { frames, complaint: said } = readDamaged(bytes);
    expect(frames).toEqual([]);
    expect(said).toMatch(complaint);
    expect(said).toMatch(/CS_ERR_MESSAGE_ERROR \(22\): /);
  });

  test('packets of others among ours are passed over', () => {
    const ours = write([frame('request', numberedFrame(1, 30))]);
    const { frames, complaint } = readDamaged(Buffer.concat([bigEndian(), ours]));
    expect(complaint).toBeUndefined();
    expect(frames).toHaveLength(1);
  });
});
