/**
 * The files of a ring mapped into our memory, as libqb does it: no system call for what is read or written. Node
 * cannot map a file, so this needs the package koffi, which calls mmap(2) for us. It is an optional peer, loaded
 * when somebody first asks for it; it comes compiled.
 *
 * The rules of the rings are the same as through files: an atomic change of the semaphore would be possible here,
 * but brought nothing that could be measured.
 *
 * A mapping is only as good as its file: should somebody shorten one, the process ends with SIGBUS, as with libqb. The
 * same would happen if a page that is not there yet found no room in /dev/shm, so files with holes are not mapped:
 * the daemon makes whole ones, an embedded server does not.
 */
import { closeSync, fstatSync } from 'node:fs';
import { createRequire } from 'node:module';
import { RING_HEADER_BYTES, WORD_BYTES } from './layout';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { storeInFiles, type OpenStorage, type RingFiles, type RingStorage } from './storage';

// sys/mman.h of Linux on 64 bits, the same on every processor that Node runs on.
const PROT_READ_WRITE = 0x1 | 0x2;
const MAP_SHARED = 0x1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** The unit of st_blocks, whatever the file system. */
const BLOCK_BYTES = 512;

/** Before this version of koffi an address was no bigint. */
const KOFFI_MAJOR = 3;

/** What is used of koffi. */
interface Koffi {
  readonly version: string;
  load(path: null): { func(declaration: string): (...args: unknown[]) => unknown };
  view(address: bigint, length: number): ArrayBuffer;
}

/** Maps files and undoes it; an address is a bigint. */
interface Mapper {
  map(fd: number, bytes: number): bigint;
  unmap(address: bigint, bytes: number): void;
  view(address: bigint, bytes: number): ArrayBuffer;
}

let mapper: Mapper | undefined;

/**
 * Storage that maps the files, if they are whole. Throws CS_ERR_NOT_SUPPORTED when koffi is not there or cannot be
 * used.
 */
export function mappedStorage(): OpenStorage {
  mapper ??= loadMapper();
  const loaded = mapper;
  return (files) => {
    if (isWhole(files.headerFd) && isWhole(files.dataFd)) return new MappedStorage(files, loaded);
    debug('%s has holes: not mapped', files.name);
    return storeInFiles(files);
  };
}

/** No page of it is still to be made. */
function isWhole(fd: number): boolean {
  const { size, blocks } = fstatSync(fd);
  return blocks * BLOCK_BYTES >= size;
}

function loadMapper(): Mapper {
  try {
    const koffi = createRequire(__filename)('koffi') as Koffi;
    if (['arm', 'ia32'].includes(process.arch)) throw new Error(`this is a 32-bit Node (${process.arch})`);
    if (!(Number.parseInt(koffi.version, 10) >= KOFFI_MAJOR)) {
      throw new Error(`this is koffi ${koffi.version}`);
    }
    const libc = koffi.load(null);
    const mmap = libc.func('void *mmap(void *, size_t, int, int, int, int64_t)');
    const munmap = libc.func('int munmap(void *, size_t)');
    return {
      map: (fd, bytes) => {
        const address = mmap(null, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0) as bigint;
        if (address !== MAP_FAILED) return address;
        throw new CpgError('CS_ERR_NO_MEMORY', `mmap of ${bytes} bytes failed`, {
          remedy: 'see the limit of address space (ulimit -v) and vm.max_map_count',
        });
      },
      unmap: (address, bytes) => {
        if (munmap(address, bytes) !== 0) debug('munmap of %d bytes failed', bytes);
      },
      view: (address, bytes) => koffi.view(address, bytes),
    };
  } catch (error) {
    throw new CpgError('CS_ERR_NOT_SUPPORTED', 'mapped rings need the package koffi', {
      cause: error,
      reason: 'no-koffi',
      remedy: `npm install koffi (version ${KOFFI_MAJOR} or later), or connect without mapped`,
    });
  }
}

const NOTHING = new ArrayBuffer(0);

class MappedStorage implements RingStorage {
  readonly #mapper: Mapper;
  readonly #mapped: { readonly address: bigint; readonly bytes: number }[] = [];
  /** By Atomics, so that neither the compiler nor the processor changes the order of the steps. */
  #header: Int32Array<ArrayBuffer>;
  #data: Buffer;

  constructor(files: RingFiles, mapper: Mapper) {
    this.#mapper = mapper;
    try {
      this.#header = new Int32Array(this.#map(files.headerFd, RING_HEADER_BYTES));
      this.#data = Buffer.from(this.#map(files.dataFd, files.dataBytes));
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
    const address = this.#mapper.map(fd, bytes);
    this.#mapped.push({ address, bytes });
    return this.#mapper.view(address, bytes);
  }

  #unmap(): void {
    for (const { address, bytes } of this.#mapped.splice(0)) this.#mapper.unmap(address, bytes);
  }
}
