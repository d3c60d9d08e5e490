/**
 * A spoofed daemon may name any files in its handshake. Anything that is not clearly our connection is
 * CS_ERR_SECURITY, and then nothing was written and nothing stays open.
 */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HandshakeResponse } from '../../src/codec';
import { openConnectionFiles, removeUnopened } from '../../src/transport/connection-files';
import { openDescriptors, openedSince } from '../support/descriptors';
import { thrownBy } from '../support/errors';
import { FakeRing } from '../support/fake-ring';

const RINGS = ['request', 'response', 'event'] as const;
const NOBODY = 65534;
const asRoot = process.geteuid?.() === 0 ? test : test.skip;

let base: string;
let directory: string;
let rings: FakeRing[];
let answer: HandshakeResponse;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'files-'));
  directory = join(base, `qb-${process.pid}-1234-27-AbCdEf`);
  mkdirSync(directory, { mode: 0o770 });
  chmodSync(directory, 0o770);
  rings = RINGS.map((ring) => new FakeRing(join(directory, `qb-${ring}-cpg`), 64));
  answer = named(directory);
});
afterEach(() => {
  for (const ring of rings) ring.close();
  rmSync(base, { recursive: true, force: true });
});

function named(inDirectory: string): HandshakeResponse {
  const stem = (ring: string): string => `${inDirectory}/qb-${ring}-cpg`;
  return {
    error: 0,
    connectionType: 1,
    maxMessageSize: 1024 * 1024,
    connection: 1n,
    request: stem('request'),
    response: stem('response'),
    event: stem('event'),
  };
}

/** All bytes below `base`, to check that nothing was written. */
function everything(): Record<string, string> {
  const files: Record<string, string> = {};
  for (const name of readdirSync(base, { recursive: true, encoding: 'utf8' })) {
    const path = join(base, name);
    if (lstatSync(path).isFile()) files[path] = readFileSync(path).toString('base64');
  }
  return files;
}

/** Opens, and expects a failure without side effects. */
function refusal(given = answer): { code: string; message: string } {
  const files = everything();
  const descriptors = openDescriptors();
  const error = thrownBy(() => openConnectionFiles(given));
  expect(openedSince(descriptors)).toEqual([]);
  expect(everything()).toEqual(files);
  return error;
}

describe('a connection as libqb creates it', () => {
  test('is opened, and its references are set to 2', () => {
    const files = openConnectionFiles(answer);
    expect(files).toMatchObject({ directory, serverPid: process.pid, clientPid: 1234 });
    expect(rings.map((ring) => ring.references)).toEqual([2, 2, 2]);
    files.remove();
  });

  test('leaves nothing open when it is closed, even twice', () => {
    const before = openDescriptors();
    const files = openConnectionFiles(answer);
    expect(openedSince(before)).toHaveLength(6);
    for (const ring of [...Object.values(files.rings), ...Object.values(files.rings)]) ring.close();
    expect(openedSince(before)).toEqual([]);
    files.remove();
  });

  test('a closed ring refuses access: other files may have its descriptors by now', () => {
    const { rings: opened, remove } = openConnectionFiles(answer);
    for (const ring of Object.values(opened)) ring.close();
    const files = everything();
    for (const ring of Object.values(opened)) {
      expect(() => ring.setSemaphore(1)).toThrow();
      expect(() => ring.publishReadPointer(1)).toThrow();
      expect(() => ring.write(0, Buffer.alloc(4))).toThrow();
      expect(() => ring.writeParts(0, [Buffer.alloc(4)], 4)).toThrow();
      expect(() => ring.semaphore()).toThrow();
    }
    expect(everything()).toEqual(files);
    remove();
  });
});

