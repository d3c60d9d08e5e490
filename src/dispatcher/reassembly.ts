/**
 * Messages that arrive in fragments. Each sender (nodeid and pid) has at most one under way; a new first
 * fragment drops the unfinished one, and so does the sender's leaving.
 */
import { MAX_MESSAGE_BYTES } from '../codec/limits';
import { FragmentType } from '../codec/requests';
import type { CpgWireEvent } from '../codec/events';
import { debugDispatcher as debug } from '../debug';
import { CpgError } from '../errors';

/** Bytes that unfinished messages of all senders may take together. */
export const MAX_REASSEMBLY_BYTES = 4 * MAX_MESSAGE_BYTES;

type Fragment = Extract<CpgWireEvent, { type: 'partialDeliver' }>;

interface Unfinished {
  memory: Buffer;
  received: number;
}

export class Reassembly {
  readonly #unfinished = new Map<string, Unfinished>();
  #bytes = 0;

  /**
   * Takes a fragment in. Returns the whole message with its last one, undefined before.
   * Throws CpgError for a message that cannot be put together; it is dropped then, others go on.
   */
  add(fragment: Fragment): Uint8Array | undefined {
    const sender = key(fragment.nodeId, fragment.pid);
    if (fragment.fragmentType === FragmentType.FIRST) this.#begin(sender, fragment);
    const entry = this.#unfinished.get(sender);
    if (entry === undefined) {
      // We joined in the middle of it, or gave it up before.
      debug('fragment of %s without its beginning', sender);
      return undefined;
    }
    const { length } = fragment.fragment;
    const last = fragment.fragmentType === FragmentType.LAST;
    const received = entry.received + length;
    if (
      received > entry.memory.length ||
      fragment.messageLength !== entry.memory.length ||
      (last && received < entry.memory.length)
    ) {
      this.#drop(sender);
      throw new CpgError(
        'CS_ERR_MESSAGE_ERROR',
        `fragments of ${sender} that do not make up ${fragment.messageLength} bytes`,
        {
          remedy: 'the message was dropped; look at its sender',
        },
      );
    }
    entry.memory.set(fragment.fragment, entry.received);
    entry.received = received;
    if (!last) return undefined;
    this.#drop(sender);
    return entry.memory;
  }

  /** Forgets what a sender had under way. */
  forget(nodeId: number, pid: number): void {
    this.#drop(key(nodeId, pid));
  }

  #begin(sender: string, { messageLength }: Fragment): void {
    this.#drop(sender);
    if (messageLength > MAX_MESSAGE_BYTES || this.#bytes + messageLength > MAX_REASSEMBLY_BYTES) {
      throw new CpgError('CS_ERR_TOO_BIG', `a message of ${messageLength} bytes from ${sender}`, {
        remedy: `it was dropped: at most ${MAX_MESSAGE_BYTES} bytes each and ${MAX_REASSEMBLY_BYTES} at a time are put together`,
      });
    }
    this.#unfinished.set(sender, { memory: Buffer.allocUnsafeSlow(messageLength), received: 0 });
    this.#bytes += messageLength;
  }

  #drop(sender: string): void {
    const entry = this.#unfinished.get(sender);
    if (entry === undefined) return;
    this.#bytes -= entry.memory.length;
    this.#unfinished.delete(sender);
  }
}

function key(nodeId: number, pid: number): string {
  return `${nodeId}:${pid}`;
}
