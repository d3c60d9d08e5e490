/**
 * How much a sender has under way.
 *
 * A member gets its own messages back. Were many more of them under way than the event ring holds, the daemon
 * would find the ring full, and what finds no place there it queues and tries again only now and then: up to
 * 50 ms later when it has nothing else to do. So a sender holds back until its messages have come back, which
 * also keeps the daemon's queue short.
 *
 * Small messages are read faster than the daemon makes them, so as much again may wait in the request ring: a
 * daemon that runs out of work passes its token round for nothing, and takes processor time from us for that.
 *
 * It holds back only for a moment: who does not read his messages (a loop that is full, a manual dispatch) may
 * send all the same, as with libcpg.
 */
import { DELIVER } from '../codec/events';
import { CHUNK_HEADER_BYTES } from '../codec/ring-layout';

/** How long to wait for messages that do not come back. */
const PATIENCE_MS = 4;
/** Messages up to this part of the event ring are small. */
const SMALL_FRACTION = 16;
/** Two of the largest are always let through: while one is read the daemon works on the other. */
const LEAST_MESSAGES = 2;

export class Pace {
  readonly #capacityBytes: number;
  readonly #onOpen: () => void;
  #underWayBytes = 0;
  /** How much may be under way, for a message of the size that waits. */
  #limitBytes = 0;
  #patience: NodeJS.Timeout | undefined;

  /** `capacityBytes` is the size of the event ring; `onOpen` is called when a message may go that might not before. */
  constructor(capacityBytes: number, onOpen: () => void) {
    this.#capacityBytes = capacityBytes;
    this.#onOpen = onOpen;
  }

  /** Whether a message of `length` bytes may go now; if not, onOpen() follows. */
  allows(length: number): boolean {
    const bytes = eventBytes(length);
    const limit = this.#limit(bytes);
    if (this.#underWayBytes + bytes <= limit) return true;
    this.#limitBytes = limit;
    this.#patience ??= setTimeout(() => this.#open(0), PATIENCE_MS);
    return false;
  }

  sent(length: number): void {
    this.#underWayBytes += eventBytes(length);
  }

  delivered(length: number): void {
    const bytes = eventBytes(length);
    this.#underWayBytes = Math.max(0, this.#underWayBytes - bytes);
    if (this.#patience === undefined) return;
    // Half of it at once, not message by message.
    if (this.#underWayBytes <= this.#limitBytes / 2 || bytes >= this.#limitBytes / LEAST_MESSAGES)
      this.#open(this.#underWayBytes);
    else this.#patience.refresh();
  }

  #limit(bytes: number): number {
    if (bytes <= this.#capacityBytes / SMALL_FRACTION) return 2 * this.#capacityBytes;
    return Math.max(this.#capacityBytes, LEAST_MESSAGES * bytes);
  }

  /** Nobody waits any more. */
  stop(): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
  }

  #open(underWayBytes: number): void {
    this.stop();
    this.#underWayBytes = underWayBytes;
    this.#onOpen();
  }
}

/** What a message takes of the event ring when it comes back. */
function eventBytes(length: number): number {
  return CHUNK_HEADER_BYTES + DELIVER.headerBytes + length;
}
