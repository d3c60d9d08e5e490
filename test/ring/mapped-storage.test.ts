/** Rings in mapped memory: close() releases everything, and later accesses fail. */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RING_HEADER_BYTES } from '../../src/ring/layout';
import type * as mappedStorageModule from '../../src/ring/mapped-storage';
import { mappedStorage } from '../../src/ring/mapped-storage';
import type { RingFiles } from '../../src/ring/storage';
import { thrownBy } from '../support/errors';

const DATA_BYTES = 8192;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'mapped-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function files(dataBytes = DATA_BYTES): RingFiles {
  const make = (name: string, bytes: number): number => {
    const fd = openSync(join(directory, name), 'w+');
    writeSync(fd, Buffer.alloc(bytes, 1));
    return fd;
  };
  return {
    name: 'qb-event-cpg',
    headerFd: make('header', RING_HEADER_BYTES),
    dataFd: make('data', dataBytes),
    dataBytes,
  };
}

const mappings = (): string[] =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(directory));

test('it owns the files, and unmaps them when it is closed', () => {
  const given = files();
  const storage = mappedStorage()(given);
  expect(mappings()).toHaveLength(2);
  for (const fd of [given.headerFd, given.dataFd]) expect(() => fstatSync(fd)).toThrow('EBADF');
  storage.write(Buffer.from('..bytes..'), 2, 5, 100);
  expect(readFileSync(join(directory, 'data')).toString('latin1', 100, 105)).toBe('bytes');
  storage.close();
  expect(mappings()).toEqual([]);
});

test('nothing can be read or written afterwards', () => {
  const storage = mappedStorage()(files());
  storage.close();
  const words = new Uint32Array(2);
  expect(() => storage.readHeader(0, words, 2)).toThrow(RangeError);
  expect(() => storage.writeHeader(0, words, 2)).toThrow(RangeError);
  expect(() => storage.writeParts([Buffer.from('x')], 1, 0)).toThrow(RangeError);
  const target = Buffer.alloc(4, 7);
  expect(() => storage.read(target, 0, 4, 0)).toThrow(RangeError);
  expect(() => storage.write(target, 0, 4, 0)).toThrow(RangeError);
});

test("a file that cannot be mapped is CS_ERR_NO_MEMORY, and still the caller's", () => {
  const given = files(0);
  expect(thrownBy(() => mappedStorage()(given)).code).toBe('CS_ERR_NO_MEMORY');
  expect(mappings()).toEqual([]);
  for (const fd of [given.headerFd, given.dataFd]) closeSync(fd);
});

test('sparse files are not mapped: a page without room would end the process', () => {
  const given = files();
  ftruncateSync(given.dataFd, 0);
  ftruncateSync(given.dataFd, DATA_BYTES);
  const storage = mappedStorage()(given);
  expect(mappings()).toEqual([]);
  storage.write(Buffer.from('bytes'), 0, 5, 100);
  expect(readFileSync(join(directory, 'data')).toString('latin1', 100, 105)).toBe('bytes');
  storage.close();
});

test.each([
  [
    'without koffi',
    () => {
      throw new Error("Cannot find module 'koffi'");
    },
  ],
  ['with a koffi of old', () => ({ version: '2.16.1' })],
])('%s it is CS_ERR_NOT_SUPPORTED, with the way to get it', (_, koffi) => {
  jest.isolateModules(() => {
    jest.doMock('koffi', koffi);
    const fresh = jest.requireActual<typeof mappedStorageModule>('../../src/ring/mapped-storage');
    const error = thrownBy(() => fresh.mappedStorage());
    expect(error.code).toBe('CS_ERR_NOT_SUPPORTED');
    expect(error.message).toMatch(/npm install koffi/);
  });
});
