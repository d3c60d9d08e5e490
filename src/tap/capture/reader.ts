/**
 * Frames from a pcapng file, also from one that Wireshark, editcap or mergecap has written again. What is not
 * ours is passed over and counted.
 */
import { check, isFunction, kind, uint8Array } from '../../arguments';
import { CpgError, isCpgError } from '../../errors';
import type { TapConnection } from '../connections';
import type { TapFrame } from '../frames';
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
const CLASSIC_PCAP_MAGICS = [0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1];
/** Interfaces and connections of one file. */
const MAX_ENTRIES = 100_000;
/** Large frames that are put together at a time. */
const MAX_UNFINISHED = 64;
const PACKET_FIELDS_BYTES = 20;

interface Interface {
  linkType: number;
  resolution: number;
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
  #sections = 0;
  readonly #ids = new Set<number>();
  #lastId = 0;
  readonly #connections = new Map<string, TapConnection>();
  readonly #unfinished = new Map<string, Unfinished>();
  /** Packets that were not ours. */
  foreign = 0;
  /** Frames that were ours. */
  frames = 0;

  /** The frames that are complete with these bytes. Throws CS_ERR_MESSAGE_ERROR; the reader is of no use then. */
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

  /** The file ends here. Throws CS_ERR_MESSAGE_ERROR when it must not, or when nothing in it was ours. */
  end(): void {
    if (this.#pending.length > 0) {
      throw this.#broken(
        this.#inSection
          ? `the capture ends in the middle of a block`
          : 'this is not a pcapng file: it is too short',
        this.#inSection
          ? 'what came before was read; the writer was probably stopped'
          : 'give a file written by cpg tap --write',
      );
    }
    if (!this.#inSection)
      throw this.#broken('the capture is empty', 'give a file written by cpg tap --write');
    if (this.frames === 0 && this.foreign > 0) {
      throw new CpgError(
        'CS_ERR_MESSAGE_ERROR',
        `the capture holds ${this.foreign} packets and none of them is of libqb IPC`,
        {
          remedy: 'give a file written by cpg tap --write',
        },
      );
    }
  }

  /** Undefined while too little is there to know. */
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
        this.#inSection = true;
        this.#sections++;
        this.#interfaces = [];
        return undefined;
      case BlockType.INTERFACE:
        this.#interface(body);
        return undefined;
      case BlockType.PACKET:
        return this.#packet(body);
      default:
        // Statistics, name resolution, comments, other people's blocks.
        return undefined;
    }
  }

  #interface(body: Buffer): void {
    if (body.length < 8) throw this.#broken('an interface without its fields');
    if (this.#interfaces.length >= MAX_ENTRIES) throw this.#broken(`more than ${MAX_ENTRIES} interfaces`);
    const resolution = findOption(body.subarray(8), OptionCode.INTERFACE_RESOLUTION, this.#little);
    this.#interfaces.push({
      linkType: this.#uint16(body, 0),
      resolution: resolution?.[0] ?? DEFAULT_RESOLUTION,
    });
  }

  #packet(body: Buffer): TapFrame | undefined {
    if (body.length < PACKET_FIELDS_BYTES) throw this.#broken('a packet without its fields');
    const from = this.#interfaces[this.#uint32(body, 0)];
    if (from === undefined) throw this.#broken(`a packet of the unknown interface ${this.#uint32(body, 0)}`);
    const captured = this.#uint32(body, 12);
    if (captured > body.length - PACKET_FIELDS_BYTES)
      throw this.#broken(`a packet that says ${counted(captured, 'byte')}`);
    const packet = body.subarray(PACKET_FIELDS_BYTES, PACKET_FIELDS_BYTES + captured);
    const part = from.linkType === LINK_TYPE_EXPORTED_PDU ? this.#decode(packet) : undefined;
    if (part === undefined) {
      this.foreign++;
      return undefined;
    }
    const bytes = this.#whole(part);
    if (bytes === undefined) return undefined;
    this.frames++;
    const ticks = (BigInt(this.#uint32(body, 4)) << 32n) | BigInt(this.#uint32(body, 8));
    const { ring, old, consumed, missed } = part;
    const connection = this.#connection(part);
    return { connection, ring, old, consumed, missed, bytes, timeNs: nanoseconds(ticks, from.resolution) };
  }

  #decode(packet: Buffer): FramePart | undefined {
    try {
      return decodePacket(packet);
    } catch (error) {
      throw isCpgError(error) ? this.#broken(error.what) : error;
    }
  }

  /** The bytes of the frame when this was its last part. They are a copy, so that they can be kept. */
  #whole(part: FramePart): Buffer | undefined {
    const { ring, frameLength, offset, bytes } = part;
    if (offset === 0 && bytes.length === frameLength) return Buffer.from(bytes);
    const key = `${this.#key(part)} ${ring}`;
    if (offset === 0) {
      if (this.#unfinished.size >= MAX_UNFINISHED) throw this.#broken('too many frames in parts at a time');
      this.#unfinished.set(key, { memory: Buffer.alloc(frameLength), received: 0 });
    }
    const entry = this.#unfinished.get(key);
    if (entry?.received !== offset || entry.memory.length !== frameLength) {
      // Its beginning was cut away, by editcap perhaps.
      this.#unfinished.delete(key);
      this.foreign++;
      return undefined;
    }
    bytes.copy(entry.memory, offset);
    entry.received += bytes.length;
    if (entry.received < frameLength) return undefined;
    this.#unfinished.delete(key);
    return entry.memory;
  }

  /** One object for each connection, whatever packet it is described in, with a number that no other one has. */
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

  #notPcapng(): CpgError {
    const classic = CLASSIC_PCAP_MAGICS.includes(this.#pending.readUInt32LE(0)) && this.#position === 0;
    return this.#broken(
      classic ? 'this is a pcap file of the old format, not pcapng' : 'this is not a pcapng file',
      'give a file written by cpg tap --write',
    );
  }

  #broken(what: string, remedy = 'the file was damaged; frames before this place were read'): CpgError {
    return new CpgError('CS_ERR_MESSAGE_ERROR', `${what}, at byte ${this.#position}`, { remedy });
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
