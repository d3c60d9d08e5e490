/**
 * How the bytes of a ring are reached. /dev/shm is memory (tmpfs), so what is read and written through its files is
 * coherent with the daemon's mapping of them; no fsync, no blocking, hence the synchronous calls.
 *
 * A storage knows nothing of rings: it is given offsets, and says so when it could not do all of it.
 */
import { closeSync, readSync, writeSync, writevSync } from 'node:fs';
import { malformed } from '../codec/fields';
import { WORD_BYTES } from './layout';
import { CpgError } from '../errors';

export interface RingStorage {
  /** Fills the first `count` words of `words` from the header file, from the byte `offset` on. */
  readHeader(offset: number, words: Uint32Array, count: number): void;
  /** Writes the first `count` words of `words` to the header file, to the byte `offset`. */
  writeHeader(offset: number, words: Uint32Array, count: number): void;
  /** Fills `length` bytes of `target`, from `offset` on, from the data file. */
  read(target: Buffer, offset: number, length: number, position: number): void;
  /** Writes `length` bytes of `bytes`, from `offset` on, to the data file. */
  write(bytes: Buffer, offset: number, length: number, position: number): void;
  /** Writes pieces, together `length` bytes, one behind the other to the data file. */
  writeParts(parts: readonly Uint8Array[], length: number, position: number): void;
  /** Nothing can be read or written afterwards. */
  close(): void;
}

/** The open files of a ring: one of RING_HEADER_BYTES, one of `dataBytes`. */
export interface RingFiles {
  readonly name: string;
  readonly headerFd: number;
  readonly dataFd: number;
  readonly dataBytes: number;
}

/** Takes over the files; should it throw, they are still the caller's to close. */
export type OpenStorage = (files: RingFiles) => RingStorage;

export const storeInFiles: OpenStorage = (files) => new FileStorage(files);

/** Positioned reads and writes, which every Node can do. */
class FileStorage implements RingStorage {
  readonly #name: string;
  #headerFd: number;
  #dataFd: number;

  constructor({ name, headerFd, dataFd }: RingFiles) {
    this.#name = name;
    this.#headerFd = headerFd;
    this.#dataFd = dataFd;
  }

  readHeader(offset: number, words: Uint32Array, count: number): void {
    const bytes = count * WORD_BYTES;
    if (readSync(this.#headerFd, words, 0, bytes, offset) !== bytes) throw this.#shrunk();
  }

  writeHeader(offset: number, words: Uint32Array, count: number): void {
    const bytes = count * WORD_BYTES;
    if (writeSync(this.#headerFd, words, 0, bytes, offset) !== bytes) throw this.#full();
  }

  read(target: Buffer, offset: number, length: number, position: number): void {
    if (readSync(this.#dataFd, target, offset, length, position) !== length) throw this.#shrunk();
  }

  write(bytes: Buffer, offset: number, length: number, position: number): void {
    if (writeSync(this.#dataFd, bytes, offset, length, position) !== length) throw this.#full();
  }

  writeParts(parts: readonly Uint8Array[], length: number, position: number): void {
    if (writevSync(this.#dataFd, parts, position) !== length) throw this.#full();
  }

  close(): void {
    closeSync(this.#headerFd);
    closeSync(this.#dataFd);
    // The system reuses the numbers at once: a late write must not end up in somebody else's file.
    this.#headerFd = -1;
    this.#dataFd = -1;
  }

  #full(): CpgError {
    return new CpgError('CS_ERR_NO_SPACE', `${this.#name}: a write was cut short`, {
      remedy: 'make room in the file system of the rings (df /dev/shm)',
    });
  }

  #shrunk(): CpgError {
    return malformed(`${this.#name}: the file was cut short under us`, 'a whole ring');
  }
}
