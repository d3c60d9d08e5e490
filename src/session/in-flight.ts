/**
 * Our own messages between sending and delivery: which of them were delivered, and how many more may go.
 *
 * The daemon never answers an mcast, and drops it silently when it is overloaded. A sender gets its own
 * messages back in the order it sent them, so what comes back is a subsequence of what was sent. That alone does
 * not tell which ones were dropped: two messages may have equal bytes. So confirmed messages are kept apart from
 * all others by fences. A fence is the first fragment, with no bytes, of a message that never follows: the daemon
 * answers it, so it is certainly delivered, each member receives it in total order, and no application sees it.
 *
 *     sent        u u u | c c | u u u u        u: unconfirmed, only counted
 *     segments    ----- | --- | -------        c: confirmed, | a fence
 *
 * Whatever of our own comes back between two fences belongs to the segment between them, and in a segment of
 * confirmed messages every delivery settles one of them. A fence is only needed while messages of the other kind
 * are in flight: a sender that awaits each confirmation, or confirms everything, or nothing, never sends one.
 *
 * The daemon answers each fragment of a large message, so these cannot be lost: they are counted.
 *
 * The window. If many more messages were in flight than the event ring holds, the daemon would find the ring full.
 * It queues what finds no place there and tries again up to 50 ms later when nothing else wakes it. So a sender waits
 * until its messages have come back, which also keeps the daemon's queue short. Small messages are read faster than
 * the daemon makes them, so as much again may wait in the request ring: a daemon that runs out of work passes its
 * token round for nothing, and takes CPU time from us for that. The window closes only for a moment: a sender that
 * does not read its messages (a full loop, manual dispatch) may send all the same, as with libcpg.
 */
import { clearTimeout, setTimeout } from '../clock';
import { DELIVER } from '../codec/events';
import { CHUNK_HEADER_BYTES } from '../ring/layout';
import { CpgError } from '../errors';
import type { Confirm, OutgoingMessage } from './message';

interface Segment {
  confirmed: boolean;
  /** Unconfirmed messages that were sent and have not come back. */
  unconfirmed: number;
  /** Confirmed messages whose fate is unknown, in the order of sending; settled ones are before `first`. */
  pending: OutgoingMessage[];
  first: number;
}

/** Confirmations that may be awaited at once. */
export const MAX_CONFIRMATIONS = 1 << 20;
/** Settled entries at the front of `pending` that are dropped at once. */
const COMPACT_AFTER = 4096;

/** How long the window stays closed for messages that do not come back. */
const PATIENCE_MS = 4;
/** Messages up to this part of the event ring are small. */
const SMALL_FRACTION = 16;
/** Two of the largest are always let through: while one is read the daemon works on the other. */
const LEAST_MESSAGES = 2;

export class InFlightWindow {
  readonly #capacityBytes: number;
  readonly #onPatienceOver: () => void;
  /** At least one; the last one takes what is sent, the first one is what deliveries belong to. */
  #segments: Segment[] = [newSegment()];
  /** Large messages whose last fragment was staged, in the order of sending. */
  readonly #large: (Confirm | undefined)[] = [];
  #pending = 0;
  /** What the messages in flight will take of the event ring. */
  #bytes = 0;
  /** How many bytes may be in flight, for a message of the size that waits. */
  #limitBytes = 0;
  /** Runs while the window is closed. */
  #patience: NodeJS.Timeout | undefined;
  #opened = false;

  /**
   * `capacityBytes` is the size of the event ring. `onPatienceOver` is called when a message may go because the
   * messages in flight did not come back; when they did, takeOpened() says so.
   */
  constructor(capacityBytes: number, onPatienceOver: () => void) {
    this.#capacityBytes = capacityBytes;
    this.#onPatienceOver = onPatienceOver;
  }

  /** Confirmations that are awaited. */
  get pending(): number {
    return this.#pending;
  }