describe('names that are not those of libqb are CS_ERR_SECURITY', () => {
  const inOther = (path: string): HandshakeResponse => ({ ...answer, event: path });

  test.each([
    ['no names at all', () => ({ ...answer, request: '', response: '', event: '' })],
    ['a relative name', () => named(`qb-${process.pid}-1234-27-AbCdEf`)],
    ['another directory', () => inOther(`${base}/qb-event-cpg`)],
    ['a ring in a directory below', () => inOther(`${directory}/sub/qb-event-cpg`)],
    ['.. in the name', () => inOther(`${directory}/../${directory.split('/').at(-1)}/qb-event-cpg`)],
    ['.. behind it', () => inOther(`${directory}/qb-event-cpg/../../qb-event-cpg`)],
    ['. in the name', () => inOther(`${directory}/./qb-event-cpg`)],
    ['a double slash', () => inOther(`${directory}//qb-event-cpg`)],
    ['the rings swapped', () => ({ ...answer, event: answer.request, request: answer.event })],
    ['one ring twice', () => ({ ...answer, response: answer.request })],
    ['a name of its own kind', () => inOther(`${directory}/secrets`)],
    ['a directory of another form', () => named(`${base}/ring-1-2-3-AbCdEf`)],
    ['a directory without pids', () => named(`${base}/qb-x-y-27-AbCdEf`)],
    ['the root', () => named('')],
  ])('%s', (_, given) => {
    expect(refusal(given()).code).toBe('CS_ERR_SECURITY');
  });

  test('even if such files exist', () => {
    const other = join(base, 'other-1-2-3-x');
    mkdirSync(other);
    for (const ring of RINGS) rings.push(new FakeRing(join(other, `qb-${ring}-cpg`), 64));
    expect(refusal(named(other)).code).toBe('CS_ERR_SECURITY');
    expect(refusal({ ...answer, event: `${other}/qb-event-cpg` }).code).toBe('CS_ERR_SECURITY');
  });
});

describe('a directory that is not ours is CS_ERR_SECURITY', () => {
  test('a symbolic link to one that is', () => {
    const link = join(base, `qb-${process.pid}-1234-28-AbCdEf`);
    symlinkSync(directory, link);
    expect(refusal(named(link)).code).toBe('CS_ERR_SECURITY');
  });

  test('a file', () => {
    const file = join(base, `qb-${process.pid}-1234-28-AbCdEf`);
    writeFileSync(file, '');
    expect(refusal(named(file)).code).toBe('CS_ERR_SECURITY');
  });

  test('one that everyone may write to', () => {
    chmodSync(directory, 0o777);
    expect(refusal().code).toBe('CS_ERR_SECURITY');
    chmodSync(directory, 0o772);
    expect(refusal().code).toBe('CS_ERR_SECURITY');
  });

  asRoot('one of another user', () => {
    chownSync(directory, NOBODY, NOBODY);
    expect(refusal().code).toBe('CS_ERR_SECURITY');
  });
});

// The last ring counts most: the others have been opened by then.
describe.each(RINGS)('a %s ring that is not ours is CS_ERR_SECURITY', (ring) => {
  test('one in use by another connection', () => {
    rings[RINGS.indexOf(ring)]!.references = 2;
    expect(refusal().code).toBe('CS_ERR_SECURITY');
  });

  describe.each(['header', 'data'] as const)('its %s', (part) => {
    let path: string;
    let elsewhere: string;
    beforeEach(() => {
      path = join(directory, `qb-${ring}-cpg-${part}`);
      elsewhere = join(base, 'elsewhere');
    });

    test('a symbolic link, even to a valid file', () => {
      renameSync(path, elsewhere);
      symlinkSync(elsewhere, path);
      expect(refusal().code).toBe('CS_ERR_SECURITY');
    });

    test('a dangling symbolic link', () => {
      unlinkSync(path);
      symlinkSync(elsewhere, path);
      expect(refusal().code).toBe('CS_ERR_SECURITY');
      expect(existsSync(elsewhere)).toBe(false);
    });

    test('a file with a second link', () => {
      linkSync(path, elsewhere);
      expect(refusal().code).toBe('CS_ERR_SECURITY');
    });

    test('a pipe, without blocking', () => {
      unlinkSync(path);
      execFileSync('mkfifo', [path]);
      expect(refusal().code).toBe('CS_ERR_SECURITY');
    });

    asRoot('a file of another user', () => {
      chownSync(path, NOBODY, NOBODY);
      expect(refusal().code).toBe('CS_ERR_SECURITY');
    });
  });
});

