/**
 * C library calls that Node does not offer, through the package koffi or the `node:ffi` of newer Node versions. Each is
 * loaded on first use and judged by its capabilities, not its version.
 *
 * 64-bit Linux only: corosync runs there, and the constants are the same on all its architectures.
 */
import { createRequire } from 'node:module';
import { getSystemErrorName } from 'node:util';
import { debugTransport as debug } from '../debug';

/** C types: `size` and `offset` have 64 bits and are bigints here; an `address` is a bigint or memory. */
type CType = 'int' | 'uint' | 'size' | 'offset' | 'address';

const FUNCTIONS = {
  getpid: { takes: [], gives: 'int' },
  mmap: { takes: ['address', 'size', 'int', 'int', 'int', 'offset'], gives: 'address' },
  munmap: { takes: ['address', 'size'], gives: 'int' },
  socket: { takes: ['int', 'int', 'int'], gives: 'int' },
  bind: { takes: ['int', 'address', 'uint'], gives: 'int' },
  connect: { takes: ['int', 'address', 'uint'], gives: 'int' },
  getsockopt: { takes: ['int', 'int', 'int', 'address', 'address'], gives: 'int' },
  setsockopt: { takes: ['int', 'int', 'int', 'address', 'uint'], gives: 'int' },
  send: { takes: ['int', 'address', 'size', 'int'], gives: 'offset' },
  recv: { takes: ['int', 'address', 'size', 'int'], gives: 'offset' },
  dup3: { takes: ['int', 'int', 'int'], gives: 'int' },
  syscall: { takes: ['offset', 'address', 'size', 'size', 'size', 'size', 'size'], gives: 'offset' },
} as const satisfies Record<string, { takes: readonly CType[]; gives: CType }>;

interface CValues {
  int: number;
  uint: number;
  size: bigint;
  offset: bigint;
  address: bigint | Uint8Array | null;
}
type Arguments<Types extends readonly CType[]> = { -readonly [At in keyof Types]: CValues[Types[At]] };
type Functions = {
  readonly [Name in keyof typeof FUNCTIONS]: (
    // TypeScript before 5.1 does not see by itself that this is an array.
    ...values: Extract<Arguments<(typeof FUNCTIONS)[Name]['takes']>, unknown[]>
  ) => number | bigint;
};

/** The providers of C calls. */
export type LibcProvider = 'koffi' | 'node:ffi';

export interface Libc {
  readonly provider: LibcProvider;
  readonly functions: Functions;
  /** errno of the last call. */
  errno(): number;
  /** The memory at an address, valid while it is mapped. */
  view(address: bigint, bytes: number): ArrayBuffer;
}

/** From this version of koffi on, an address is a bigint. */
const KOFFI_MAJOR = 3;

/** The functions we use of koffi. */
interface Koffi {
  readonly version: string;
  load(path: null): { func(name: string, gives: string, takes: string[]): (...values: unknown[]) => unknown };
  errno(): number;
  view(address: bigint, length: number): ArrayBuffer;
}

/** The functions we use of node:ffi. */
interface NodeFfi {
  dlopen(
    path: null,
    functions: Record<string, { arguments: string[]; return: string }>,
  ): { functions: Record<string, (...values: unknown[]) => unknown> };
  toArrayBuffer(address: bigint, length: number, copy: boolean): ArrayBuffer;
  getInt32(address: bigint, offset: number): number;
}

const load = createRequire(__filename);

