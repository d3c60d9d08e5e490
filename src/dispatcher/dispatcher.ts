/**
 * Reads events from the transport, decodes them, and gives them to listeners and loops in the daemon's order.
 *
 * While a consumer has no room, nothing is read: events stay in the ring, and then in the daemon's memory, which has no
 * bound. So a consumer should be slow only for a short time.
 */
import { clearImmediate, setImmediate } from '../clock';
import { checkDeliver, decodeEvent, DELIVER, EventId, type CpgWireEvent } from '../codec/events';
import { frameId } from '../codec/header';
import { malformed } from '../codec/fields';
import { groupText } from '../codec/groups';
import { debugMessage, showsMessages } from '../debug';
import { CpgError } from '../errors';
import { throwIfAborted, untilAborted } from '../session/deadline';
import { deferred, type Deferred } from '../session/deferred';
import type { ConfchgEvent, CpgEvent, DeliverEvent } from '../events';
import type { OwnMessages } from '../session/session';
import type { Transport } from '../transport/transport';
import { Consumers, type EventSink } from './consumers';
import type { EventLoop } from './event-loop';
import { Reassembly } from './reassembly';

/** How `dispatch()` dispatches: the cs_dispatch_flags_t of corosync. */
export type DispatchFlag = 'one' | 'all' | 'blocking' | 'oneNonblocking';

/** Consumers get events as they arrive ('auto') or when dispatch() is called ('manual'). */
export type DispatchMode = 'auto' | 'manual';

export interface DispatcherOptions {
  mode: DispatchMode;
  /** Messages are valid only during the listener call. */
  lend: boolean;
  maxReassemblyBytes: number;
}

type EventGroup = Pick<DeliverEvent, 'group' | 'groupBytes'>;

/** Events handled in one turn of the event loop. */
const EVENTS_PER_TURN = 4096;

