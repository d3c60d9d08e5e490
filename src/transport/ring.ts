/**
 * One libqb ring buffer in shared memory: where everything in it stands, and which way round its pointers go. How
 * the bytes are reached is a matter of its storage (ring-storage.ts).
 *
 * A ring is two files. The header file (8252 bytes on 64-bit):
 *
 *     write_pt @0 | read_pt @4 | word_size @8 | hdr_path char[4096] @12 | data_path char[4096] @4108
 *     | ref_count @8204 | semaphore @8208 (32 bytes) | user data int32 @8240
 *
 * The data file is word_size 32-bit words, used as a circle; pointers and word_size count words:
 *
 *     [p] length in bytes | [p+1] magic | [p+2 ...] payload, padded to a word | next chunk
 *
 *            read_pt                      write_pt
 *               v                            v
 *     .. free ..| chunk | chunk | chunk | .. free .. (wraps at word_size)
 *
 * Each ring has one writer and one reader, in two processes:
 *
 *     word          request ring            response ring           event ring
 *     write_pt      we                      daemon                  daemon
 *     read_pt       daemon                  we                      we
 *     semaphore     we from 0, daemon down  daemon up, we to 0      daemon up, we to 0
 *     user data     daemon (flow control)   -                       -
 *     chunks        we                      daemon                  daemon
 *
 * The semaphore is a POSIX semaphore that the daemon changes atomically in its mapping. We cannot do an
 * atomic change through a file, so we write it only at moments when the daemon does not: the rules for that
 * stand at the steps of request-ring.ts, response-ring.ts and event-ring.ts.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { malformed } from '../codec/fields';
import {
  CHUNK_HEADER_WORDS,
  MAX_RING_BYTES,
  RING_HEADER_BYTES,
  RING_HEADER_BYTES_32_BIT,
  RingHeader as Header,
  WORD_BYTES,
} from '../codec/ring-layout';
import { CpgError } from '../errors';
import { failure } from './causes';
import { storeInFiles, type OpenStorage, type RingStorage } from './ring-storage';

export {
  CHUNK_HEADER_BYTES,
  CHUNK_HEADER_WORDS,
  CHUNK_MARGIN_BYTES,
  chunkWords,
  Magic,
  RING_HEADER_BYTES,
  RingHeader as Header,
  WORD_BYTES,
} from '../codec/ring-layout';

/** The value and the number of waiters. */
const SEMAPHORE_WORDS = 2;
const USER_DATA_WORD = (Header.userData - Header.semaphore) / WORD_BYTES;
/** From the semaphore to the user data. */
const STATE_WORDS = USER_DATA_WORD + 1;
const REFERENCES_WHEN_CREATED = 1;
const REFERENCES_WHEN_CONNECTED = 2;
const REFUSED_REMEDY = 'find out which program answers on this address; nothing was written';
/** The files of a ring are for its owner alone. */
const FILE_MODE = 0o600;

// Every access is synchronous, so one scratch buffer serves all rings of the process.
const scratch = new Uint32Array(STATE_WORDS);

export class Ring {
  readonly #storage: RingStorage;
  /** The pointers as of the last readPointers(); always below wordSize. */
  readonly state = { writePointer: 0, readPointer: 0, open: true };

  /** `wordSize` is the number of words in the circle. */
  constructor(
    readonly name: string,
    storage: RingStorage,
    readonly wordSize: number,
  ) {
    this.#storage = storage;
  }

