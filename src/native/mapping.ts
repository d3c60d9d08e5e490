/** Files mapped into memory. */
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { findLibc, libcError, LIBC_PROVIDERS, whyNot, type Libc } from './libc';

// sys/mman.h
const PROT_READ_WRITE = 0x1 | 0x2;
const MAP_SHARED = 0x1;
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

/** Maps files and undoes it. */
export interface Mapper {
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
  return {
    map: (fd, bytes) => {
      const address = mmap(null, BigInt(bytes), PROT_READ_WRITE, MAP_SHARED, fd, 0n) as bigint;
      if (address !== MAP_FAILED) return address;
      throw new CpgError('CS_ERR_NO_MEMORY', `mmap of ${bytes} bytes failed`, {
        cause: libcError(libc, 'mmap'),
        remedy: 'see the limit of address space (ulimit -v) and vm.max_map_count',
      });
    },
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
}
