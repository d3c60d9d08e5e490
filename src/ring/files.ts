/** Opens and creates the two files of a ring. */
import { closeSync, constants, fstatSync, openSync, readSync, truncateSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { malformed } from '../codec/fields';
import { CpgError } from '../errors';
import {
  CHUNK_HEADER_WORDS,
  MAX_RING_BYTES,
  RING_HEADER_BYTES,
  RING_HEADER_BYTES_32_BIT,
  RING_HEADER_BYTES_WITHOUT_USER_DATA,
  RingHeader,
  WORD_BYTES,
} from './layout';
import { ringFiles } from './paths';
import { REFERENCES_WHEN_CONNECTED, Ring } from './ring';
import { storeInFiles, type OpenStorage } from './storage';

const REFERENCES_WHEN_CREATED = 1;
/** Ring files are only for their owner, and must not exist yet. */
const NEW_FILE = { mode: 0o600, flag: 'wx' };

const scratch = new Uint32Array(1);

/**
 * Opens the ring `stem` for use. Both files must be regular with a single link, owned by `uid`, of the sizes their own
 * fields give, and not in use by another client; otherwise throws CpgError and leaves nothing open. Nothing is written
 * before attach(). `store` accesses the bytes.
 */
export function openRing(stem: string, uid?: number, store: OpenStorage = storeInFiles): Ring {
  return open(stem, constants.O_RDWR, store, (headerFd, dataFd) => {
    for (const [index, fd] of [headerFd, dataFd].entries()) {
      const stat = fstatSync(fd);
      if (stat.isFile() && stat.nlink <= 1 && (uid === undefined || stat.uid === uid)) continue;
      throw refused(`${ringFiles(stem)[index]!} is not a plain file of our own user`);
    }
    const dataBytes = checkedSize(stem, headerFd, dataFd, RING_HEADER_BYTES);
    const references = headerWord(headerFd, RingHeader.referenceCount) | 0;
    if (references >= REFERENCES_WHEN_CONNECTED) {
      throw refused(`${stem} has ${references} users: it belongs to another connection`);
    }
    return dataBytes;
  });
}

/** Opens the ring `stem` to observe it: see openRing(). Fails while the daemon is still creating it. */
export function openReadOnly(stem: string): Ring {
  return open(stem, constants.O_RDONLY, storeInFiles, (headerFd, dataFd) =>
    checkedSize(stem, headerFd, dataFd, RING_HEADER_BYTES, RING_HEADER_BYTES_WITHOUT_USER_DATA),
  );
}

/**
 * Creates the ring `stem`, with `dataBytes` (a multiple of 4) for chunks, as a daemon does for each connection. Throws
 * the file system's error and leaves the files created so far.
 */
export function createRing(stem: string, dataBytes: number): Ring {
  const [headerPath, dataPath] = ringFiles(stem);
  const header = Buffer.alloc(RING_HEADER_BYTES);
  header.writeUInt32LE(dataBytes / WORD_BYTES, RingHeader.wordSize);
  header.write(headerPath, RingHeader.headerPath);
  header.write(dataPath, RingHeader.dataPath);
  header.writeInt32LE(REFERENCES_WHEN_CREATED, RingHeader.referenceCount);
  writeFileSync(headerPath, header, NEW_FILE);
  writeFileSync(dataPath, '', NEW_FILE);
  // Sparse: pages are allocated as chunks reach them.
  truncateSync(dataPath, dataBytes);
  return openRing(stem);
}

/** Opens both files and their storage. `check` returns the size of the data file; if it throws, nothing stays open. */
function open(
  stem: string,
  access: number,
  store: OpenStorage,
  check: (headerFd: number, dataFd: number) => number,
): Ring {
  const close: (() => void)[] = [];
  // Do not follow symbolic links: a spoofed daemon must not lead us to another file.
  const openFile = (path: string): number => {
    const fd = openSync(path, access | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    close.push(() => closeSync(fd));
    return fd;
  };
  try {
    const [headerFd, dataFd] = ringFiles(stem).map(openFile) as [number, number];
    const dataBytes = check(headerFd, dataFd);
    const name = basename(stem);
    const storage = store({ name, headerFd, dataFd, dataBytes });
    // From here on the storage owns the files.
    close.splice(0, 2, () => storage.close());
    const ring = new Ring(name, storage, dataBytes / WORD_BYTES);
    ring.readPointers();
    return ring;
  } catch (error) {
    for (const closeOne of close) closeOne();
    throw error;
  }
}

/** The size of the data file, if the files are a ring. */
function checkedSize(stem: string, headerFd: number, dataFd: number, ...headerSizes: number[]): number {
  const headerBytes = fstatSync(headerFd).size;
  if (!headerSizes.includes(headerBytes)) {
    const what = `ring header ${stem}-header has ${headerBytes} bytes, not ${RING_HEADER_BYTES}`;
    throw new CpgError('CS_ERR_NOT_SUPPORTED', what, {
      reason: headerBytes === RING_HEADER_BYTES_32_BIT ? '32-bit' : 'ring-layout',
      remedy: `only the 64-bit layout of libqb 1 and 2 is known (${RING_HEADER_BYTES} bytes)`,
    });
  }
  const dataBytes = fstatSync(dataFd).size;
  const words = headerWord(headerFd, RingHeader.wordSize);
  if (words * WORD_BYTES === dataBytes && dataBytes <= MAX_RING_BYTES && words > CHUNK_HEADER_WORDS) {
    return dataBytes;
  }
  throw malformed(`a ring of ${words} words in a file of ${dataBytes} bytes`, 'sizes that agree');
}

function headerWord(headerFd: number, offset: number): number {
  readSync(headerFd, scratch, 0, WORD_BYTES, offset);
  return scratch[0]!;
}

/** The error for anything that is not clearly a connection of our own. */
export function refused(what: string): CpgError {
  return new CpgError('CS_ERR_SECURITY', what, {
    remedy: 'find out which program answers on this address; nothing was written',
  });
}
