/**
 * Takes events out of the transport, decodes them, and hands them to listeners and loops in the order of the
 * daemon.
 *
 * Nothing is read while a consumer has no room: events then stay in the daemon's ring, and behind it in the
 * daemon's memory, which has no bound. So a consumer should be slow only for a while.
 */
import { checkDeliver, decodeEvent, DELIVER, EventId, type CpgWireEvent } from '../codec/events';
import { frameId } from '../codec/header';
import { malformed } from '../codec/fields';
import { groupText } from '../codec/groups';
import { debugDispatcher as debug, debugMessage, showsMessages } from '../debug';
import { asError, CpgError } from '../errors';
import { throwIfAborted, untilAborted } from '../session/deadline';
import { deferred, type Deferred } from '../session/deferred';
import type { OwnMessages } from '../session/session';
import type { Transport } from '../transport/transport';
import { EventQueue } from './event-queue';
import type { CpgEvent, EventPayloads } from './events';
import { Reassembly } from './reassembly';

/** How `dispatch()` dispatches: the cs_dispatch_flags_t of corosync. */
export type DispatchFlag = 'one' | 'all' | 'blocking' | 'oneNonblocking';

export type DispatchMode = 'auto' | 'manual';

export interface DispatcherOptions {
  mode: DispatchMode;
  /** Listeners get messages for the duration of the call only. */
  lend: boolean;
  maxReassemblyBytes: number;
}

/** Who gets the events, apart from the loops. */
export interface EventSink {
  /** True while somebody listens to any of the three kinds. */
  readonly listening: boolean;
  /** May throw what a user's listener throws. */
  emit<Type extends keyof EventPayloads>(type: Type, event: EventPayloads[Type]): void;
  /** Something about one message, or a user's listener, went wrong; the connection goes on. */
  report(error: Error): void;
}

/** How long a full queue waits for somebody to listen. */
const EARLY_PATIENCE_MS = 1000;
/** Events handled at a stretch before others in the process get their turn. */
const EVENTS_PER_TURN = 4096;

export class Dispatcher {
  readonly #transport: Transport;
  readonly #own: OwnMessages;
  readonly #sink: EventSink;
  readonly #mode: DispatchMode;
  readonly #lend: boolean;
  readonly #reassembly: Reassembly;
  readonly #loops = new Set<EventQueue>();
  /**
   * What arrives before anybody listens (`await join()` usually comes before `for await`), and between one loop
   * and the next. When it is full nothing is read for a while; if there is still nobody then, it is given up,
   * because an unread ring would fill the daemon's memory.
   */
  #early: EventQueue | undefined;
  #patience: NodeJS.Timeout | undefined;
  /** It was given up: whoever comes now is told that they missed something. */
  #missed = false;
  #turn: NodeJS.Immediate | undefined;
  #arrival: Deferred<void> | undefined;
  #dispatched = 0;
  #groupBytes: Uint8Array | undefined;
  #groupText: string | Uint8Array = '';
  /** close() was called: nothing more is given to anybody, but own messages are still looked for. */
  #stopped = false;
  #ended = false;
  #reason: CpgError | undefined;

  constructor(
    transport: Transport,
    own: OwnMessages,
    sink: EventSink,
    { mode, lend, maxReassemblyBytes }: DispatcherOptions,
  ) {
    this.#transport = transport;
    this.#own = own;
    this.#sink = sink;
    this.#mode = mode;
    this.#lend = lend;
    this.#reassembly = new Reassembly(maxReassemblyBytes, (error) => sink.report(error));
    if (mode === 'auto') this.#early = this.#newQueue();
  }

