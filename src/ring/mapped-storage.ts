/**
 * The files of a ring mapped into our memory, as libqb does it: no system call for what is read or written. Node
 * cannot map a file, so this needs somebody who calls mmap(2) for us: see src/native/.
 *
 * The rules of the rings are the same as through files: an atomic change of the semaphore would be possible here,
 * but brought nothing that could be measured.
 *
 * A mapping is only as good as its file: should somebody shorten one, the process ends with SIGBUS, as with libqb. The
 * same would happen if a page that is not there yet found no room in /dev/shm, so files with holes are not mapped:
 * the daemon makes whole ones, an embedded server does not.
 */
import { closeSync, fstatSync } from 'node:fs';
import { debugTransport as debug } from '../debug';
import { findMapper, type Mapped, type Mapper, type Mapping } from '../native/mapping';
import { RING_HEADER_BYTES, WORD_BYTES } from './layout';
import { storeInFiles, type OpenStorage, type RingFiles, type RingStorage } from './storage';

/** The unit of st_blocks, whatever the file system. */
const BLOCK_BYTES = 512;

/**
 * Storage that maps the files that are whole, where that can be done; see findMapper() for what it throws.
 */
export function mappedStorage(mapped: Mapped = true): OpenStorage {
  const mapper = findMapper(mapped);
  if (mapper === undefined) return storeInFiles;
  return (files) => {
    try {
      if (isWhole(files.headerFd) && isWhole(files.dataFd)) return new MappedStorage(files, mapper);
      debug('%s has holes: not mapped', files.name);
    } catch (error) {
      if (mapped !== 'auto') throw error;
      debug('%s: %s', files.name, (error as Error).message);
    }
    return storeInFiles(files);
  };
}

/** No page of it is still to be made. */
function isWhole(fd: number): boolean {
  const { size, blocks } = fstatSync(fd);
  return blocks * BLOCK_BYTES >= size;
}

const NOTHING = new ArrayBuffer(0);

class MappedStorage implements RingStorage {
  readonly #mapper: Mapper;
  readonly #mappings: Mapping[] = [];
  /** By Atomics, so that neither the compiler nor the processor changes the order of the steps. */
  #header: Int32Array<ArrayBuffer>;
  #data: Buffer;

  constructor(files: RingFiles, mapper: Mapper) {
    this.#mapper = mapper;
    try {
      const header = this.#map(files.headerFd, RING_HEADER_BYTES);
      this.#header = new Int32Array(header, 0, Math.floor(RING_HEADER_BYTES / WORD_BYTES));
      this.#data = Buffer.from(this.#map(files.dataFd, files.dataBytes), 0, files.dataBytes);
    } catch (error) {
      this.#unmap();
      throw error;
    }
    // The mappings keep the files, so their descriptors need not be kept.
    closeSync(files.headerFd);
    closeSync(files.dataFd);
  }

  readHeader(offset: number, words: Uint32Array, count: number): void {
    const first = offset / WORD_BYTES;
    for (let word = 0; word < count; word++) words[word] = Atomics.load(this.#header, first + word);
  }

  writeHeader(offset: number, words: Uint32Array, count: number): void {
    const first = offset / WORD_BYTES;
    for (let word = 0; word < count; word++) Atomics.store(this.#header, first + word, words[word]!);
  }

  read(target: Buffer, offset: number, length: number, position: number): void {
    this.#check(position, length);
    this.#data.copy(target, offset, position, position + length);
  }

  write(bytes: Buffer, offset: number, length: number, position: number): void {
    this.#check(position, length);
    bytes.copy(this.#data, position, offset, offset + length);
  }

  writeParts(parts: readonly Uint8Array[], length: number, position: number): void {
    this.#check(position, length);
    let at = position;
    for (const part of parts) {
      this.#data.set(part, at);
      at += part.length;
    }
  }

  close(): void {
    // What comes late must find nothing, instead of memory that may be somebody else's by then.
    this.#header = new Int32Array(NOTHING);
    this.#data = Buffer.from(NOTHING);
    this.#unmap();
  }

  /** Buffer.copy() would copy less without a word. */
  #check(position: number, length: number): void {
    if (position + length <= this.#data.length) return;
    throw new RangeError(`${length} bytes at ${position} of a mapping of ${this.#data.length}`);
  }

  #map(fd: number, bytes: number): ArrayBuffer {
    const mapping = this.#mapper.mapFile(fd, bytes);
    this.#mappings.push(mapping);
    return mapping.memory;
  }

  #unmap(): void {
    for (const mapping of this.#mappings.splice(0)) mapping.unmap();
  }
}
