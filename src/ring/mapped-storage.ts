/**
 * The files of a ring mapped into our memory, as libqb does it: no system call for what is read or written. Node
 * cannot map a file, so this needs the package koffi, which calls mmap(2) for us. It is an optional peer, loaded
 * when somebody first asks for it; it comes compiled.
 *
 * The rules of the rings are the same as through files: an atomic change of the semaphore would be possible here,
 * but brought nothing that could be measured.
 *
 * The files are mapped over memory of WebAssembly, which V8 takes from the system by mmap(2) for each such memory alone, and
 * gives back by munmap(2). So a mapping ends with its memory, whatever ends that: close(), the garbage collector, or
 * the end of a worker. terminate() ends a worker without any JavaScript, so nothing of ours could unmap there.
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
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const NO_FD = -1;

/** Memory of WebAssembly comes in such pages, a multiple of those of the system. */
const PAGE_BYTES = 64 * 1024;

/** The unit of st_blocks, whatever the file system. */
const BLOCK_BYTES = 512;

/** Before this version of koffi an address was no bigint. */
const KOFFI_MAJOR = 3;

/** What is used of koffi. */
interface Koffi {
  readonly version: string;
  load(path: null): { func(declaration: string): (...args: unknown[]) => unknown };
}

interface Mapper {
  /** Maps the first `bytes` of a file over the beginning of `memory`. */
  map(memory: ArrayBuffer, bytes: number, fd: number): void;
  /** Puts zeros in their place. */
  unmap(memory: ArrayBuffer, bytes: number): void;
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
    const cover = (memory: ArrayBuffer, bytes: number, flags: number, fd: number): void => {
      const address = mmap(new Uint8Array(memory), bytes, PROT_READ_WRITE, flags | MAP_FIXED, fd, 0);
      if (address === MAP_FAILED) throw noMemory(bytes);
    };
    return {
      map: (memory, bytes, fd) => cover(memory, bytes, MAP_SHARED, fd),
      unmap: (memory, bytes) => cover(memory, bytes, MAP_PRIVATE | MAP_ANONYMOUS, NO_FD),
    };
  } catch (error) {
    throw new CpgError('CS_ERR_NOT_SUPPORTED', 'mapped rings need the package koffi', {
      cause: error,
      reason: 'no-koffi',
      remedy: `npm install koffi (version ${KOFFI_MAJOR} or later), or connect without mapped`,
    });
  }
}

function noMemory(bytes: number, cause?: unknown): CpgError {
  return new CpgError('CS_ERR_NO_MEMORY', `mmap of ${bytes} bytes failed`, {
    cause,
    remedy: 'see the limit of address space (ulimit -v) and vm.max_map_count',
  });
}

/** What is used of it; a library for Node has no types of the web. */
declare const WebAssembly: {
  readonly Memory: new (pages: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
};

function newMemory(bytes: number): ArrayBuffer {
  const pages = Math.ceil(bytes / PAGE_BYTES);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer;
  } catch (error) {
    throw noMemory(bytes, error);
  }
}

const NOTHING = new ArrayBuffer(0);

class MappedStorage implements RingStorage {
  readonly #mapper: Mapper;
  readonly #mapped: { readonly memory: ArrayBuffer; readonly bytes: number }[] = [];
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
    const memory = newMemory(bytes);
    this.#mapper.map(memory, bytes, fd);
    this.#mapped.push({ memory, bytes });
    return memory;
  }

  #unmap(): void {
    for (const { memory, bytes } of this.#mapped.splice(0)) this.#mapper.unmap(memory, bytes);
  }
}