  /** Whether a message of `length` bytes may go now. False closes the window until enough messages came back. */
  allows(length: number): boolean {
    const bytes = eventBytes(length);
    const limit = this.#limit(bytes);
    if (this.#bytes + bytes <= limit) return true;
    this.#limitBytes = limit;
    this.#patience ??= setTimeout(() => {
      this.#open(0);
      this.#onPatienceOver();
    }, PATIENCE_MS);
    return false;
  }

  /** True once after deliveries opened the window: messages that wait may go, after the reading. */
  takeOpened(): boolean {
    const opened = this.#opened;
    this.#opened = false;
    return opened;
  }

  /** Whether a fence must be sent before a message that is to be confirmed, or one that is not. */
  needsFence(confirmed: boolean): boolean {
    const last = this.#segments.at(-1)!;
    return last.confirmed !== confirmed && inFlight(last) > 0;
  }

  /** A message of one frame was staged. */
  sent(message: OutgoingMessage): void {
    this.#bytes += eventBytes(message.length);
    const last = this.#segments.at(-1)!;
    last.confirmed = message.confirm !== undefined;
    if (!last.confirmed) {
      last.unconfirmed++;
      return;
    }
    last.pending.push(message);
    this.#pending++;
  }

  /** One of our messages was delivered, not one in fragments. True when nothing sent before or after it is in flight. */
  delivered(message: Uint8Array): boolean {
    this.#free(eventBytes(message.length));
    const segment = this.#segments[0]!;
    if (inFlight(segment) === 0) return false;
    if (segment.confirmed) this.#confirm(segment, message);
    else segment.unconfirmed--;
    return this.#segments.length === 1 && inFlight(segment) === 0;
  }

  /** A fence was staged; until the daemon answers it nothing else is sent. */
  fenceSent(): void {
    this.#segments.push(newSegment());
  }

  /** The daemon did not take the fence. Its segment is gone already if failAll() came first. */
  fenceRefused(): void {
    if (this.#segments.length > 1) this.#segments.pop();
  }

  /** A fence was delivered: of what was sent before it nothing follows. */
  fenceDelivered(): void {
    if (this.#segments.length === 1) return;
    const segment = this.#segments.shift()!;
    this.#rejectDropped(segment, segment.pending.length);
  }

  /** The last fragment of a large message was staged. */
  largeSent(confirm: Confirm | undefined): void {
    this.#large.push(confirm);
    if (confirm !== undefined) this.#pending++;
  }

  /** The daemon did not take that fragment. */
  largeRefused(): void {
    if (this.#large.pop() !== undefined) this.#pending--;
  }

  /** The last fragment of one of our large messages was delivered. */
  largeDelivered(): void {
    const confirm = this.#large.shift();
    if (confirm === undefined) return;
    this.#pending--;
    confirm.resolve();
  }

  /** Nothing of ours can be delivered any more. */
  failAll(error: Error): void {
    const pending = this.#segments.flatMap((segment) => segment.pending.slice(segment.first));
    const all = [...pending.map(({ confirm }) => confirm), ...this.#large.splice(0)];
    this.#segments = [newSegment()];
    this.#pending = 0;
    for (const confirm of all) confirm?.reject(error);
  }

  /** The connection ended: nothing is sent any more either. */
  end(error: Error): void {
    clearTimeout(this.#patience);
    this.failAll(error);
  }

  #limit(bytes: number): number {
    if (bytes <= this.#capacityBytes / SMALL_FRACTION) return 2 * this.#capacityBytes;
    return Math.max(this.#capacityBytes, LEAST_MESSAGES * bytes);
  }

  #free(bytes: number): void {
    this.#bytes = Math.max(0, this.#bytes - bytes);
    if (this.#patience === undefined) return;
    // Half of it at once, not message by message.
    if (this.#bytes <= this.#limitBytes / 2 || bytes >= this.#limitBytes / LEAST_MESSAGES) {
      this.#open(this.#bytes);
      this.#opened = true;
    } else this.#patience.refresh();
  }

  #open(bytes: number): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    this.#bytes = bytes;
  }

  #confirm(segment: Segment, message: Uint8Array): void {
    const { pending, first } = segment;
    // Nearly always the first one. Its bytes count only to find out what was dropped before it.
    let index = first;
    while (index < pending.length && !equalBytes(pending[index]!, message)) index++;
    // Equal to none: the caller changed the bytes of a message that was sent.
    if (index === pending.length) index = first;
    this.#rejectDropped(segment, index);
    const { confirm } = pending[index]!;
    this.#forget(segment, index + 1);
    confirm?.resolve();
  }

  /** All before `end` were overtaken, so they were dropped. */
  #rejectDropped(segment: Segment, end: number): void {
    const dropped = segment.pending.slice(segment.first, end);
    this.#forget(segment, end);
    for (const { confirm } of dropped) confirm?.reject(droppedError());
  }

  #forget(segment: Segment, end: number): void {
    this.#pending -= end - segment.first;
    segment.first = end;
    if (end < segment.pending.length && end < COMPACT_AFTER) return;
    segment.pending = segment.pending.slice(end);
    segment.first = 0;
  }
}

function newSegment(): Segment {
  return { confirmed: false, unconfirmed: 0, pending: [], first: 0 };
}

function inFlight({ unconfirmed, pending, first }: Segment): number {
  return unconfirmed + pending.length - first;
}

/** What a message takes of the event ring when it comes back. */
function eventBytes(length: number): number {
  return CHUNK_HEADER_BYTES + DELIVER.headerBytes + length;
}

function equalBytes({ parts, length }: OutgoingMessage, message: Uint8Array): boolean {
  if (length !== message.length) return false;
  let offset = 0;
  for (const part of parts) {
    if (Buffer.compare(part, message.subarray(offset, offset + part.length)) !== 0) return false;
    offset += part.length;
  }
  return true;
}

function droppedError(): CpgError {
  return new CpgError(
    'CS_ERR_FAILED_OPERATION',
    'the daemon dropped this message: one sent after it was delivered first',
    {
      remedy: 'send it again; the daemon was overloaded or forming a new membership',
    },
  );
}