  /**
   * Opens the two files of the ring `stem`. Both must be plain files with one name, owned by `uid`, of the
   * sizes their own fields give, and not in use by another client; otherwise nothing is kept open and CpgError
   * says why. Nothing is written before attach(). `store` says how the bytes are to be reached.
   */
  static open(stem: string, uid: number | undefined, store: OpenStorage = storeInFiles): Ring {
    const opened: number[] = [];
    try {
      const headerFd = openOwn(`${stem}-header`, uid, opened);
      const dataFd = openOwn(`${stem}-data`, uid, opened);
      const headerSize = fstatSync(headerFd).size;
      if (headerSize !== RING_HEADER_BYTES) {
        const what = `ring header ${stem}-header has ${headerSize} bytes, not ${RING_HEADER_BYTES}`;
        throw failure(headerSize === RING_HEADER_BYTES_32_BIT ? '32-bit' : 'ring-layout', what, {
          code: 'CS_ERR_NOT_SUPPORTED',
        });
      }
      const dataSize = fstatSync(dataFd).size;
      readSync(headerFd, scratch, 0, WORD_BYTES, Header.wordSize);
      const wordSize = scratch[0]!;
      if (wordSize * WORD_BYTES !== dataSize || dataSize > MAX_RING_BYTES || wordSize <= CHUNK_HEADER_WORDS) {
        throw malformed(`a ring of ${wordSize} words in a file of ${dataSize} bytes`, 'sizes that agree');
      }
      readSync(headerFd, scratch, 0, WORD_BYTES, Header.referenceCount);
      const references = scratch[0]! | 0;
      if (references >= REFERENCES_WHEN_CONNECTED) {
        throw new CpgError(
          'CS_ERR_SECURITY',
          `${stem} has ${references} users: it belongs to another connection`,
          {
            remedy: REFUSED_REMEDY,
          },
        );
      }
      const name = nameOf(stem);
      const storage = store({ name, headerFd, dataFd, dataBytes: dataSize });
      // From here on the files are the storage's.
      opened.length = 0;
      const ring = new Ring(name, storage, wordSize);
      try {
        ring.readPointers();
      } catch (error) {
        ring.close();
        throw error;
      }
      return ring;
    } catch (error) {
      for (const fd of opened) closeSync(fd);
      throw error;
    }
  }

  /**
   * Makes the two files of the ring `stem`, with `dataBytes` (a multiple of 4) for chunks, as a daemon does
   * for each connection. They must not exist. Throws the error of the file system; nothing is left then.
   */
  static create(stem: string, dataBytes: number): Ring {
    const opened: { path: string; fd: number }[] = [];
    const make = (path: string, size: number): number => {
      const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
      const fd = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
      opened.push({ path, fd });
      // Sparse: pages are taken as chunks reach them.
      ftruncateSync(fd, size);
      return fd;
    };
    try {
      const headerFd = make(`${stem}-header`, RING_HEADER_BYTES);
      const dataFd = make(`${stem}-data`, dataBytes);
      const header = Buffer.alloc(RING_HEADER_BYTES);
      header.writeUInt32LE(dataBytes / WORD_BYTES, Header.wordSize);
      header.write(`${stem}-header`, Header.headerPath);
      header.write(`${stem}-data`, Header.dataPath);
      header.writeInt32LE(REFERENCES_WHEN_CREATED, Header.referenceCount);
      writeSync(headerFd, header, 0, header.length, 0);
      const name = nameOf(stem);
      const storage = storeInFiles({ name, headerFd, dataFd, dataBytes });
      return new Ring(name, storage, dataBytes / WORD_BYTES);
    } catch (error) {
      for (const { path, fd } of opened) {
        closeSync(fd);
        unlinkSync(path);
      }
      throw error;
    }
  }

  get writePointer(): number {
    return this.state.writePointer;
  }

  get readPointer(): number {
    return this.state.readPointer;
  }

  /** Reads both pointers; throws CS_ERR_MESSAGE_ERROR when one points outside the ring. */
  readPointers(): void {
    this.#storage.readHeader(Header.writePointer, scratch, 2);
    const writePointer = scratch[0]!;
    const readPointer = scratch[1]!;
    if (writePointer >= this.wordSize || readPointer >= this.wordSize) {
      throw malformed(`${this.name}: pointers ${writePointer} and ${readPointer}`, `below ${this.wordSize}`);
    }
    this.state.writePointer = writePointer;
    this.state.readPointer = readPointer;
  }

  /** The value of the semaphore: chunks posted and not yet taken. */
  semaphore(): number {
    this.#storage.readHeader(Header.semaphore, scratch, 1);
    return scratch[0]!;
  }

  /** The semaphore and the user data (flow control), through files in one read. */
  status(): { semaphore: number; userData: number } {
    this.#storage.readHeader(Header.semaphore, scratch, STATE_WORDS);
    return { semaphore: scratch[0]!, userData: scratch[USER_DATA_WORD]! | 0 };
  }

