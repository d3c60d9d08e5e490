/** Which provider is taken, and what a mapping can do. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type * as mappingModule from '../../src/native/mapping';
import { findMapper, type Mapper } from '../../src/native/mapping';
import { thrownBy } from '../support/errors';

afterEach(() => jest.restoreAllMocks());

/** A provider of the kind of node:ffi: its getpid() says `pid`. */
function nodeFfi(pid: number, warns: boolean): () => unknown {
  return () => {
    if (warns) process.emitWarning('FFI is an experimental feature', 'ExperimentalWarning');
    const functions = new Proxy({}, { get: (_, name) => () => (name === 'getpid' ? pid : 0) });
    return { dlopen: () => ({ functions }), toArrayBuffer: () => new ArrayBuffer(0), getInt32: () => 0 };
  };
}

const absent = (): never => {
  throw new Error('Cannot find module');
};

/** Calls `act` with a native door of its own, behind which these are. */
function withProviders(
  koffi: () => unknown,
  ffi: () => unknown,
  act: (find: typeof findMapper) => void,
): void {
  jest.isolateModules(() => {
    jest.doMock('koffi', koffi);
    jest.doMock('node:ffi', ffi, { virtual: true });
    act(jest.requireActual<typeof mappingModule>('../../src/native/mapping').findMapper);
    jest.dontMock('koffi');
    jest.dontMock('node:ffi');
  });
}

test("'auto' takes node:ffi where it prints no warning", () => {
  const warned = jest.spyOn(process, 'emitWarning').mockReturnValue();
  withProviders(absent, nodeFfi(process.pid, false), (find) => expect(find('auto')).toBeDefined());
  expect(warned).not.toHaveBeenCalled();
});

test("'auto' leaves an experimental node:ffi alone, in silence; true takes it, and the warning is printed once", () => {
  const warned = jest.spyOn(process, 'emitWarning').mockReturnValue();
  withProviders(absent, nodeFfi(process.pid, true), (find) => {
    expect(find('auto')).toBeUndefined();
    expect(warned).not.toHaveBeenCalled();
    expect(find(true)).toBeDefined();
    expect(find(true)).toBeDefined();
    expect(warned.mock.calls).toEqual([['FFI is an experimental feature', 'ExperimentalWarning']]);
    expect(find('auto')).toBeUndefined();
  });
});

test.each([
  ['absent', absent, absent],
  ['broken', () => ({ version: '3.0.0', load: absent }), nodeFfi(1, false)],
  ['old', () => ({ version: '2.16.1' }), () => ({})],
])('%s providers: none for auto, and CS_ERR_NOT_SUPPORTED for true', (_, koffi, ffi) => {
  withProviders(koffi, ffi, (find) => {
    expect(find('auto')).toBeUndefined();
    expect(find(false)).toBeUndefined();
    const error = thrownBy(() => find(true));
    expect(error).toMatchObject({ code: 'CS_ERR_NOT_SUPPORTED', reason: 'no-koffi' });
    expect(String(error.cause)).toMatch(/koffi: .*node:ffi: /);
  });
});

describe('a mapping', () => {
  let directory: string;
  let mapper: Mapper;
  let address: bigint;
  let fd: number;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'mapping-'));
    fd = openSync(join(directory, 'file'), 'w+');
    writeSync(fd, Buffer.alloc(24));
    mapper = findMapper(true)!;
    address = mapper.map(fd, 24);
  });
  afterEach(() => {
    mapper.unmap(address, 24);
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  test('is the file, and can be changed atomically', () => {
    const words = new Int32Array(mapper.view(address, 24));
    Atomics.add(words, 1, 5);
    writeSync(fd, Buffer.from([7, 0, 0, 0]), 0, 4, 8);
    expect(readFileSync(join(directory, 'file')).readInt32LE(4)).toBe(5);
    expect(Atomics.load(words, 2)).toBe(7);
  });

  test('has words on which others sleep, and are woken', async () => {
    interface Koffi {
      load(path: null): {
        func(declaration: string): { async(...values: unknown[]): void };
      };
    }
    const koffi = createRequire(__filename)('koffi') as Koffi;
    const syscall = koffi.load(null).func('int64_t syscall(int64_t, void *, size_t, size_t, void *)');
    const FUTEX = process.arch === 'x64' ? 202 : 98;
    expect(mapper.wake(address, 1)).toBe(0);
    // FUTEX_WAIT while the word is 0, in a thread of its own.
    const woken = new Promise<void>((resolve, reject) => {
      syscall.async(FUTEX, address, 0, 0, null, (error: Error | null) => (error ? reject(error) : resolve()));
    });
    while (mapper.wake(address, 1) === 0) await new Promise((go) => setImmediate(go));
    await woken;
  });
});
