/**
 * One libqb ring buffer in shared memory, reached by positioned reads and writes.
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
 * stand at the steps of request-ring.ts, response-ring.ts and event-ring.ts. /dev/shm is memory (tmpfs), so
 * reads and writes of the file are coherent with the daemon's mapping; no fsync, no blocking, hence the
 * synchronous calls.
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
  writevSync,
} from 'node:fs';
import { malformed } from '../codec/fields';
import {
  CHUNK_HEADER_WORDS,
  MAX_RING_BYTES,
  RING_HEADER_BYTES,
  RingHeader as Header,
  WORD_BYTES,
} from '../codec/ring-layout';
import { CpgError } from '../errors';

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

const SEMAPHORE_BYTES = 8;
const STATE_BYTES = Header.userData + 4 - Header.semaphore;
const REFERENCES_WHEN_CREATED = 1;
const REFERENCES_WHEN_CONNECTED = 2;
const REFUSED_REMEDY = 'find out which program answers on this address; nothing was written';
/** The files of a ring are for its owner alone. */
const FILE_MODE = 0o600;

// Every access is synchronous, so one scratch buffer serves all rings of the process.
const scratch = Buffer.alloc(STATE_BYTES);
const scratchWords = new Uint32Array(scratch.buffer, scratch.byteOffset, STATE_BYTES / WORD_BYTES);

export class Ring {
  #headerFd: number;
  #dataFd: number;
  /** Words in the circle. */
  readonly wordSize: number;
  /** As of the last readPointers(); always below wordSize. */
  writePointer = 0;
  readPointer = 0;
  #open = true;

  private constructor(
    readonly name: string,
    headerFd: number,
    dataFd: number,
    wordSize: number,
  ) {
    this.#headerFd = headerFd;
    this.#dataFd = dataFd;
    this.wordSize = wordSize;
  }

  /**
   * Opens the two files of the ring `stem`. Both must be plain files with one name, owned by `uid`, of the
   * sizes their own fields give, and not in use by another client; otherwise nothing is kept open and CpgError
   * says why. Nothing is written before attach().
   */
  static open(stem: string, uid: number | undefined): Ring {
    const opened: number[] = [];
    try {
      const headerFd = openOwn(`${stem}-header`, uid, opened);
      const dataFd = openOwn(`${stem}-data`, uid, opened);
      const headerSize = fstatSync(headerFd).size;
      if (headerSize !== RING_HEADER_BYTES) {
        throw new CpgError('CS_ERR_NOT_SUPPORTED', `ring header ${stem}-header has ${headerSize} bytes`, {
          remedy: `only the 64-bit layout of libqb 1 and 2 is known (${RING_HEADER_BYTES} bytes)`,
        });
      }
      const dataSize = fstatSync(dataFd).size;
      readSync(headerFd, scratch, 0, WORD_BYTES, Header.wordSize);
      const wordSize = scratch.readUInt32LE(0);
      if (wordSize * WORD_BYTES !== dataSize || dataSize > MAX_RING_BYTES || wordSize <= CHUNK_HEADER_WORDS) {
        throw malformed(`a ring of ${wordSize} words in a file of ${dataSize} bytes`, 'sizes that agree');
      }
      readSync(headerFd, scratch, 0, WORD_BYTES, Header.referenceCount);
      const references = scratch.readInt32LE(0);
      if (references >= REFERENCES_WHEN_CONNECTED) {
        throw new CpgError(
          'CS_ERR_SECURITY',
          `${stem} has ${references} users: it belongs to another connection`,
          {
            remedy: REFUSED_REMEDY,
          },
        );
      }
      const ring = new Ring(stem.slice(stem.lastIndexOf('/') + 1), headerFd, dataFd, wordSize);
      ring.readPointers();
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
      return new Ring(stem.slice(stem.lastIndexOf('/') + 1), headerFd, dataFd, dataBytes / WORD_BYTES);
    } catch (error) {
      for (const { path, fd } of opened) {
        closeSync(fd);
        unlinkSync(path);
      }
      throw error;
    }
  }

  get open(): boolean {
    return this.#open;
  }

