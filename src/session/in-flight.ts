/**
 * Our own messages between sending and delivery.
 *
 * The daemon never answers an mcast, and drops it without a word when it is overloaded. A sender gets its own
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
 * are in flight: who awaits each confirmation, or confirms everything, or nothing, never sends one.
 *
 * The daemon answers each fragment of a large message, so these cannot be lost: they are counted.
 */
import { CpgError } from '../errors';

export interface Confirm {
  resolve: () => void;
  reject: (error: Error) => void;
}

/** A confirmed message whose delivery is awaited. */
interface Pending {
  readonly parts: readonly Uint8Array[];
  readonly length: number;
  readonly confirm: Confirm;
}

interface Segment {
  confirmed: boolean;
  /** Unconfirmed messages that were sent and have not come back. */
  unconfirmed: number;
  /** Confirmed messages whose fate is unknown, in the order of sending; settled ones are before `first`. */
  pending: Pending[];
  first: number;
}

/** Confirmations that may be awaited at once. */
export const MAX_CONFIRMATIONS = 1 << 20;
/** Settled entries at the front of `pending` that are dropped at once. */
const COMPACT_AFTER = 4096;

export class InFlight {
  /** At least one; the last one takes what is sent, the first one is what deliveries belong to. */
  #segments: Segment[] = [newSegment()];
  /** Large messages whose last fragment was handed over, in the order of sending. */
  readonly #large: (Confirm | undefined)[] = [];
  #pending = 0;

  /** Confirmations that are awaited. */
  get pending(): number {
    return this.#pending;
  }

  /** Whether a fence must be sent before a message that is to be confirmed, or one that is not. */
  needsFence(confirmed: boolean): boolean {
    const last = this.#segments.at(-1)!;
    return last.confirmed !== confirmed && inFlight(last) > 0;
  }

  /** A message was sent; its bytes must not change before it is settled if it has a `confirm`. */
  sent(parts: readonly Uint8Array[], length: number, confirm?: Confirm): void {
    const last = this.#segments.at(-1)!;
    last.confirmed = confirm !== undefined;
    if (confirm === undefined) {
      last.unconfirmed++;
      return;
    }
    last.pending.push({ parts, length, confirm });
    this.#pending++;
  }

  /** One of our messages was delivered, not one in fragments. True when nothing sent before or after it is in flight. */
  delivered(message: Uint8Array): boolean {
    const segment = this.#segments[0]!;
    if (inFlight(segment) === 0) return false;
    if (segment.confirmed) this.#confirm(segment, message);
    else segment.unconfirmed--;
    return this.#segments.length === 1 && inFlight(segment) === 0;
  }

  /** A fence is on its way; until the daemon answers it nothing else is sent. */
  fenceSent(): void {
    this.#segments.push(newSegment());
  }

  /** The daemon did not take the fence. */
  fenceRefused(): void {
    this.#segments.pop();
  }

  /** A fence was delivered: of what was sent before it nothing follows. */
  fenceDelivered(): void {
    if (this.#segments.length === 1) return;
    const segment = this.#segments.shift()!;
    this.#rejectDropped(segment, segment.pending.length);
  }

  /** The last fragment of a large message was handed over. */
  largeSent(confirm?: Confirm): void {
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
    confirm.resolve();
  }

  /** All before `end` were overtaken, so they were dropped. */
  #rejectDropped(segment: Segment, end: number): void {
    const dropped = segment.pending.slice(segment.first, end);
    this.#forget(segment, end);
    for (const { confirm } of dropped) confirm.reject(droppedError());
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

function equalBytes({ parts, length }: Pending, message: Uint8Array): boolean {
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
