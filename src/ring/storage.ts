/**
 * Access to the bytes of a ring. /dev/shm is memory (tmpfs), so file reads and writes are coherent with the daemon's
 * mapping. They need no fsync and never block, hence the synchronous calls.
 *
 * A storage knows nothing about rings: it takes offsets, and throws if it could not transfer everything.
 */
import { closeSync, readSync, writeSync, writevSync } from 'node:fs';
import { malformed } from '../codec/fields';
import { WORD_BYTES } from './layout';
import { CpgError } from '../errors';

export interface RingStorage {
  /** Reads the first `count` words of `words` from the header file at byte `offset`. */
  readHeader(offset: number, words: Uint32Array, count: number): void;
  /** Writes the first `count` words of `words` to the header file at byte `offset`. */
  writeHeader(offset: number, words: Uint32Array, count: number): void;
  /** Reads `length` bytes of the data file into `target` at `offset`. */
  read(target: Buffer, offset: number, length: number, position: number): void;
  /** Writes `length` bytes of `bytes` at `offset` to the data file. */
  write(bytes: Buffer, offset: number, length: number, position: number): void;
  /** Writes pieces, together `length` bytes, contiguously to the data file. */
  writeParts(parts: readonly Uint8Array[], length: number, position: number): void;
  /** Every later access fails. */
  close(): void;
}

/** The open files of a ring: the header of RING_HEADER_BYTES and the data of `dataBytes`. */
export interface RingFiles {
  readonly name: string;
  readonly headerFd: number;
  readonly dataFd: number;
  readonly dataBytes: number;
}

/** Takes ownership of the files; if it throws, the caller still has to close them. */
export type OpenStorage = (files: RingFiles) => RingStorage;

export const storeInFiles: OpenStorage = (files) => new FileStorage(files);

/** Positioned reads and writes, without a mapping. */
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
    // The system reuses the numbers immediately: a late write must not end up in another file.
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