  /** Reads both pointers; throws CS_ERR_MESSAGE_ERROR when one points outside the ring. */
  readPointers(): void {
    this.#readHeader(Header.writePointer, 2 * WORD_BYTES);
    const writePointer = scratch.readUInt32LE(0);
    const readPointer = scratch.readUInt32LE(WORD_BYTES);
    if (writePointer >= this.wordSize || readPointer >= this.wordSize) {
      throw malformed(`${this.name}: pointers ${writePointer} and ${readPointer}`, `below ${this.wordSize}`);
    }
    this.writePointer = writePointer;
    this.readPointer = readPointer;
  }

  /** The value of the semaphore: chunks posted and not yet taken. */
  semaphore(): number {
    this.#readHeader(Header.semaphore, SEMAPHORE_BYTES);
    return scratch.readUInt32LE(0);
  }

  /** The semaphore and the user data (flow control) in one read. */
  state(): { semaphore: number; userData: number } {
    this.#readHeader(Header.semaphore, STATE_BYTES);
    return {
      semaphore: scratch.readUInt32LE(0),
      userData: scratch.readInt32LE(Header.userData - Header.semaphore),
    };
  }

  /** Sets value and waiters in one 8-byte write; nobody ever waits on these semaphores. */
  setSemaphore(value: number): void {
    scratchWords[0] = value;
    scratchWords[1] = 0;
    this.#writeHeader(Header.semaphore, SEMAPHORE_BYTES);
  }

  /** Flow control: what the reader of a request ring tells its writer. */
  setUserData(value: number): void {
    this.#writeHeaderUint32(Header.userData, value);
  }

  publishWritePointer(pointer: number): void {
    this.writePointer = pointer;
    this.#writeHeaderUint32(Header.writePointer, pointer);
  }

  publishReadPointer(pointer: number): void {
    this.readPointer = pointer;
    this.#writeHeaderUint32(Header.readPointer, pointer);
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
    this.#readData(target, 0, first, pointer * WORD_BYTES);
    if (first < length) this.#readData(target, first, length - first, 0);
  }

  /** Writes the first `length` bytes of `bytes` into the circle, beginning at word `pointer`. */
  write(pointer: number, bytes: Buffer, length = bytes.length): void {
    const first = Math.min(length, (this.wordSize - pointer) * WORD_BYTES);
    this.#writeData(bytes, 0, first, pointer * WORD_BYTES);
    if (first < length) this.#writeData(bytes, first, length - first, 0);
  }

  /** Writes several pieces one behind the other without joining them first. */
  writeParts(pointer: number, parts: readonly Uint8Array[], length: number): void {
    const position = pointer * WORD_BYTES;
    const beforeEnd = this.wordSize * WORD_BYTES - position;
    if (length <= beforeEnd) {
      if (writevSync(this.#dataFd, parts, position) !== length) throw this.#full();
      return;
    }
    const [first, rest] = splitAt(parts, beforeEnd);
    const written = writevSync(this.#dataFd, first, position) + writevSync(this.#dataFd, rest, 0);
    if (written !== length) throw this.#full();
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#headerFd);
    closeSync(this.#dataFd);
    // Numbers are given out anew at once: a late write must not end up in somebody else's file.
    this.#headerFd = -1;
    this.#dataFd = -1;
  }

  /** Tells the daemon that we are there: libqb takes any other count of references for "not connected". */
  attach(): void {
    this.#writeHeaderUint32(Header.referenceCount, REFERENCES_WHEN_CONNECTED);
  }

  #readHeader(offset: number, length: number): void {
    if (readSync(this.#headerFd, scratch, 0, length, offset) !== length) throw this.#shrunk();
  }

  #readData(target: Buffer, offset: number, length: number, position: number): void {
    if (readSync(this.#dataFd, target, offset, length, position) !== length) throw this.#shrunk();
  }

  #writeHeaderUint32(offset: number, value: number): void {
    scratchWords[0] = value;
    this.#writeHeader(offset, WORD_BYTES);
  }

  #writeHeader(offset: number, length: number): void {
    if (writeSync(this.#headerFd, scratch, 0, length, offset) !== length) throw this.#full();
  }

  #writeData(bytes: Buffer, offset: number, length: number, position: number): void {
    if (writeSync(this.#dataFd, bytes, offset, length, position) !== length) throw this.#full();
  }

  #full(): CpgError {
    return new CpgError('CS_ERR_NO_SPACE', `${this.name}: a write was cut short`, {
      remedy: 'make room in /dev/shm',
    });
  }

  #shrunk(): CpgError {
    return malformed(`${this.name}: the file was cut short under us`, 'a whole ring');
  }
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
