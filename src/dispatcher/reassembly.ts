/**
 * Messages that arrive in fragments. Each sender (nodeid and pid) has at most one unfinished message. Only the sender's
 * next first fragment or its leave drops it: members with the same history must deliver the same messages, so nothing
 * here depends on time or on other senders. If the unfinished messages of all senders take too much memory, the
 * connection ends.
 */
import { MAX_MESSAGE_BYTES } from '../codec/limits';
import { FragmentType } from '../codec/requests';
import type { CpgWireEvent } from '../codec/events';
import { debugDispatcher as debug } from '../debug';
import { CpgError } from '../errors';

const EMPTY = Buffer.alloc(0);

type Fragment = Extract<CpgWireEvent, { type: 'partialDeliver' }>;

export class Reassembly {
  readonly #maxBytes: number;
  readonly #report: (error: CpgError) => void;
  readonly #unfinished = new Map<string, Unfinished>();
  /** Bytes received for all unfinished messages. */
  #bytes = 0;

  /** `report` gets an error for each message that cannot be reassembled and is dropped. */
  constructor(maxBytes: number, report: (error: CpgError) => void) {
    this.#maxBytes = maxBytes;
    this.#report = report;
  }

  /** Adds a fragment; the last one returns the whole message. After CS_ERR_NO_MEMORY the connection must end. */
  add(event: Fragment): Buffer | undefined {
    const { fragment, fragmentType, messageLength } = event;
    const sender = `${event.nodeId}:${event.pid}`;
    const last = fragmentType === FragmentType.LAST;
    if (fragmentType === FragmentType.FIRST) this.#begin(sender, messageLength);
    const message = this.#unfinished.get(sender);
    if (message === undefined) {
      // We joined in the middle of the message, or dropped it earlier.
      debug('fragment of %s without its beginning', sender);
      return undefined;
    }
    const received = message.received + fragment.length;
    if (
      received > message.length ||
      messageLength !== message.length ||
      (last && received < message.length)
    ) {
      this.#drop(sender);
      this.#report(
        new CpgError(
          'CS_ERR_MESSAGE_ERROR',
          `fragments of a message from ${sender} that do not make up ${message.length} bytes`,
          { remedy: 'the message was dropped; look at its sender' },
        ),
      );
      return undefined;
    }
    if (last) {
      this.#drop(sender);
      return message.append(fragment);
    }
    this.#bytes += fragment.length;
    if (this.#bytes > this.#maxBytes) throw this.#tooMuch();
    message.append(fragment);
    return undefined;
  }

  /** Forgets the unfinished message of a sender. */
  forget(nodeId: number, pid: number): void {
    this.#drop(`${nodeId}:${pid}`);
  }

  /** Forgets all unfinished messages. */
  clear(): void {
    this.#unfinished.clear();
    this.#bytes = 0;
  }

  #begin(sender: string, length: number): void {
    this.#drop(sender);
    if (length <= MAX_MESSAGE_BYTES) {
      this.#unfinished.set(sender, new Unfinished(length));
      return;
    }
    this.#report(
      new CpgError('CS_ERR_TOO_BIG', `a message of ${length} bytes from ${sender}`, {
        remedy: `it was dropped: let its sender send at most ${MAX_MESSAGE_BYTES} bytes at a time`,
      }),
    );
  }

  #drop(sender: string): void {
    const message = this.#unfinished.get(sender);
    if (message === undefined) return;
    this.#bytes -= message.received;
    this.#unfinished.delete(sender);
  }

  #tooMuch(): CpgError {
    const senders = this.#unfinished.size;
    return new CpgError(
      'CS_ERR_NO_MEMORY',
      `unfinished messages of ${senders} senders take ${this.#bytes} bytes (maxReassemblyBytes is ${this.#maxBytes})`,
      {
        remedy:
          'connect with a larger maxReassemblyBytes and join again, or let members send smaller messages',
      },
    );
  }
}

/**
 * The bytes of one message as they arrive. Memory grows with the bytes received, not with the length the first fragment
 * claims: to about twice those bytes, and at most to the length of the message.
 */
class Unfinished {
  received = 0;
  /** Full pieces of memory, in order. */
  #filled: Buffer[] = [];
  #memory: Buffer = EMPTY;
  #used = 0;

  constructor(readonly length: number) {}

  /** Returns the memory, which is the message once all its bytes have arrived. */
  append(fragment: Uint8Array): Buffer {
    if (this.#used + fragment.length > this.#memory.length) this.#grow(fragment.length);
    this.#memory.set(fragment, this.#used);
    this.#used += fragment.length;
    this.received += fragment.length;
    return this.#memory;
  }

  /** Up to half of the message adds pieces of memory; then everything moves to memory for the whole message. */
  #grow(needed: number): void {
    const { received } = this;
    if (this.#used > 0) this.#filled.push(this.#memory.subarray(0, this.#used));
    this.#used = 0;
    if (2 * (received + needed) < this.length) {
      this.#memory = allocate(Math.max(needed, received));
      return;
    }
    this.#memory = allocate(this.length);
    for (const part of this.#filled) this.#used += part.copy(this.#memory, this.#used);
    this.#filled = [];
  }
}

function allocate(length: number): Buffer {
  try {
    return Buffer.allocUnsafeSlow(length);
  } catch (error) {
    throw new CpgError('CS_ERR_NO_MEMORY', `${length} bytes for a message in fragments`, {
      remedy: 'give the process more memory, or let members send smaller messages; connect and join again',
      cause: error,
    });
  }
}
