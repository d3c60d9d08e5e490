/**
 * Frames from a pcapng file, also after Wireshark, editcap or mergecap have rewritten it. Foreign and incomplete packets
 * are skipped, counted and reported; only damage that hides the next block ends the reading.
 */
import { check, isFunction, kind, uint8Array } from '../../arguments';
import { CpgError, isCpgError } from '../../errors';
import type { TapConnection } from '../connections';
import { END_OF_TIME_NS, type TapFrame } from '../frames';
import { Findings, type Finding } from './findings';
import { decodePacket, LINK_TYPE_EXPORTED_PDU, type FramePart } from './packet';
import {
  BLOCK_OVERHEAD_BYTES,
  BlockType,
  BYTE_ORDER_MAGIC,
  findOption,
  MAX_BLOCK_BYTES,
  OptionCode,
} from './pcapng';
import { counted } from '../../text';

const DEFAULT_RESOLUTION = 6;
const RECORD_REMEDY = 'give a file written by cpg tap --write';
/** Other file types, by their first bytes. */
const OTHER_FILES: readonly { magics: readonly string[]; what: string; remedy: string }[] = [
  {
    magics: ['a1b2c3d4', 'd4c3b2a1', 'a1b23c4d', '4d3cb2a1', 'a1b2cd34', '34cdb2a1'],
    what: 'this is a pcap file of the old format, not pcapng',
    remedy: 'convert it with editcap -F pcapng OLD NEW',
  },
  { magics: ['1f8b'], what: 'this is a gzip file', remedy: 'unpack it: gzip -dc FILE > NEW' },
  { magics: ['28b52ffd'], what: 'this is a zstd file', remedy: 'unpack it: zstd -dc FILE > NEW' },
  { magics: ['fd377a58'], what: 'this is an xz file', remedy: 'unpack it: xz -dc FILE > NEW' },
  { magics: ['425a68'], what: 'this is a bzip2 file', remedy: 'unpack it: bzip2 -dc FILE > NEW' },
  { magics: ['04224d18'], what: 'this is an lz4 file', remedy: 'unpack it: lz4 -dc FILE > NEW' },
  { magics: ['504b0304'], what: 'this is a zip file', remedy: 'unpack it: unzip FILE' },
];
/** Blocks that hold no packets: names, the journal, secrets, other people's. */
const WITHOUT_PACKETS: readonly number[] = [4, 9, 10, 0xbad, 0x40000bad];
const NS_PER_SECOND = 1_000_000_000n;
/** Interfaces and connections of one file. */
const MAX_ENTRIES = 100_000;
/** Large frames under reassembly at a time. */
const MAX_UNFINISHED = 64;
const SECTION_FIELDS_BYTES = 16;
const STATISTICS_FIELDS_BYTES = 12;
const PACKET_FIELDS_BYTES = 20;

interface Interface {
  linkType: number;
  resolution: number;
  /** Added to all times. */
  offsetNs: bigint;
  /** Frames, and packets that could not be read. */
  frames: number;
  lost: number;
  /** Statistics stand right behind its description: it is as it was written, and more statistics follow at the end. */
  original: boolean;
  /** Frames there must be, by the statistics at the end of the section. */
  expected: number | undefined;
}

interface Unfinished {
  memory: Buffer;
  received: number;
}

/** Reads a capture, piece by piece. */
export class CaptureReader {
  #pending: Buffer = Buffer.alloc(0);
  #position = 0;
  #little = true;
  #interfaces: Interface[] = [];
  #inSection = false;
  /** What the last block described. */
  #described: Interface | undefined;
  /** Where the first section ends that should have ended with them, and does not. */
  #notEndedAt: number | undefined;
  /** Packets so far, counted as Wireshark does. */
  #packets = 0;
  #sections = 0;
  readonly #ids = new Set<number>();
  #lastId = 0;
  readonly #connections = new Map<string, TapConnection>();
  readonly #unfinished = new Map<string, Unfinished>();
  /** Time of the last frame of each ring. */
  readonly #latest = new Map<TapConnection, Map<string, bigint>>();
  readonly #findings = new Findings();
  /** Frames that were ours. */
  frames = 0;

