/** The files of a ring, as created by a daemon and opened by a client or a tap. */
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRing, openReadOnly, openRing } from '../../src/ring/files';
import type { Ring } from '../../src/ring/ring';
import { openDescriptors, openedSince } from '../support/descriptors';
import { thrownBy } from '../support/errors';

const DATA_BYTES = 4096;

let directory: string;
let stem: string;
let before: ReturnType<typeof openDescriptors>;
const opened: Ring[] = [];

const keep = (ring: Ring): Ring => {
  opened.push(ring);
  return ring;
};

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ring-files-'));
  stem = join(directory, 'qb-event-cpg');
  before = openDescriptors();
});
afterEach(() => {
  for (const ring of opened.splice(0)) ring.close();
  rmSync(directory, { recursive: true });
  expect(openedSince(before)).toEqual([]);
});

test('are created with the header that libqb expects', () => {
  keep(createRing(stem, DATA_BYTES));
  const header = readFileSync(`${stem}-header`);
  const text = (offset: number): string => header.toString('utf8', offset, header.indexOf(0, offset));
  expect(header.length).toBe(8252);
  expect([0, 4, 8, 8204, 8208, 8212, 8240].map((offset) => header.readUInt32LE(offset))).toEqual([
    0,
    0,
    DATA_BYTES / 4,
    1,
    0,
    0,
    0,
  ]);
  expect([text(12), text(4108)]).toEqual([`${stem}-header`, `${stem}-data`]);
  expect(statSync(`${stem}-data`).size).toBe(DATA_BYTES);
  for (const path of [`${stem}-header`, `${stem}-data`]) expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('do not overwrite existing files', () => {
  keep(createRing(stem, DATA_BYTES));
  expect(() => createRing(stem, DATA_BYTES)).toThrow('EEXIST');
});

test('have one client, and any number of taps', () => {
  keep(createRing(stem, DATA_BYTES));
  keep(openRing(stem)).attach();
  expect(thrownBy(() => openRing(stem)).code).toBe('CS_ERR_SECURITY');
  const tap = keep(openReadOnly(stem));
  expect([tap.wordSize, tap.writePointer, tap.readPointer]).toEqual([DATA_BYTES / 4, 0, 0]);
  keep(openReadOnly(stem));
});

test('are never changed by a tap', () => {
  keep(createRing(stem, DATA_BYTES));
  const tap = keep(openReadOnly(stem));
  const files = [`${stem}-header`, `${stem}-data`];
  const contents = files.map((path) => readFileSync(path));
  for (const write of [() => tap.setSemaphore(1), () => tap.attach(), () => tap.write(0, Buffer.alloc(8, 1))])
    expect(write).toThrow('EBADF');
  expect(files.map((path) => readFileSync(path))).toEqual(contents);
});

// libqb's client requests no user data in two of its rings, and truncates their headers.
test.each([
  [8252, true, true],
  [8248, false, true],
  [8251, false, false],
  [8256, false, false],
  [0, false, false],
])('with a header of %i bytes: for a client %s, for a tap %s', (bytes, forClient, forTap) => {
  keep(createRing(stem, DATA_BYTES)).close();
  truncateSync(`${stem}-header`, bytes);
  for (const [open, fits] of [
    [openRing, forClient],
    [openReadOnly, forTap],
  ] as const) {
    if (fits) keep(open(stem)).close();
    else expect(thrownBy(() => open(stem)).code).toBe('CS_ERR_NOT_SUPPORTED');
  }
});

test.each([0, 4, DATA_BYTES - 4, DATA_BYTES + 4])('with a data file of %i bytes are not a ring', (bytes) => {
  keep(createRing(stem, DATA_BYTES)).close();
  truncateSync(`${stem}-data`, bytes);
  for (const open of [openRing, openReadOnly])
    expect(thrownBy(() => open(stem)).code).toBe('CS_ERR_MESSAGE_ERROR');
});
