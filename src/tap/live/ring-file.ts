/** A ring to look at: the two files, opened for reading only. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { malformed } from '../../codec/fields';
import {
  CHUNK_HEADER_WORDS,
  MAX_RING_BYTES,
  RING_HEADER_BYTES,
  RING_HEADER_BYTES_WITHOUT_USER_DATA,
  RingHeader,
  WORD_BYTES,
} from '../../codec/ring-layout';

const POINTERS_BYTES = 2 * WORD_BYTES;

// Reading is synchronous, so one scratch buffer serves all rings of the process.
const scratch = Buffer.alloc(POINTERS_BYTES);

export interface Pointers {
  write: number;
  read: number;
}

export class RingFile {
  readonly #headerFd: number;
  readonly #dataFd: number;
  /** Words in the circle. */
  readonly words: number;
  readonly name: string;

  private constructor(name: string, headerFd: number, dataFd: number, words: number) {
    this.name = name;
    this.#headerFd = headerFd;
    this.#dataFd = dataFd;
    this.words = words;
  }

  /**
   * Throws the error of the system, or CS_ERR_MESSAGE_ERROR for files that are no ring, which may also mean
   * that the daemon is still making them.
   */
  static open(stem: string): RingFile {
    const opened: number[] = [];
    const open = (path: string): number => {
      const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      opened.push(fd);
      return fd;
    };
    try {
      const headerFd = open(`${stem}-header`);
      const dataFd = open(`${stem}-data`);
      const headerBytes = fstatSync(headerFd).size;
      const dataBytes = fstatSync(dataFd).size;
      if (headerBytes !== RING_HEADER_BYTES && headerBytes !== RING_HEADER_BYTES_WITHOUT_USER_DATA) {
        throw malformed(`a ring header of ${headerBytes} bytes`, `${RING_HEADER_BYTES}`);
      }
      readSync(headerFd, scratch, 0, WORD_BYTES, RingHeader.wordSize);
      const words = scratch.readUInt32LE(0);
      if (words * WORD_BYTES !== dataBytes || dataBytes > MAX_RING_BYTES || words <= CHUNK_HEADER_WORDS) {
        throw malformed(`a ring of ${words} words in a file of ${dataBytes} bytes`, 'sizes that agree');
      }
      return new RingFile(stem.slice(stem.lastIndexOf('/') + 1), headerFd, dataFd, words);
    } catch (error) {
      for (const fd of opened) closeSync(fd);
      throw error;
    }
  }

  /** Throws CS_ERR_MESSAGE_ERROR when a pointer leads outside, or the file was cut. */
  pointers(): Pointers {
    const bytes = readSync(this.#headerFd, scratch, 0, POINTERS_BYTES, RingHeader.writePointer);
    const write = scratch.readUInt32LE(0);
    const read = scratch.readUInt32LE(WORD_BYTES);
    if (bytes !== POINTERS_BYTES || write >= this.words || read >= this.words) {
      throw malformed(`${this.name}: pointers ${write} and ${read}`, `below ${this.words}`);
    }
    return { write, read };
  }

  /** Fills `target` from the circle, beginning at word `pointer`. */
  read(pointer: number, target: Buffer): void {
    const first = Math.min(target.length, (this.words - pointer) * WORD_BYTES);
    this.#readData(target, 0, first, pointer * WORD_BYTES);
    if (first < target.length) this.#readData(target, first, target.length - first, 0);
  }

  /** Words from `from` on to `to`, going round. */
  distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + this.words;
  }

  advance(pointer: number, words: number): number {
    return (pointer + words) % this.words;
  }

  close(): void {
    closeSync(this.#headerFd);
    closeSync(this.#dataFd);
  }

  #readData(target: Buffer, offset: number, length: number, position: number): void {
    if (length > 0 && readSync(this.#dataFd, target, offset, length, position) !== length) {
      throw malformed(`${this.name}: the file was cut short`, 'a whole ring');
    }
  }
}
