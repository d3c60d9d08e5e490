/** What both sides share: a ring in memory, and the bytes in the service socket. */
import { RingHeader as Header, WORD_BYTES } from '../../src/ring/layout';
import { Ring } from '../../src/ring/ring';
import type { RingStorage } from '../../src/ring/storage';
import { Violation, type Scheduler } from './search';

/** Header words by their offset; others do not change. */
const WORDS: Readonly<Record<number, 'writePointer' | 'readPointer' | 'semaphore' | 'userData'>> = {
  [Header.writePointer]: 'writePointer',
  [Header.readPointer]: 'readPointer',
  [Header.semaphore]: 'semaphore',
  [Header.userData]: 'userData',
};

/** A word in pieces: numbers are small here. */
const BITS: readonly number[] = [1, 2, 4, ~7];

/** A ring in memory, as our side reaches it: each word of the header and each piece of data is one access. */
export class MemoryRing implements RingStorage {
  readonly #scheduler: Scheduler;
  readonly #wordByWord: boolean;
  readonly #torn: boolean;
  readonly state: {
    data: number[];
    writePointer: number;
    readPointer: number;
    semaphore: number;
    /** Flow control. */
    userData: number;
    /** What we last read of it. */
    userDataSeen: number;
  };

  /**
   * `wordByWord`: data is written and read a word at a time, because pread and pwrite are not atomic. `torn`: a word of
   * the header that is read or written alone goes bit by bit, as kernels copy less than 8 bytes byte by byte.
   */
  constructor(scheduler: Scheduler, words: number, at: number, { wordByWord = false, torn = false } = {}) {
    this.#scheduler = scheduler;
    this.#wordByWord = wordByWord;
    this.#torn = torn;
    this.state = {
      data: new Array<number>(words).fill(0xb7b7b7b7),
      writePointer: at,
      readPointer: at,
      semaphore: 0,
      userData: 0,
      userDataSeen: 0,
    };
  }

  readHeader(offset: number, words: Uint32Array, count: number): void {
    for (let index = 0; index < count; index++) {
      const word = WORDS[offset + index * WORD_BYTES];
      if (word === undefined) continue;
      words[index] = this.#eachBit(count, `read ${word}`, words[index]!, () => this.state[word]);
      if (word === 'userData') this.state.userDataSeen = this.state.userData;
    }
  }

  writeHeader(offset: number, words: Uint32Array, count: number): void {
    for (let index = 0; index < count; index++) {
      const word = WORDS[offset + index * WORD_BYTES];
      if (word === undefined) continue;
      if (word === 'writePointer' && this.state.userDataSeen !== 0)
        throw new Violation('posted although the daemon asked us not to send');
      this.#eachBit(
        count,
        `${word} = ${words[index]!}`,
        0,
        () => words[index]!,
        (value, mask) => (this.state[word] = (this.state[word] & ~mask) | (value & mask)),
      );
    }
  }

  read(target: Buffer, offset: number, length: number, position: number): void {
    this.#eachPiece(length, position, 'read', (from, to) => {
      for (let at = from; at < to; at++) {
        const byte =
          (this.state.data[Math.floor((position + at) / 4)]! >>> (8 * ((position + at) % 4))) & 0xff;
        target[offset + at] = byte;
        this.#scheduler.note(byte);
      }
    });
  }

  write(bytes: Buffer, offset: number, length: number, position: number): void {
    this.#eachPiece(length, position, 'write', (from, to) => {
      for (let at = from; at < to; at++) this.#put(position + at, bytes[offset + at]!);
    });
  }

  writeParts(parts: readonly Uint8Array[], length: number, position: number): void {
    this.write(Buffer.concat(parts), 0, length, position);
  }

  close(): void {
    throw new Error('a ring in memory is not closed');
  }

  /** Our view of it. */
  open(name: string, storage: RingStorage = this): Ring {
    const ring = new Ring(name, storage, this.state.data.length);
    ring.readPointers();
    return ring;
  }

  // ---- the daemon's side: the caller counts the accesses --------------------------------------------------

  word(index: number): number {
    return this.state.data[index % this.state.data.length]!;
  }

  setWord(index: number, value: number): void {
    this.state.data[index % this.state.data.length] = value;
  }

  payload(pointer: number, length: number): Buffer {
    const bytes = Buffer.alloc(Math.ceil(length / 4) * 4);
    for (let at = 0; at < length; at += 4) bytes.writeUInt32LE(this.word(pointer + 2 + at / 4), at);
    return bytes.subarray(0, length);
  }

  setPayload(pointer: number, payload: Buffer): void {
    const bytes = Buffer.alloc(Math.ceil(payload.length / 4) * 4);
    payload.copy(bytes);
    for (let at = 0; at < payload.length; at += 4) this.setWord(pointer + 2 + at / 4, bytes.readUInt32LE(at));
  }

  /** Copies a word whole, or the lowest bit first, each an access. */
  #eachBit(
    count: number,
    what: string,
    target: number,
    source: () => number,
    put: (value: number, mask: number) => void = () => undefined,
  ): number {
    const masks = this.#torn && count === 1 ? BITS : [-1];
    let result = target;
    for (const mask of masks) {
      this.#scheduler.before(masks.length === 1 ? what : `${what}, bits ${(mask >>> 0).toString(2)}`);
      result = (result & ~mask) | (source() & mask);
      this.#scheduler.note(source() & mask);
      put(source(), mask);
    }
    return result >>> 0;
  }

  #eachPiece(length: number, position: number, what: string, work: (from: number, to: number) => void): void {
    const step = this.#wordByWord ? WORD_BYTES : length;
    for (let at = 0; at < length; at += step) {
      this.#scheduler.before(`${what} data ${(position + at) / 4}`);
      work(at, Math.min(length, at + step));
    }
  }

  #put(at: number, byte: number): void {
    const index = Math.floor(at / 4);
    const shift = 8 * (at % 4);
    const { data } = this.state;
    data[index] = ((data[index]! & ~(0xff << shift)) | (byte << shift)) >>> 0;
  }
}

/** The bytes of message `number`. */
export function messageOf(number: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, index) => 16 * (number + 1) + (index % 16)));
}