  /** Sets value and waiters (through files in one write); nobody ever waits on these semaphores. */
  setSemaphore(value: number): void {
    scratch[0] = value;
    scratch[1] = 0;
    this.#storage.writeHeader(Header.semaphore, scratch, SEMAPHORE_WORDS);
  }

  /** Flow control: what the reader of a request ring tells its writer. */
  setUserData(value: number): void {
    this.#writeHeaderWord(Header.userData, value);
  }

  publishWritePointer(pointer: number): void {
    this.state.writePointer = pointer;
    this.#writeHeaderWord(Header.writePointer, pointer);
  }

  publishReadPointer(pointer: number): void {
    this.state.readPointer = pointer;
    this.#writeHeaderWord(Header.readPointer, pointer);
  }

  /** The pointer `words` further on. */
  advance(pointer: number, words: number): number {
    return (pointer + words) % this.wordSize;
  }

  /** Words from `from` up to `to`, going round. */
  distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + this.wordSize;
  }

  /** Fills the first `length` bytes of `target` from the circle, beginning at word `pointer`. */
  read(pointer: number, target: Buffer, length = target.length): void {
    const first = Math.min(length, (this.wordSize - pointer) * WORD_BYTES);
    this.#storage.read(target, 0, first, pointer * WORD_BYTES);
    if (first < length) this.#storage.read(target, first, length - first, 0);
  }

  /** Writes the first `length` bytes of `bytes` into the circle, beginning at word `pointer`. */
  write(pointer: number, bytes: Buffer, length = bytes.length): void {
    const first = Math.min(length, (this.wordSize - pointer) * WORD_BYTES);
    this.#storage.write(bytes, 0, first, pointer * WORD_BYTES);
    if (first < length) this.#storage.write(bytes, first, length - first, 0);
  }

  /** Writes several pieces one behind the other without joining them first. */
  writeParts(pointer: number, parts: readonly Uint8Array[], length: number): void {
    const position = pointer * WORD_BYTES;
    const beforeEnd = this.wordSize * WORD_BYTES - position;
    if (length <= beforeEnd) {
      this.#storage.writeParts(parts, length, position);
      return;
    }
    const [first, rest] = splitAt(parts, beforeEnd);
    this.#storage.writeParts(first, beforeEnd, position);
    this.#storage.writeParts(rest, length - beforeEnd, 0);
  }

  close(): void {
    if (!this.state.open) return;
    this.state.open = false;
    this.#storage.close();
  }

  /** Tells the daemon that we are there: libqb takes any other count of references for "not connected". */
  attach(): void {
    this.#writeHeaderWord(Header.referenceCount, REFERENCES_WHEN_CONNECTED);
  }

  #writeHeaderWord(offset: number, value: number): void {
    scratch[0] = value;
    this.#storage.writeHeader(offset, scratch, 1);
  }
}

function nameOf(stem: string): string {
  return stem.slice(stem.lastIndexOf('/') + 1);
}

/** The pieces up to `bytes` and those behind, one of them perhaps cut in two. */
function splitAt(parts: readonly Uint8Array[], bytes: number): [Uint8Array[], Uint8Array[]] {
  const first: Uint8Array[] = [];
  const rest: Uint8Array[] = [];
  let left = bytes;
  for (const part of parts) {
    const here = Math.min(left, part.length);
    if (here > 0) first.push(part.subarray(0, here));
    if (here < part.length) rest.push(part.subarray(here));
    left -= here;
  }
  return [first, rest];
}

function openOwn(path: string, uid: number | undefined, opened: number[]): number {
  // No symbolic link is followed, so a spoofed daemon cannot lead us to another file.
  const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  opened.push(fd);
  const stat = fstatSync(fd);
  if (!stat.isFile() || stat.nlink > 1 || (uid !== undefined && stat.uid !== uid)) {
    throw new CpgError('CS_ERR_SECURITY', `${path} is not a plain file of our own user`, {
      remedy: REFUSED_REMEDY,
    });
  }
  return fd;
}
