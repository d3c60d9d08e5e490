/**
 * What a connection by datagrams has in the file system: a directory as with rings, and in it
 *
 *     qb-control-<service>    24 bytes, three pairs of int32 { sent, flow control }: request, response, event
 *
 * The daemon counts down what it took and looks there how much it may take at a time; with no count it takes one frame
 * each time it wakes. So we count where that can be done atomically, and otherwise leave it alone, as we may.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { dirname } from 'node:path';
import { malformed } from '../codec/fields';
import type { HandshakeResponse } from '../codec/handshake';
import type { DatagramAddress } from '../native/datagram';
import type { Mapper } from '../native/mapping';
import { refused } from '../ring/files';
import { WORD_BYTES } from '../ring/layout';
import { controlFile, heldUntilRemoved, openError, ownDirectory } from './connection-files';

export const CONTROL_BYTES = 24;
/** What the control file counts, by the word in which it does. */
export const Counter = { request: 0, response: 2, event: 4 } as const;
const FLOW_CONTROL_WORD = 1;

export interface DatagramFiles {
  readonly directory: string;
  readonly serverPid: number;
  readonly clientPid: number;
  readonly control: ControlFile;
  /** Closes and removes it all. Can be called again, and never throws. */
  readonly remove: () => void;
}

/** The names of the four sockets of a connection. A daemon's are abstract; `event` says so when they are files. */
export function socketNames(answer: Pick<HandshakeResponse, 'response' | 'event'>): {
  request: DatagramAddress;
  response: DatagramAddress;
  event: DatagramAddress;
  eventTx: DatagramAddress;
} {
  const kind = answer.event === '' ? 'abstract' : 'path';
  const named = (end: string): DatagramAddress => ({ kind, name: `${answer.response}-${end}` });
  return {
    request: named('request'),
    response: named('response'),
    event: named('event'),
    eventTx: named('event-tx'),
  };
}

/** Opens the control file that a handshake named, by the same rules as the files of rings. */
export function openDatagramFiles(
  answer: HandshakeResponse,
  mapper: Mapper | undefined,
  uid = process.getuid?.(),
): DatagramFiles {
  try {
    const own = ownDirectory(answer, controlFile(answer), uid);
    const control = ControlFile.open(answer.request, uid, mapper);
    return { ...own, control, remove: heldUntilRemoved(own, [control]) };
  } catch (error) {
    throw openError(error, dirname(answer.request));
  }
}

export class ControlFile {
  #fd: number;
  readonly #unmap: () => void;
  /** Empty without a mapping. */
  #words: Int32Array<ArrayBuffer>;
  readonly #scratch = new Int32Array(1);

  private constructor(fd: number, words: Int32Array<ArrayBuffer>, unmap: () => void) {
    this.#fd = fd;
    this.#words = words;
    this.#unmap = unmap;
  }

  static open(path: string, uid: number | undefined, mapper: Mapper | undefined): ControlFile {
    const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile() || stat.nlink > 1 || (uid !== undefined && stat.uid !== uid)) {
        throw refused(`${path} is not a plain file of our own user`);
      }
      if (stat.size !== CONTROL_BYTES) {
        throw malformed(`${path}: a control file of ${stat.size} bytes`, `${CONTROL_BYTES}`);
      }
      if (mapper === undefined) return new ControlFile(fd, NOTHING, () => undefined);
      const address = mapper.map(fd, CONTROL_BYTES);
      const words = new Int32Array(mapper.view(address, CONTROL_BYTES));
      return new ControlFile(fd, words, () => mapper.unmap(address, CONTROL_BYTES));
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** The daemon asks us not to send. */
  flowControl(): boolean {
    const value = this.#words.length > 0 ? Atomics.load(this.#words, FLOW_CONTROL_WORD) : this.#read();
    return value === 1 || value === 2;
  }

  /** Adds to what is on its way, as far as we can count it. */
  count(counter: keyof typeof Counter, difference: number): void {
    if (this.#words.length > 0) Atomics.add(this.#words, Counter[counter], difference);
  }

  close(): void {
    if (this.#fd === -1) return;
    this.#words = NOTHING;
    this.#unmap();
    closeSync(this.#fd);
    this.#fd = -1;
  }

  #read(): number {
    const bytes = readSync(this.#fd, this.#scratch, 0, WORD_BYTES, FLOW_CONTROL_WORD * WORD_BYTES);
    if (bytes !== WORD_BYTES) throw malformed('the control file was cut short under us', 'a whole one');
    return this.#scratch[0]!;
  }
}

const NOTHING = new Int32Array(new ArrayBuffer(0));
