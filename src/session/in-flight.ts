/**
 * Our own messages in flight: which of them were delivered, and how many more may be sent.
 *
 * The daemon never answers an mcast, and drops it silently when overloaded. A sender gets its own messages back in
 * order, so the deliveries are a subsequence of the messages sent. That alone does not show which ones were dropped:
 * two messages may have equal bytes. So fences separate confirmed messages from all others. A fence is an empty first
 * fragment of a message that never follows. The daemon answers it, so its delivery is certain; each member receives it
 * in total order, and no application sees it.
 *
 *     sent        u u u | c c | u u u u        u: unconfirmed, only counted
 *     segments    ----- | --- | -------        c: confirmed, | a fence
 *
 * Deliveries between two fences belong to the segment between them, and in a confirmed segment every delivery settles
 * one message. A fence is only needed while messages of the other kind are in flight: a sender that awaits each
 * confirmation, or confirms everything, or nothing, never sends one.
 *
 * The daemon answers each fragment of a large message, so large messages cannot be lost: they are only counted.
 *
 * The window. If more messages were in flight than the event ring holds, the daemon would find the ring full. It queues
 * the rest and retries up to 50 ms later if nothing else wakes it. So a sender waits until its messages have come back,
 * which also keeps the daemon's queue short. We read small messages faster than the daemon delivers them, so the same
 * amount again may wait in the request ring: an idle daemon keeps passing its token and takes our CPU time for that.
 * The window closes only briefly: a sender that does not read its messages (a full loop, manual dispatch) may still
 * send, as with libcpg.
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
  /** Unsettled confirmed messages in sending order, from index `first` on. */
  pending: OutgoingMessage[];
  first: number;
}

/** The limit of pending confirmations. */
export const MAX_CONFIRMATIONS = 1 << 20;
/** Settled entries at the front of `pending` before they are removed. */
const COMPACT_AFTER = 4096;

/** How long the window stays closed for messages that do not come back. */
const PATIENCE_MS = 4;
/** Messages up to this part of the event ring are small. */
const SMALL_FRACTION = 16;
/** The window always allows two of the largest: we read one while the daemon works on the other. */
const LEAST_MESSAGES = 2;

export class InFlightWindow {
  readonly #capacityBytes: number;
  readonly #onPatienceOver: () => void;
  /** At least one: sent messages go into the last one, deliveries belong to the first one. */
  #segments: Segment[] = [newSegment()];
  /** Large messages whose last fragment was staged, in sending order. */
  readonly #large: (Confirm | undefined)[] = [];
  #pending = 0;
  /** Event ring bytes of the messages in flight. */
  #bytes = 0;
  /** The limit of `#bytes` for the waiting message. */
  #limitBytes = 0;
  /** Runs while the window is closed. */
  #patience: NodeJS.Timeout | undefined;
  #opened = false;

  /**
   * `capacityBytes` is the size of the event ring. `onPatienceOver` is called when the window opens because the
   * messages in flight did not come back; if they did, see takeOpened().
   */
  constructor(capacityBytes: number, onPatienceOver: () => void) {
    this.#capacityBytes = capacityBytes;
    this.#onPatienceOver = onPatienceOver;
  }

  /** The number of pending confirmations. */
  get pending(): number {
    return this.#pending;
  }

  /** Whether a message of `length` bytes may be sent now. False closes the window until enough messages came back. */
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

  /** True once after deliveries opened the window: send waiting messages after the reading. */
  takeOpened(): boolean {
    const opened = this.#opened;
    this.#opened = false;
    return opened;
  }

  /** Whether a fence must be sent before the next message. */
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

  /** One of our unfragmented messages was delivered. True if none are in flight any more. */
  delivered(message: Uint8Array): boolean {
    this.#free(eventBytes(message.length));
    const segment = this.#segments[0]!;
    if (inFlight(segment) === 0) return false;
    if (segment.confirmed) this.#confirm(segment, message);
    else segment.unconfirmed--;
    return this.#segments.length === 1 && inFlight(segment) === 0;
  }

  /** A fence was staged; nothing else is sent until the daemon answers it. */
  fenceSent(): void {
    this.#segments.push(newSegment());
  }

  /** The daemon refused the fence. Its segment is already gone if failAll() came first. */
  fenceRefused(): void {
    if (this.#segments.length > 1) this.#segments.pop();
  }

  /** A fence was delivered: every message sent before it was delivered or dropped. */
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

  /** The daemon refused that fragment. */
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

  /** None of our messages can be delivered any more. */
  failAll(error: Error): void {
    const pending = this.#segments.flatMap((segment) => segment.pending.slice(segment.first));
    const all = [...pending.map(({ confirm }) => confirm), ...this.#large.splice(0)];
    this.#segments = [newSegment()];
    this.#pending = 0;
    for (const confirm of all) confirm?.reject(error);
  }

  /** The connection ended. */
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
    // Open at half the limit, so that messages go out in batches.
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
    // Nearly always the first one; comparing bytes finds the messages dropped before it.
    let index = first;
    while (index < pending.length && !equalBytes(pending[index]!, message)) index++;
    // No match: the caller changed the bytes of a message in flight.
    if (index === pending.length) index = first;
    this.#rejectDropped(segment, index);
    const { confirm } = pending[index]!;
    this.#forget(segment, index + 1);
    confirm?.resolve();
  }

  /** A later message was delivered first, so all before `end` were dropped. */
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

/** The event ring bytes of a message when it comes back. */
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
