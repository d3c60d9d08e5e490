/**
 * Files mapped into memory.
 *
 * terminate() ends a worker without any JavaScript, so nothing of ours could unmap there. In a worker a file is therefore
 * mapped over memory of WebAssembly, which V8 gives back with munmap(2) whatever ends the worker. Each such memory
 * reserves about 10 GB of addresses, so the main thread, which ends with its process, maps in the plain way.
 */
import { isMainThread } from 'node:worker_threads';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { findLibc, libcError, LIBC_PROVIDERS, whyNot, type Libc } from './libc';

// sys/mman.h
const PROT_READ_WRITE = 0x1 | 0x2;
const MAP_SHARED = 0x1;
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const NO_FD = -1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** futex(2): what a sleeper is woken with. */
const FUTEX_WAKE = 1n;
const SYS_FUTEX: Readonly<Record<string, bigint>> = {
  x64: 202n,
  arm64: 98n,
  riscv64: 98n,
  loong64: 98n,
  ppc64: 221n,
  s390x: 238n,
};

/** Whether files are to be mapped: 'auto' where that can be done without ado, true or not at all. */
export type Mapped = 'auto' | boolean;

/** Memory of WebAssembly comes in such pages, a multiple of those of the system. */
const PAGE_BYTES = 64 * 1024;

/** A file in memory, which may be longer than the file. It must not be touched after unmap(). */
export interface Mapping {
  readonly memory: ArrayBuffer;
  unmap(): void;
}

/** Maps files and undoes it. */
export interface Mapper {
  /** Maps the first `bytes` of a file so that nothing stays mapped when this thread ends. */
  mapFile(fd: number, bytes: number): Mapping;
  map(fd: number, bytes: number): bigint;
  unmap(address: bigint, bytes: number): void;
  /** The mapped memory, until unmap(): it must not be touched afterwards. */
  view(address: bigint, bytes: number): ArrayBuffer;
  /** Wakes up to `count` processes that sleep on the word at `address`, which was changed before. Returns how many. */
  wake(address: bigint, count: number): number;
}

/**
 * Who maps files. Undefined when nobody can or shall: with 'auto', a provider for which Node prints a warning does not
 * count. Throws CS_ERR_NOT_SUPPORTED when it was asked for and nobody can.
 */
export function findMapper(mapped: Mapped): Mapper | undefined {
  if (mapped === false) return undefined;
  const libc = findLibc({ quiet: mapped === 'auto' });
  if (libc !== undefined) return mapperOf(libc);
  if (mapped === 'auto') return undefined;
  const reasons = LIBC_PROVIDERS.map((provider) => `${provider}: ${whyNot(provider)}`);
  throw new CpgError('CS_ERR_NOT_SUPPORTED', 'mapped rings need the package koffi or node:ffi', {
    cause: new Error(reasons.join('; ')),
    reason: 'no-koffi',
    remedy:
      "npm install koffi (version 3 or later), use a Node that has node:ffi (26), or connect with mapped: 'auto' or false",
  });
}

/** A provider as one who maps files. */
export function mapperOf(libc: Libc): Mapper {
  const { mmap, munmap, syscall } = libc.functions;
  const mapAt = (at: Uint8Array | null, bytes: number, flags: number, fd: number): bigint => {
    const address = mmap(at, BigInt(bytes), PROT_READ_WRITE, flags, fd, 0n) as bigint;
    if (address === MAP_FAILED) throw noMemory(bytes, libcError(libc, 'mmap'));
    return address;
  };
  const mapper: Mapper = {
    mapFile: (fd, bytes) => {
      if (isMainThread) {
        const address = mapper.map(fd, bytes);
        return { memory: mapper.view(address, bytes), unmap: () => mapper.unmap(address, bytes) };
      }
      const memory = newMemory(bytes);
      const bytesOfIt = new Uint8Array(memory);
      mapAt(bytesOfIt, bytes, MAP_SHARED | MAP_FIXED, fd);
      const unmap = (): void => void mapAt(bytesOfIt, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, NO_FD);
      return { memory, unmap };
    },
    map: (fd, bytes) => mapAt(null, bytes, MAP_SHARED, fd),
    unmap: (address, bytes) => {
      if (munmap(address, BigInt(bytes)) !== 0) debug('munmap of %d bytes failed', bytes);
    },
    view: (address, bytes) => libc.view(address, bytes),
    wake: (address, count) => {
      const number = SYS_FUTEX[process.arch];
      return number === undefined
        ? 0
        : Number(syscall(number, address, FUTEX_WAKE, BigInt(count), 0n, 0n, 0n));
    },
  };
  return mapper;
}

function noMemory(bytes: number, cause: unknown): CpgError {
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