export class Dispatcher {
  readonly #transport: Transport;
  readonly #own: OwnMessages;
  readonly #mode: DispatchMode;
  readonly #lend: boolean;
  readonly #reassembly: Reassembly;
  readonly #consumers: Consumers;
  #turn: NodeJS.Immediate | undefined;
  #arrival: Deferred<void> | undefined;
  #dispatched = 0;
  /** A handle has only one group, so its name is decoded once. */
  #group: EventGroup | undefined;
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
    this.#mode = mode;
    this.#lend = lend;
    this.#reassembly = new Reassembly(maxReassemblyBytes, (error) => sink.report(error));
    this.#consumers = new Consumers(sink, mode === 'auto', () => this.#later());
  }

  /** The transport has events. */
  onEvents(): void {
    if (this.#mode === 'auto') this.#run();
    else this.#wake();
  }

  /** A listener was added: it gets the backlog, after the caller had a chance to add others. */
  onListening(): void {
    if (this.#consumers.onListening()) this.#later();
  }

  /** A loop over the backlog and all later events. */
  loop(signal?: AbortSignal): EventLoop {
    const loop = this.#consumers.loop(signal);
    if (this.#ended) loop.end(this.#reason);
    return loop;
  }

  /** Manual dispatch: see CpgClient.dispatch(). */
  async dispatch(flag: DispatchFlag, signal?: AbortSignal): Promise<number> {
    if (this.#mode !== 'manual') {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'dispatch on a handle that dispatches by itself', {
        reason: 'bad-argument',
        remedy: "connect with { dispatch: 'manual' }, or listen to the events",
      });
    }
    const tooLate = this.#isOver();
    // A listener may call this: let the current read finish first.
    await Promise.resolve();
    let count = 0;
    for (;;) {
      if (this.#isOver()) return this.#dispatchEnded(tooLate ? undefined : flag, count);
      throwIfAborted(signal);
      count += this.#dispatchNow(flag === 'one' || flag === 'oneNonblocking' ? 1 : Infinity);
      if (flag === 'one' && count > 0) return count;
      // Reading may have ended the connection, or a listener closed it.
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

  /** Wakes a waiting dispatch(). */
  #wake(): void {
    this.#arrival?.resolve();
    this.#arrival = undefined;
  }

  /**
   * close() was called: listeners get the backlog and nothing that is read later. Loops keep what they have queued.
   * Reading continues, to see own messages delivered.
   */
  stop(): void {
    this.#consumers.stop();
    this.#wake();
  }

  #isOver(): boolean {
    return this.#consumers.stopped;
  }

  /** The connection ended: loops end, and throw `reason` if there is one. */
  end(reason?: CpgError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reason = reason;
    if (this.#turn !== undefined) clearImmediate(this.#turn);
    this.#reassembly.clear();
    this.#consumers.end(reason);
    this.#wake();
  }

  /** A blocking dispatch that began before close() resolves; the others resolve only if they dispatched something. */
  #dispatchEnded(flag: DispatchFlag | undefined, count: number): number {
    if (this.#reason !== undefined) throw this.#reason;
    if (flag === 'blocking' || count > 0) return count;
    throw new CpgError('CS_ERR_BAD_HANDLE', 'dispatch: the handle was closed');
  }

  /** Dispatches up to `limit` available events; fragments do not count as events. */
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
      this.#consumers.flush();
      this.#run();
    });
  }

  #hasRoom(): boolean {
    return this.#consumers.hasRoom(this.#own.awaitsConfirmation);
  }

  readonly #handle = (frame: Buffer): boolean => {
    if (showsMessages()) debugMessage('<', decodeEvent(frame));
    // Most events are messages: decode those in place.
    if (frame.length >= DELIVER.headerBytes && frameId(frame) === EventId.deliver) this.#deliver(frame);
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
        this.#give(event);
        break;
      case 'deliver':
        throw malformed('deliver without its fields', 'a whole header');
    }
  }

  #give(event: CpgEvent): void {
    if (this.#consumers.stopped) return;
    this.#dispatched++;
    this.#consumers.give(event);
  }

  #deliver(frame: Buffer): void {
    checkDeliver(frame);
    const nodeId = frame.readUInt32LE(DELIVER.nodeId);
    const pid = frame.readUInt32LE(DELIVER.pid);
    let message = frame.subarray(DELIVER.headerBytes);
    const own = this.#own.isOwn(nodeId, pid);
    if (own) this.#own.delivered(message);
    // Events consumed later need their own copy.
    if (this.#lend && this.#consumers.keeping) message = Buffer.from(message);
    const groupEnd = DELIVER.groupValue + frame.readUInt32LE(DELIVER.groupLength);
    const { group, groupBytes } = this.#groupAt(frame, DELIVER.groupValue, groupEnd);
    this.#give({ type: 'deliver', group, groupBytes, nodeId, pid, own, message });
  }

  #groupAt(bytes: Uint8Array, start = 0, end = bytes.length): EventGroup {
    if (this.#group === undefined || !equalsRange(bytes, start, end, this.#group.groupBytes)) {
      const groupBytes = Uint8Array.prototype.slice.call(bytes, start, end);
      this.#group = { group: groupText(groupBytes), groupBytes };
    }
    return this.#group;
  }

  #confchg({ group, members, left, joined }: Extract<CpgWireEvent, { type: 'confchg' }>): void {
    for (const { nodeId, pid } of left) {
      this.#reassembly.forget(nodeId, pid);
      if (this.#own.isOwn(nodeId, pid)) this.#own.left();
    }
    for (const { nodeId, pid } of members) {
      if (this.#own.isOwn(nodeId, pid)) this.#own.joined();
    }
    const lists = { members, left, joined } as Pick<ConfchgEvent, 'members' | 'left' | 'joined'>;
    this.#give({ type: 'confchg', ...this.#groupAt(group), ...lists });
  }

  #fragment(event: Extract<CpgWireEvent, { type: 'partialDeliver' }>): void {
    const { nodeId, pid, fragmentType, fragment } = event;
    const own = this.#own.isOwn(nodeId, pid);
    if (own) this.#own.fragmentDelivered(fragmentType, fragment.length);
    const message = this.#reassembly.add(event);
    if (message === undefined) return;
    this.#give({ type: 'deliver', ...this.#groupAt(event.group), nodeId, pid, own, message });
  }
}

/** Names are short: a loop is cheaper than a native call. */
function equalsRange(bytes: Uint8Array, start: number, end: number, name: Uint8Array): boolean {
  if (name.length !== end - start) return false;
  for (let index = 0; index < name.length; index++) {
    if (bytes[start + index] !== name[index]) return false;
  }
  return true;
}