  /** Packets that were not ours. */
  get foreign(): number {
    return this.#findings.count('foreign');
  }

  /** Everything skipped so far. */
  get findings(): Finding[] {
    return this.#findings.all;
  }

  /** The frames that are complete with these bytes. Throws CS_ERR_MESSAGE_ERROR; the reader is then unusable. */
  push(bytes: Uint8Array): Generator<TapFrame, void> {
    return this.#push(check('CaptureReader.push', 'bytes', bytes, uint8Array));
  }

  *#push(bytes: Uint8Array): Generator<TapFrame, void> {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const length = this.#blockLength();
      if (length === undefined || this.#pending.length < length) return;
      const block = this.#pending.subarray(0, length);
      const frame = this.#block(block);
      this.#pending = this.#pending.subarray(length);
      this.#position += length;
      if (frame !== undefined) yield frame;
    }
  }

  /** Ends the file. Throws CS_ERR_MESSAGE_ERROR if it is truncated, or if frames in it could not be read. */
  end(): void {
    if (this.#pending.length > 0) {
      if (!this.#inSection) throw this.#notPcapng('this is not a pcapng file: it is too short');
      throw this.#broken(
        'the capture ends in the middle of a block',
        `what came before was read, ${counted(this.#packets, 'packet')}; the writer was probably stopped`,
      );
    }
    if (!this.#inSection) throw this.#broken('the capture is empty', RECORD_REMEDY);
    this.#endSection();
    if (this.#notEndedAt !== undefined) {
      throw this.#broken(
        'the capture ends in the middle: the statistics that cpg tap writes last are not there',
        `what is there was read, ${counted(this.#packets, 'packet')}; the writer was probably stopped, or the file was cut`,
        this.#notEndedAt,
      );
    }
    const lost = this.findings.filter((finding) => finding.lost).map(({ text }) => text);
    if (lost.length > 0) {
      throw new CpgError('CS_ERR_MESSAGE_ERROR', `the capture is not whole: ${lost.join('; ')}`, {
        remedy: 'what else is in it was read; use the file as cpg tap wrote it, or record again',
      });
    }
    if (this.frames === 0 && this.foreign > 0) {
      throw new CpgError(
        'CS_ERR_MESSAGE_ERROR',
        `the capture holds ${counted(this.foreign, 'packet')}, none of libqb IPC`,
        { remedy: RECORD_REMEDY },
      );
    }
  }

  /** Undefined while there are too few bytes. */
  #blockLength(): number | undefined {
    const pending = this.#pending;
    if (pending.length < 4) return undefined;
    const isSection = pending.readUInt32LE(0) === BlockType.SECTION;
    if (!isSection && !this.#inSection) throw this.#notPcapng();
    if (pending.length < 12) return undefined;
    // A section tells its byte order by itself, before its length can be read.
    if (isSection) this.#little = this.#byteOrder(pending.readUInt32LE(8));
    const length = this.#uint32(pending, 4);
    if (length < BLOCK_OVERHEAD_BYTES || length % 4 !== 0 || length > MAX_BLOCK_BYTES) {
      throw this.#broken(`a block that says ${counted(length, 'byte')}`);
    }
    return length;
  }

  #block(block: Buffer): TapFrame | undefined {
    if (this.#uint32(block, block.length - 4) !== block.length) {
      throw this.#broken('a block whose two lengths differ');
    }
    const body = block.subarray(8, block.length - 4);
    switch (this.#uint32(block, 0)) {
      case BlockType.SECTION:
        this.#section(body);
        return undefined;
      case BlockType.INTERFACE:
        this.#interface(body);
        return undefined;
      case BlockType.PACKET:
        return this.#packet(body);
      case BlockType.SIMPLE_PACKET:
      case BlockType.OBSOLETE_PACKET:
        this.#simplePacket(this.#uint32(block, 0) === BlockType.SIMPLE_PACKET ? 0 : this.#firstUint16(body));
        return undefined;
      case BlockType.STATISTICS:
        this.#statistics(body);
        this.#described = undefined;
        return undefined;
      default:
        if (!WITHOUT_PACKETS.includes(this.#uint32(block, 0)))
          this.#findings.add(
            'unknown',
            `byte ${this.#position}`,
            `type 0x${this.#uint32(block, 0).toString(16)}`,
          );
        return undefined;
    }
  }

  #section(body: Buffer): void {
    if (body.length < SECTION_FIELDS_BYTES) throw this.#broken('a section without its fields');
    this.#endSection();
    this.#inSection = true;
    this.#sections++;
    this.#interfaces = [];
  }

  #endSection(): void {
    for (const { memory, received } of this.#unfinished.values())
      this.#findings.add('parts', this.#place, `${received} of ${counted(memory.length, 'byte')}`);
    this.#unfinished.clear();
    for (const { frames, lost, expected } of this.#interfaces.filter(({ original }) => original)) {
      if (expected === undefined) this.#notEndedAt ??= this.#position;
      else if (expected > frames + lost)
        this.#findings.add('missing', `before ${this.#place}`, '', expected - frames - lost);
    }
  }

  /** How many frames there were, as the writer counted them. */
  #statistics(body: Buffer): void {
    const of = body.length < STATISTICS_FIELDS_BYTES ? undefined : this.#interfaces[this.#uint32(body, 0)];
    if (of === undefined) return;
    if (of === this.#described) {
      of.original = true;
      return;
    }
    const option = (code: number): number => {
      const value = findOption(body.subarray(STATISTICS_FIELDS_BYTES), code, this.#little);
      if (value?.length !== 8) return 0;
      return Number(this.#little ? value.readBigUInt64LE() : value.readBigUInt64BE());
    };
    of.expected = option(OptionCode.STATISTICS_RECEIVED) - option(OptionCode.STATISTICS_DROPPED);
  }

  /** Nobody writes ours in such blocks, but a tool may have turned ours into them. */
  #simplePacket(index: number): void {
    this.#packets++;
    const from = this.#interfaces[index];
    this.#findings.add(from?.linkType === LINK_TYPE_EXPORTED_PDU ? 'simple' : 'foreign', this.#place);
  }

  #interface(body: Buffer): void {
    if (body.length < 8) throw this.#broken('an interface without its fields');
    if (this.#interfaces.length >= MAX_ENTRIES) throw this.#broken(`more than ${MAX_ENTRIES} interfaces`);
    const resolution = findOption(body.subarray(8), OptionCode.INTERFACE_RESOLUTION, this.#little);
    const offset = findOption(body.subarray(8), OptionCode.INTERFACE_TIME_OFFSET, this.#little);
    const seconds =
      offset?.length !== 8 ? 0n : this.#little ? offset.readBigInt64LE() : offset.readBigInt64BE();
    this.#described = {
      linkType: this.#uint16(body, 0),
      resolution: resolution?.[0] ?? DEFAULT_RESOLUTION,
      offsetNs: seconds * NS_PER_SECOND,
      frames: 0,
      lost: 0,
      original: false,
      expected: undefined,
    };
    this.#interfaces.push(this.#described);
  }

  #packet(body: Buffer): TapFrame | undefined {
    this.#packets++;
    this.#described = undefined;
    if (body.length < PACKET_FIELDS_BYTES) {
      this.#lost('damaged', 'its fields are not there');
      return;
    }
    const from = this.#interfaces[this.#uint32(body, 0)];
    if (from === undefined) {
      this.#lost('damaged', `interface ${this.#uint32(body, 0)} is not described`);
      return;
    }
    if (from.linkType !== LINK_TYPE_EXPORTED_PDU) {
      this.#foreign(`link type ${from.linkType}`);
      return;
    }
    const captured = this.#uint32(body, 12);
    const original = this.#uint32(body, 16);
    if (captured > body.length - PACKET_FIELDS_BYTES) {
      this.#lost('damaged', `${counted(captured, 'byte')} in a block of ${body.length}`, from);
      return;
    }
    if (captured < original) {
      this.#lost('snapped', `${captured} of ${counted(original, 'byte')}`, from);
      return;
    }
    const ticks = (BigInt(this.#uint32(body, 4)) << 32n) | BigInt(this.#uint32(body, 8));
    const timeNs = nanoseconds(ticks, from.resolution) + from.offsetNs;
    let part: FramePart | undefined;
    try {
      part = decodePacket(body.subarray(PACKET_FIELDS_BYTES, PACKET_FIELDS_BYTES + captured));
    } catch (error) {
      if (!isCpgError(error)) throw error;
      this.#lost('damaged', error.what, from);
      return;
    }
    if (part === undefined) {
      this.#foreign('exported PDUs of another dissector');
      return;
    }
    if (timeNs < 0n || timeNs >= END_OF_TIME_NS) {
      this.#lost('damaged', 'a time that cannot be', from);
      return;
    }
    const bytes = this.#whole(part, from);
    if (bytes === undefined) return undefined;
    this.frames++;
    from.frames++;
    const { ring, old, consumed, missed } = part;
    const connection = this.#connection(part);
    this.#checkOrder(connection, ring, timeNs);
    return { connection, ring, old, consumed, missed, bytes, timeNs };
  }

  #foreign(detail: string): undefined {
    this.#findings.add('foreign', this.#place, detail);
    return undefined;
  }

  #lost(kind: 'damaged' | 'snapped' | 'parts', detail: string, from?: Interface): undefined {
    this.#findings.add(kind, this.#place, detail);
    if (from !== undefined) from.lost++;
    return undefined;
  }

  /** Times of a ring never go back, unless a tool has reordered the packets. */
  #checkOrder(connection: TapConnection, ring: string, timeNs: bigint): void {
    let rings = this.#latest.get(connection);
    if (rings === undefined) this.#latest.set(connection, (rings = new Map<string, bigint>()));
    const latest = rings.get(ring) ?? 0n;
    if (timeNs < latest) this.#findings.add('disorder', this.#place);
    else rings.set(ring, timeNs);
  }

  /** Returns the bytes of the frame after its last part, as a copy that the caller may keep. */
  #whole(part: FramePart, from: Interface): Buffer | undefined {
    const { ring, frameLength, offset, bytes } = part;
    if (offset === 0 && bytes.length === frameLength) return Buffer.from(bytes);
    const key = `${this.#key(part)} ${ring}`;
    const begun = this.#unfinished.get(key);
    if (offset === 0) {
      if (begun !== undefined)
        this.#lost('parts', `${begun.received} of ${counted(begun.memory.length, 'byte')}`, from);
      else if (this.#unfinished.size >= MAX_UNFINISHED)
        throw this.#broken('too many frames in parts at a time');
      this.#unfinished.set(key, { memory: Buffer.alloc(frameLength), received: 0 });
    }
    const entry = this.#unfinished.get(key);
    if (entry?.received !== offset || entry.memory.length !== frameLength) {
      // Its beginning was cut away, by editcap perhaps; its other parts are not counted again.
      this.#unfinished.delete(key);
      if (offset + bytes.length === frameLength)
        this.#lost('parts', `${bytes.length} of ${counted(frameLength, 'byte')}`, from);
      return undefined;
    }
    bytes.copy(entry.memory, offset);
    entry.received += bytes.length;
    if (entry.received < frameLength) return undefined;
    this.#unfinished.delete(key);
    return entry.memory;
  }

  /** One object per connection, with a unique number, whichever packet describes it. */
  #connection(part: FramePart): TapConnection {
    const key = this.#key(part);
    const known = this.#connections.get(key);
    if (known !== undefined) return known;
    if (this.#connections.size >= MAX_ENTRIES) throw this.#broken(`more than ${MAX_ENTRIES} connections`);
    const recorded = part.connection.id;
    const id = this.#ids.has(recorded) ? this.#lastId + 1 : recorded;
    this.#ids.add(id);
    this.#lastId = Math.max(this.#lastId, id);
    const connection = { ...part.connection, id };
    this.#connections.set(key, connection);
    return connection;
  }

  /**
   * Captures of several machines, put into one file, have connections with the same numbers, pids and names. What does
   * not tell its capture is at least of its section.
   */
  #key({ captureWord, connection }: FramePart): string {
    const { id, service, clientPid, serverPid, clientName, serverName, directory = '' } = connection;
    const capture = captureWord === '' ? this.#sections : captureWord;
    // Of each frame, hence no JSON.
    return `${capture}/${directory}/${id}/${clientPid}/${serverPid}/${service}/${clientName}/${serverName}`;
  }

  #byteOrder(magic: number): boolean {
    if (magic === BYTE_ORDER_MAGIC) return true;
    if (Buffer.from(Uint32Array.of(magic).buffer).swap32().readUInt32LE(0) === BYTE_ORDER_MAGIC) return false;
    throw this.#broken('a section without its byte order');
  }

  #uint32(bytes: Buffer, offset: number): number {
    return this.#little ? bytes.readUInt32LE(offset) : bytes.readUInt32BE(offset);
  }

  #uint16(bytes: Buffer, offset: number): number {
    return this.#little ? bytes.readUInt16LE(offset) : bytes.readUInt16BE(offset);
  }

  #firstUint16(body: Buffer): number {
    return body.length < 2 ? 0 : this.#uint16(body, 0);
  }

  get #place(): string {
    return `packet ${this.#packets} at byte ${this.#position}`;
  }

  #notPcapng(what = 'this is not a pcapng file'): CpgError {
    const start = this.#pending.toString('hex', 0, 8);
    const other = OTHER_FILES.find(({ magics }) => magics.some((magic) => start.startsWith(magic)));
    return this.#broken(other?.what ?? what, other?.remedy ?? RECORD_REMEDY);
  }

  #broken(
    what: string,
    remedy = 'the file was damaged; frames before this place were read',
    position = this.#position,
  ): CpgError {
    return new CpgError('CS_ERR_MESSAGE_ERROR', `${what}, at byte ${position}`, { remedy });
  }
}

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
const CHUNKS = kind<Chunks>(
  'the bytes of a capture in pieces: an (async) iterable of Uint8Array',
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    (isFunction(value, Symbol.asyncIterator) || isFunction(value, Symbol.iterator)),
);

/** All frames of a capture. Throws CS_ERR_MESSAGE_ERROR after the last good one when the file is damaged. */
export function readCapture(chunks: Chunks): AsyncGenerator<TapFrame, void> {
  return framesOf(check('readCapture', 'chunks', chunks, CHUNKS));
}

async function* framesOf(chunks: Chunks): AsyncGenerator<TapFrame, void> {
  const reader = new CaptureReader();
  for await (const chunk of chunks) yield* reader.push(check('readCapture', 'chunk', chunk, uint8Array));
  reader.end();
}

/** Ticks of 10^-n seconds, or of 2^-n when the highest bit is set. */
function nanoseconds(ticks: bigint, resolution: number): bigint {
  if ((resolution & 0x80) !== 0) return (ticks * 1_000_000_000n) >> BigInt(resolution & 0x7f);
  const digits = resolution - 9;
  return digits <= 0 ? ticks * 10n ** BigInt(-digits) : ticks / 10n ** BigInt(digits);
}