const LOADERS: Readonly<Record<LibcProvider, () => Libc>> = {
  koffi: () => {
    const koffi = load('koffi') as Koffi;
    if (!(Number.parseInt(koffi.version, 10) >= KOFFI_MAJOR))
      throw new Error(`this is koffi ${koffi.version}`);
    const names = { int: 'int', uint: 'uint32_t', size: 'size_t', offset: 'int64_t', address: 'void *' };
    const library = koffi.load(null);
    const functions = Object.entries(FUNCTIONS).map(([name, { takes, gives }]) => {
      const types = takes.map((type) => names[type]);
      return [name, library.func(name, names[gives], types)];
    });
    return {
      provider: 'koffi',
      functions: Object.fromEntries(functions) as Functions,
      errno: () => koffi.errno(),
      view: (address, bytes) => koffi.view(address, bytes),
    };
  },
  'node:ffi': () => {
    const ffi = load('node:ffi') as NodeFfi;
    const names = { int: 'int32', uint: 'uint32', size: 'uint64', offset: 'int64', address: 'pointer' };
    const signatures = Object.entries(FUNCTIONS).map(([name, { takes, gives }]) => {
      return [name, { arguments: takes.map((type) => names[type]), return: names[gives] }];
    });
    const { functions } = ffi.dlopen(null, {
      ...(Object.fromEntries(signatures) as Parameters<NodeFfi['dlopen']>[1]),
      __errno_location: { arguments: [], return: 'pointer' },
    });
    return {
      provider: 'node:ffi',
      functions: functions as Functions,
      errno: () => ffi.getInt32(functions['__errno_location']!() as bigint, 0),
      view: (address, bytes) => ffi.toArrayBuffer(address, bytes, false),
    };
  },
};

/** In order of preference. */
export const LIBC_PROVIDERS = Object.keys(LOADERS) as readonly LibcProvider[];

type Warning = Parameters<typeof process.emitWarning>;
/** The result of loading a provider: its calls and Node's warnings, or why it cannot be used. */
type Tried = { libc: Libc; warnings: Warning[] } | { error: Error };

const tried = new Map<LibcProvider, Tried>();
const warned = new Set<LibcProvider>();

/** Why a provider cannot be used, in one line; undefined if it can. */
export function whyNot(provider: LibcProvider): string | undefined {
  const found = tryProvider(provider);
  return 'error' in found ? found.error.message.split('\n')[0] : undefined;
}

/** Whether Node prints a warning when we use this provider. */
export function isExperimental(provider: LibcProvider): boolean {
  const found = tryProvider(provider);
  return 'libc' in found && found.warnings.length > 0;
}

/** The first working provider; with `quiet`, only one without a warning of Node. */
export function findLibc({ quiet }: { quiet: boolean }): Libc | undefined {
  for (const provider of LIBC_PROVIDERS) {
    const found = tryProvider(provider);
    if ('error' in found || (quiet && found.warnings.length > 0)) continue;
    // Loading held the warnings back.
    if (!warned.has(provider)) for (const warning of found.warnings) process.emitWarning(...warning);
    warned.add(provider);
    return found.libc;
  }
  return undefined;
}

function tryProvider(provider: LibcProvider): Tried {
  let found = tried.get(provider);
  if (found === undefined) {
    found = loadProvider(provider);
    if ('error' in found) debug('%s cannot be used: %s', provider, found.error.message);
    tried.set(provider, found);
  }
  return found;
}

/** Loads a provider and captures Node's warnings: only loading shows whether a module is experimental. */
function loadProvider(provider: LibcProvider): Tried {
  // eslint-disable-next-line @typescript-eslint/unbound-method -- it is only put back
  const { emitWarning } = process;
  const warnings: Warning[] = [];
  process.emitWarning = ((...warning: Warning) => void warnings.push(warning)) as typeof emitWarning;
  try {
    if (process.platform !== 'linux' || ['arm', 'ia32'].includes(process.arch)) {
      throw new Error(`this is no Linux on 64 bits (${process.platform}, ${process.arch})`);
    }
    const libc = LOADERS[provider]();
    const pid = libc.functions.getpid();
    if (pid !== process.pid) throw new Error(`it calls something else: getpid() is ${String(pid)}`);
    return { libc, warnings };
  } catch (error) {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** The error of the last call, in the form of Node's own system errors. */
export function libcError(libc: Libc, call: string): NodeJS.ErrnoException {
  const errno = -libc.errno();
  const code = errno < 0 ? getSystemErrorName(errno) : 'UNKNOWN';
  return Object.assign(new Error(`${call} ${code}`), { errno, code, syscall: call });
}
