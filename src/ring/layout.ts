/**
 * The layout of the two files of a libqb ring: see docs/protocol.md.
 *
 * The header file has 8252 bytes on 64-bit:
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
 */
import { malformed } from '../codec/fields';

/** sizeof(struct qb_ringbuffer_shared_s) plus the int32 of user data, on 64-bit. */
export const RING_HEADER_BYTES = 8252;
/** The same on 32-bit, where glibc's POSIX semaphore has 16 bytes; nothing else depends on the machine. */
export const RING_HEADER_BYTES_32_BIT = 8236;
export const WORD_BYTES = 4;
/** length and magic. */
export const CHUNK_HEADER_WORDS = 2;
export const CHUNK_HEADER_BYTES = CHUNK_HEADER_WORDS * WORD_BYTES;
/** QB_RB_CHUNK_MARGIN: free space required besides the payload, so that a full ring never looks empty. */
export const CHUNK_MARGIN_BYTES = CHUNK_HEADER_BYTES + WORD_BYTES;

export const Magic = { ALLOCATED: 0xa110ced0, COMMITTED: 0xa1a1a1a1, CONSUMED: 0xd0d0d0d0 } as const;

/**
 * sizeof(struct qb_ringbuffer_shared_s) alone: a libqb client truncates the headers of its response and event rings to
 * this, because it requests no user data there.
 */
export const RING_HEADER_BYTES_WITHOUT_USER_DATA = 8248;

/** Offsets in the header file. */
export const RingHeader = {
  writePointer: 0,
  readPointer: 4,
  wordSize: 8,
  headerPath: 12,
  dataPath: 4108,
  referenceCount: 8204,
  semaphore: 8208,
  userData: 8240,
} as const;

/** The largest data file we accept: 16 MiB frames and their margin. */
export const MAX_RING_BYTES = 32 * 1024 * 1024;

/** The words of a payload of `length` bytes with its chunk header. */
export function chunkWords(length: number): number {
  return CHUNK_HEADER_WORDS + Math.ceil(length / WORD_BYTES);
}

/** Writes the header of a committed chunk at `offset`. */
export function writeChunkHeader(memory: Buffer, offset: number, length: number): void {
  memory.writeUInt32LE(length, offset);
  memory.writeUInt32LE(Magic.COMMITTED, offset + WORD_BYTES);
}

/** The length of a chunk; throws CS_ERR_MESSAGE_ERROR unless it is committed and takes at most `maxWords`. */
export function checkedLength(ring: string, length: number, magic: number, maxWords: number): number {
  if (magic === Magic.COMMITTED && chunkWords(length) <= maxWords) return length;
  throw malformed(
    `${ring}: a chunk of ${length} bytes with magic 0x${magic.toString(16)}`,
    `a committed chunk within ${maxWords * WORD_BYTES} bytes`,
  );
}
