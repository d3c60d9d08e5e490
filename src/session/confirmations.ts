/**
 * Knows which of our own messages came back.
 *
 * The daemon says nothing about an mcast, and drops it in silence when it is overloaded. But a sender gets
 * its own messages delivered, in the order it sent them. So the messages that came back are a subsequence of
 * those sent: whatever was skipped when a later one arrives was dropped.
 *
 * Messages carry no number of ours, so they are told apart by length and a 64-bit hash of their bytes; two
 * with equal bytes are as good as each other. Nothing is recorded until the first message to be confirmed,
 * so others do not pay for it.
 */
import { CpgError } from '../errors';

export interface Sent {
  length: number;
  hashLow: number;
  hashHigh: number;
  confirm: Confirm | undefined;
}

export interface Confirm {
  resolve: () => void;
  reject: (error: Error) => void;
}

/** Own messages on their way that are remembered; far more than the rings hold. */
const MAX_RECORDED = 1 << 20;
const COMPACT_AFTER = 4096;

export class Confirmations {
  #recording = false;
  #sent: Sent[] = [];
  #first = 0;

  /** Records a message in the order of sending. Returns a handle for withdraw(). */
  record(parts: readonly Uint8Array[], length: number, confirm?: Confirm): Sent | undefined {
    if (confirm !== undefined) this.#recording = true;
    if (!this.#recording) return undefined;
    const entry = { length, ...hash(parts), confirm };
    this.#sent.push(entry);
    if (this.#sent.length - this.#first > MAX_RECORDED) {
      const oldest = this.#sent[this.#first];
      this.#forget(this.#first + 1);
      oldest?.confirm?.reject(overtaken());
    }
    return entry;
  }

  /** The message was not sent after all, or will be recorded again. */
  withdraw(entry: Sent | undefined): void {
    const index = entry === undefined ? -1 : this.#sent.lastIndexOf(entry);
    if (index >= this.#first) this.#sent.splice(index, 1);
  }

  /** One of our own messages was delivered: it is confirmed, and those sent before it are lost. */
  delivered(message: Uint8Array): void {
    if (!this.#recording || this.#first === this.#sent.length) return;
    const { hashLow, hashHigh } = hash([message]);
    for (let index = this.#first; index < this.#sent.length; index++) {
      const entry = this.#sent[index]!;
      if (entry.length === message.length && entry.hashLow === hashLow && entry.hashHigh === hashHigh) {
        const lost = this.#sent.slice(this.#first, index);
        this.#forget(index + 1);
        for (const earlier of lost) earlier.confirm?.reject(overtaken());
        entry.confirm?.resolve();
        return;
      }
    }
    // Not one of those recorded: it was sent before recording began.
  }

  /** No recorded message can arrive any more. */
  failAll(error: Error): void {
    const sent = this.#sent.slice(this.#first);
    this.#sent = [];
    this.#first = 0;
    for (const { confirm } of sent) confirm?.reject(error);
  }

  /** Forgets all before `index`. */
  #forget(index: number): void {
    this.#first = index;
    if (index === this.#sent.length || index >= COMPACT_AFTER) {
      this.#sent = this.#sent.slice(index);
      this.#first = 0;
    }
  }
}

function overtaken(): CpgError {
  return new CpgError(
    'CS_ERR_FAILED_OPERATION',
    'the daemon dropped this message: one sent after it was delivered first',
    {
      remedy: 'send it again; the daemon was overloaded or forming a new membership',
    },
  );
}

const { imul } = Math;

/** Two FNV-like hashes, over the bytes of all parts. */
function hash(parts: readonly Uint8Array[]): { hashLow: number; hashHigh: number } {
  let hashLow = 0x811c9dc5;
  let hashHigh = 0x9e3779b9;
  for (const part of parts) {
    // By index: an iterator costs more than the hash itself.
    // eslint-disable-next-line @typescript-eslint/prefer-for-of
    for (let index = 0; index < part.length; index++) {
      const byte = part[index]!;
      hashLow = imul(hashLow ^ byte, 0x01000193);
      hashHigh = imul(hashHigh ^ byte, 0x85ebca6b) + (hashHigh >>> 13);
    }
  }
  return { hashLow, hashHigh: hashHigh | 0 };
}