describe('damaged rings', () => {
  test.each(RINGS)('a %s header of another size is CS_ERR_NOT_SUPPORTED', (ring) => {
    for (const size of [0, 8248, 8251, 8253, 8304]) {
      truncateSync(join(directory, `qb-${ring}-cpg-header`), size);
      expect(refusal().code).toBe('CS_ERR_NOT_SUPPORTED');
    }
  });

  test.each(RINGS)('a %s ring whose size is not that of its file is CS_ERR_MESSAGE_ERROR', (ring) => {
    const damaged = rings[RINGS.indexOf(ring)]!;
    for (const words of [0, 1, 63, 65, 0x40000040, 0xffffffff]) {
      damaged.wordSize = words;
      expect(refusal().code).toBe('CS_ERR_MESSAGE_ERROR');
    }
    damaged.wordSize = 64;
    damaged.truncate('data', 0);
    expect(refusal().code).toBe('CS_ERR_MESSAGE_ERROR');
  });

  test('a ring too small for a chunk, or absurdly large, is CS_ERR_MESSAGE_ERROR', () => {
    const [ring] = rings;
    ring!.wordSize = 2;
    ring!.truncate('data', 8);
    expect(refusal().code).toBe('CS_ERR_MESSAGE_ERROR');
    const path = join(directory, 'qb-request-cpg-data');
    ring!.wordSize = 2 ** 28;
    truncateSync(path, 2 ** 30);
    try {
      expect(thrownBy(() => openConnectionFiles(answer)).code).toBe('CS_ERR_MESSAGE_ERROR');
    } finally {
      truncateSync(path, 0);
    }
  });

  test.each([
    [64, 0],
    [0, 64],
    [0xffffffff, 0xffffffff],
  ])('pointers %i and %i outside are CS_ERR_MESSAGE_ERROR', (write, read) => {
    rings[2]!.writePointer = write;
    rings[2]!.readPointer = read;
    expect(refusal().code).toBe('CS_ERR_MESSAGE_ERROR');
  });

  test('missing files are CS_ERR_LIBRARY, with a hint about containers', () => {
    unlinkSync(join(directory, 'qb-event-cpg-data'));
    const missing = refusal();
    expect(missing.code).toBe('CS_ERR_LIBRARY');
    expect(missing.message).toContain('/dev/shm');
    rmSync(directory, { recursive: true });
    expect(refusal().code).toBe('CS_ERR_LIBRARY');
  });
});

describe('the names of libqb before 1.0.4', () => {
  const old = (ring: string): string => `cpg-${ring}-${process.pid}-1234-27`;
  const answered = { ...named(''), request: old('request'), response: old('response'), event: old('event') };

  test('are an old libqb, and the remedy is an update', () => {
    const error = refusal(answered);
    expect(error.code).toBe('CS_ERR_NOT_SUPPORTED');
    expect(error.message).toMatch(/libqb before 1\.0\.4.*update libqb/);
  });

  test.each([
    ['a ring twice', { ...answered, event: answered.request }],
    ['one of them elsewhere', { ...answered, event: '/etc/passwd' }],
    ['a directory before it', { ...answered, event: `../${answered.event}` }],
  ])('but not %s', (_, given) => {
    expect(refusal(given).code).toBe('CS_ERR_SECURITY');
  });
});

describe('remove()', () => {
  test('removes the files immediately, although the daemon lives; is idempotent', () => {
    const files = openConnectionFiles(answer);
    expect(files.serverPid).toBe(process.pid);
    files.remove();
    expect(readdirSync(base)).toEqual([]);
    files.remove();
  });

  test('does not affect processes that have the files open', () => {
    const before = rings.map((ring) => ring.wordSize);
    openConnectionFiles(answer).remove();
    expect(rings.map((ring) => ring.wordSize)).toEqual(before);
  });

  test('removes only the six files of the connection: others stay, and the directory with them', () => {
    const files = openConnectionFiles(answer);
    writeFileSync(join(directory, 'other'), 'kept');
    files.remove();
    expect(readdirSync(directory)).toEqual(['other']);
  });

  test.each([
    ['all of it', () => rmSync(directory, { recursive: true })],
    ['some of it', () => unlinkSync(join(directory, 'qb-response-cpg-data'))],
  ])('does not mind that the daemon removed %s', (_, removing) => {
    const files = openConnectionFiles(answer);
    removing();
    files.remove();
    expect(readdirSync(base)).toEqual([]);
  });

  test('leaves a newer directory of the same name alone', () => {
    const files = openConnectionFiles(answer);
    renameSync(directory, join(base, 'moved'));
    mkdirSync(directory);
    writeFileSync(join(directory, 'qb-request-cpg-data'), 'of another connection');
    files.remove();
    expect(readdirSync(directory)).toEqual(['qb-request-cpg-data']);
  });

  test('leaves no exit listener', () => {
    const before = process.listenerCount('exit');
    const files = openConnectionFiles(answer);
    expect(process.listenerCount('exit')).toBe(before + 1);
    files.remove();
    expect(process.listenerCount('exit')).toBe(before);
  });
});

describe('removeUnopened()', () => {
  test('removes files in a directory of our own', () => {
    truncateSync(join(directory, 'qb-request-cpg-header'), 0);
    removeUnopened(answer);
    expect(readdirSync(base)).toEqual([]);
  });

  test('touches nothing else', () => {
    const files = everything();
    chmodSync(directory, 0o777);
    removeUnopened(answer);
    removeUnopened({ ...answer, event: `${base}/qb-event-cpg` });
    removeUnopened(named(''));
    expect(everything()).toEqual(files);
  });
});