  /** The transport has events. */
  onEvents(): void {
    if (this.#mode === 'auto') this.#run();
    else this.#wake();
  }

  /** Somebody began to listen: what came early is theirs, once others had the chance to listen too. */
  onListening(): void {
    if (this.#early !== undefined) this.#later();
    this.#tellMissed();
  }

  /** A loop over the events from now on; the first one also gets what came early. */
  loop(): EventQueue {
    const queue = this.#takeEarly() ?? this.#newQueue();
    this.#loops.add(queue);
    this.#tellMissed();
    if (this.#ended) queue.end(this.#reason);
    return queue;
  }

  /**
   * Manual dispatch; returns the number of events dispatched. 'one' waits for an event, 'blocking' goes on
   * until the handle is closed, 'all' takes what is there, 'oneNonblocking' throws CS_ERR_TRY_AGAIN when
   * nothing is.
   */
  async dispatch(flag: DispatchFlag, signal?: AbortSignal): Promise<number> {
    if (this.#mode !== 'manual') {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'dispatch on a handle that dispatches by itself', {
        reason: 'bad-argument',
        remedy: "connect with { dispatch: 'manual' }, or listen to the events",
      });
    }
    const tooLate = this.#isOver();
    // A listener may call this: reading has finished by the time we go on.
    await Promise.resolve();
    let count = 0;
    for (;;) {
      if (this.#isOver()) return this.#dispatchEnded(tooLate ? undefined : flag, count);
      throwIfAborted(signal);
      count += this.#dispatchNow(flag === 'one' || flag === 'oneNonblocking' ? 1 : Infinity);
      if (flag === 'one' && count > 0) return count;
      // The connection may have ended with that, or a listener closed it.
      if (this.#isOver()) continue;
      if (flag === 'all') return count;
      if (flag === 'oneNonblocking') {
        if (count === 0)
          throw new CpgError('CS_ERR_TRY_AGAIN', 'there is no event to dispatch', { reason: 'no-event' });
        return count;
      }
      this.#arrival ??= deferred<void>();
      await (signal === undefined ? this.#arrival.promise : untilAborted(this.#arrival.promise, signal));
    }
  }

  /** A dispatch() that waits looks again. */
  #wake(): void {
    this.#arrival?.resolve();
    this.#arrival = undefined;
  }

  /**
   * close() was called: listeners get what came before they did, and nothing that is read from now on. Loops keep
   * what they have.
   */
  stop(): void {
    this.#flushEarly();
    this.#stopped = true;
    this.#wake();
  }

  #isOver(): boolean {
    return this.#stopped || this.#ended;
  }

  /** The connection ended: loops end, and throw `reason` if there is one. */
  end(reason?: CpgError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reason = reason;
    if (this.#turn !== undefined) clearImmediate(this.#turn);
    clearTimeout(this.#patience);
    this.#reassembly.clear();
    this.#flushEarly();
    for (const loop of this.#loops) loop.end(reason);
    this.#wake();
  }

  /** Closing is what ends a blocking dispatch, if it began before that; the others had what they asked for, or not. */
  #dispatchEnded(flag: DispatchFlag | undefined, count: number): number {
    if (this.#reason !== undefined) throw this.#reason;
    if (flag === 'blocking' || count > 0) return count;
    throw new CpgError('CS_ERR_BAD_HANDLE', 'dispatch: the handle was closed');
  }

  /** Up to `limit` events that are there; fragments do not count as events. */
  #dispatchNow(limit: number): number {
    this.#dispatched = 0;
    while (this.#dispatched < limit && !this.#isOver() && this.#hasRoom()) {
      const frames = Math.min(limit - this.#dispatched, EVENTS_PER_TURN);
      if (this.#read(frames) === 0) break;
    }
    return this.#dispatched;
  }

  #run(): void {
    if (this.#ended || this.#turn !== undefined || !this.#hasRoom()) return;
    this.#read(EVENTS_PER_TURN);
    if (this.#transport.pendingEvents > 0) this.#later();
  }

  #read(limit: number): number {
    const count = this.#transport.consumeEvents(limit, this.#handle);
    this.#own.batchRead();
    return count;
  }

  /** A loop has room again, or there is more to read. */
  #later(): void {
    if (this.#ended) return;
    if (this.#mode === 'manual') {
      this.#wake();
      return;
    }
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      this.#flushEarly();
      this.#run();
    });
  }

  #newQueue(): EventQueue {
    return new EventQueue(
      () => this.#later(),
      (queue, left) => {
        if (this.#loops.delete(queue)) this.#keep(left);
        this.#later();
      },
    );
  }

  /** When the last one stopped listening, what it left and what comes now is for the next, as in the beginning. */
  #keep(left: readonly CpgEvent[]): void {
    if (this.#mode === 'manual' || this.#ended || this.#loops.size > 0 || this.#sink.listening) return;
    this.#early = this.#newQueue();
    for (const event of left) this.#pushEarly(this.#early, event);
  }

  #hasRoom(): boolean {
    if (this.#stopped) return true;
    if (this.#early?.full === true) return false;
    for (const loop of this.#loops) {
      // Who awaits a confirmation takes no event meanwhile, and the confirmation is behind those he has.
      if (loop.full && (loop.overfull || !this.#own.awaitsConfirmation)) return false;
    }
    return true;
  }

  #takeEarly(): EventQueue | undefined {
    const early = this.#early;
    this.#early = undefined;
    clearTimeout(this.#patience);
    this.#patience = undefined;
    return early;
  }

  #pushEarly(early: EventQueue, event: CpgEvent): void {
    early.push(event);
    if (early.full && !this.#ended)
      this.#patience ??= setTimeout(() => this.#giveUpEarly(), EARLY_PATIENCE_MS);
  }

  #giveUpEarly(): void {
    debug('nobody listens: events are dropped from now on');
    this.#takeEarly();
    this.#missed = true;
    this.#later();
  }

  /** Once, and later, so that whoever begins to listen can listen for errors too. */
  #tellMissed(): void {
    if (!this.#missed) return;
    this.#missed = false;
    const error = new CpgError('CS_ERR_QUEUE_FULL', 'events that came before anybody listened were dropped', {
      reason: 'unread-events',
      remedy: 'begin to listen before join(), or right after it',
    });
    setImmediate(() => this.#sink.report(error));
  }

  /** Gives listeners what came before them. */
  #flushEarly(): void {
    if (!this.#sink.listening) return;
    const early = this.#takeEarly();
    if (early === undefined) return;
    for (let event = early.take(); event !== undefined && !this.#stopped; event = early.take()) {
      const { type, ...payload } = event;
      this.#emit(type, payload);
    }
  }

  readonly #handle = (frame: Buffer, owned: boolean): boolean => {
    if (showsMessages()) debugMessage('<', decodeEvent(frame));
    // Most events are messages, so these are read in place.
    if (frame.length >= DELIVER.headerBytes && frameId(frame) === EventId.deliver)
      this.#deliver(frame, owned);
    else this.#handleOther(decodeEvent(frame));
    return !this.#ended && this.#hasRoom();
  };

  #handleOther(event: CpgWireEvent): void {
    switch (event.type) {
      case 'confchg':
        this.#confchg(event);
        break;
      case 'partialDeliver':
        this.#fragment(event);
        break;
      case 'totemConfchg':
        this.#give('totemConfchg', { ringId: event.ringId, members: event.members });
        break;
      case 'deliver':
        throw malformed('deliver without its fields', 'a whole header');
    }
  }

  #give<Type extends keyof EventPayloads>(type: Type, payload: EventPayloads[Type]): void {
    if (this.#stopped) return;
    this.#dispatched++;
    if (this.#early !== undefined) {
      this.#pushEarly(this.#early, { type, ...payload } as CpgEvent);
      return;
    }
    for (const loop of this.#loops) loop.push({ type, ...payload } as CpgEvent);
    this.#emit(type, payload);
  }

  #emit<Type extends keyof EventPayloads>(type: Type, payload: EventPayloads[Type]): void {
    try {
      this.#sink.emit(type, payload);
    } catch (error) {
      this.#sink.report(asError(error));
    }
  }

  #deliver(frame: Buffer, owned: boolean): void {
    checkDeliver(frame);
    const nodeId = frame.readUInt32LE(DELIVER.nodeId);
    const pid = frame.readUInt32LE(DELIVER.pid);
    let message =
      owned || this.#lend ? frame.subarray(DELIVER.headerBytes) : copiedFrom(frame, DELIVER.headerBytes);
    if (this.#own.isOwn(nodeId, pid)) this.#own.delivered(message);
    // Who takes events later needs bytes of his own.
    if (this.#lend && !owned && (this.#loops.size > 0 || this.#early !== undefined))
      message = copiedFrom(message, 0);
    this.#give('deliver', { group: this.#groupAt(frame), nodeId, pid, message });
  }

  /** The group of a deliver frame; a handle has but one, so its text is made once. */
  #groupAt(frame: Buffer): string | Uint8Array {
    const start = DELIVER.groupValue;
    const end = start + frame.readUInt32LE(DELIVER.groupLength);
    if (!standsAt(frame, start, end, this.#groupBytes)) {
      this.#groupBytes = Uint8Array.prototype.slice.call(frame, start, end);
      this.#groupText = groupText(this.#groupBytes);
    }
    return this.#groupText;
  }

  #confchg({ group, members, left, joined }: Extract<CpgWireEvent, { type: 'confchg' }>): void {
    for (const { nodeId, pid } of left) {
      this.#reassembly.forget(nodeId, pid);
      if (this.#own.isOwn(nodeId, pid)) this.#own.left();
    }
    for (const { nodeId, pid } of members) {
      if (this.#own.isOwn(nodeId, pid)) this.#own.joined();
    }
    this.#give('confchg', { group: groupText(group), members, left, joined });
  }

  #fragment(event: Extract<CpgWireEvent, { type: 'partialDeliver' }>): void {
    const { nodeId, pid, fragmentType, fragment } = event;
    if (this.#own.isOwn(nodeId, pid)) {
      this.#own.fragmentDelivered(fragmentType, fragment.length);
    }
    const message = this.#reassembly.add(event);
    if (message !== undefined) this.#give('deliver', { group: groupText(event.group), nodeId, pid, message });
  }
}

/** By index: names are short, and a call out of JavaScript costs more. */
function standsAt(frame: Buffer, start: number, end: number, bytes: Uint8Array | undefined): boolean {
  if (bytes?.length !== end - start) return false;
  for (let index = 0; index < bytes.length; index++) {
    if (frame[start + index] !== bytes[index]) return false;
  }
  return true;
}

/** Several times faster than Buffer.from() for the small ones. */
function copiedFrom(frame: Buffer, start: number): Buffer {
  const copy = Buffer.allocUnsafe(frame.length - start);
  frame.copy(copy, 0, start);
  return copy;
}
