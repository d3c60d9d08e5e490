/** One handle on a daemon: its state and the user's calls. The dispatcher handles events. */
import { Reason } from '../codec/addresses';
import { groupBytes, groupLabel, groupText } from '../codec/groups';
import { MAX_ATOMIC_MESSAGE_BYTES, MAX_MESSAGE_BYTES } from '../codec/limits';
import { DELIVER_INITIAL_TOTEM_CONF, FragmentType, IterationType } from '../codec/requests';
import { debugSession as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import type { CpgAddress } from '../events';
import type { SendListener, Transport } from '../transport/transport';
import { Deadline, throwIfAborted, untilAborted } from './deadline';
import { deferred } from './deferred';
import { Identity } from './identity';
import { InFlightWindow, MAX_CONFIRMATIONS } from './in-flight';
import { Iterations } from './iterations';
import { allocMessage, type OutgoingMessage } from './message';
import { Nudge } from './nudge';
import { Outbox } from './outbox';
import { RequestChannel } from './request-channel';
import { Sender } from './sender';
import { assertAllowed, type SessionState } from './states';

/** How long close() waits for queued messages and for the daemon's reply to finalize. */
const CLOSE_GRACE_MS = 1000;

export interface SessionOptions {
  timeoutMs: number;
  pid: number | undefined;
  /** After tryMcast() returned false: it is worth calling again. */
  onDrain: () => void;
}

export interface McastOptions {
  guarantee: number;
  signal: AbortSignal | undefined;
  confirm: boolean;
}

/** Informed by the dispatcher about our own messages and membership. */
export interface OwnMessages {
  /** A call awaits the delivery of one of our own messages, so events must be read. */
  readonly awaitsConfirmation: boolean;
  /** Whether this is our own address in an event. */
  isOwn(nodeId: number, pid: number): boolean;
  /** One of our messages was delivered. */
  delivered(message: Uint8Array): void;
  /** One of our fragments was delivered: it may end a large message, or be a fence. */
  fragmentDelivered(fragmentType: number, length: number): void;
  /** A confchg lists us as a member, perhaps before the reply to our join. */
  joined(): void;
  /** A confchg lists us as left: none of our messages will be delivered any more. */
  left(): void;
  /** A batch of events was read: if it opened the window, waiting messages go out. */
  batchRead(): void;
}

/** One row of an iteration: `cpg_iteration_description_t`. */
export interface GroupEntry {
  /** A string when the bytes are valid UTF-8 (a trailing NUL is kept), else the bytes. */
  group: string | Uint8Array;
  /** The member's node; 0 with `namesOnly`. */
  nodeId: number;
  /** The member's pid; 0 with `namesOnly`. */
  pid: number;
}

export class Session implements OwnMessages {
  /** The largest message that goes out in one frame: cpg_max_atomic_msgsize_get. */
  readonly maxAtomicMessageSize: number;
  /** For the transport: receives replies, and room to send. */
  readonly listener: SendListener;
  readonly #transport: Transport;
  readonly #identity: Identity;
  readonly #timeoutMs: number;
  readonly #outbox: Outbox;
  readonly #requests: RequestChannel;
  readonly #window: InFlightWindow;
  readonly #sender: Sender;
  readonly #iterations: Iterations;
  #state: SessionState = 'unjoined';
  #group: Uint8Array | undefined;
  #nodeId = 0;
  /** Calls that await a confirmation. */
  #confirming = 0;
  #closing: Promise<void> | undefined;

  constructor(transport: Transport, { timeoutMs, pid, onDrain }: SessionOptions) {
    const outbox = new Outbox(() => this.#sender.onOutboxEmpty());
    const requests = new RequestChannel(transport, outbox, timeoutMs);
    const window = new InFlightWindow(transport.eventCapacityBytes, () => outbox.drain());
    const maxAtomicMessageSize = Math.min(transport.maxFrameBytes - 1024, MAX_ATOMIC_MESSAGE_BYTES);
    const parts = { transport, outbox, requests, window, timeoutMs, maxAtomicMessageSize, onDrain };
    const sender = new Sender(parts);
    const nudge = new Nudge(transport, requests);
    this.listener = {
      onResponse: (frame) => {
        requests.onResponse(frame);
        outbox.drain();
        sender.onProgress();
        nudge.consider();
      },
      onRoom: () => {
        outbox.drain();
        nudge.consider();
      },
      onPosted: () => sender.onPosted(),
      onRingEmptied: () => nudge.consider(),
    };
    this.maxAtomicMessageSize = maxAtomicMessageSize;
    this.#transport = transport;
    this.#identity = new Identity(pid, transport.clientPid);
    this.#timeoutMs = timeoutMs;
    this.#outbox = outbox;
    this.#requests = requests;
    this.#window = window;
    this.#sender = sender;
    this.#iterations = new Iterations(requests);
  }

  /** Requests the nodeid, which also detects a daemon that does not answer. Closes the connection on failure. */
  async open(limit: Deadline): Promise<void> {
    try {
      const asked = this.#requests.ask('connect', { type: 'localGet' }, 'localGet', limit);
      this.#nodeId = (await untilAborted(asked, limit.signal)).nodeId;
    } catch (error) {
      await this.#transport.close();
      throw error;
    }
  }

  /** The connection ended: settles everything pending. */
  end(reason?: CpgError): void {
    this.#state = 'closed';
    const error = reason ?? new CpgError('CS_ERR_BAD_HANDLE', 'the handle was closed');
    this.#requests.end(error);
    this.#outbox.close(error);
    this.#sender.end(error);
  }

  get state(): SessionState {
    return this.#state;
  }

  /** The pid announced on join. */
  get pid(): number {
    return this.#identity.pid;
  }

  /** The group joined or being joined; undefined before. */
  get group(): Uint8Array | undefined {
    return this.#group;
  }

  get nodeId(): number {
    return this.#nodeId;
  }

  get awaitsConfirmation(): boolean {
    return this.#confirming > 0;
  }

  isOwn(nodeId: number, pid: number): boolean {
    return pid === this.pid && nodeId === this.#nodeId;
  }

  delivered(message: Uint8Array): void {
    const wasLast = this.#window.delivered(message);
    // A request may still be in the ring.
    if (wasLast && this.#requests.idle) this.#transport.markConsumed();
  }

  fragmentDelivered(fragmentType: number, length: number): void {
    if (fragmentType === FragmentType.LAST) this.#window.largeDelivered();
    else if (fragmentType === FragmentType.FIRST && length === 0) this.#window.fenceDelivered();
  }

  joined(): void {
    this.#enter('joining', 'joined');
  }

  left(): void {
    if (!this.#enter('leaving', 'left')) this.#enter('joined', 'left');
    this.#window.failAll(
      new CpgError('CS_ERR_INTERRUPT', 'this handle left the group before the message was delivered', {
        reason: 'left',
        remedy: 'connect again, join, and send again',
      }),
    );
  }

  batchRead(): void {
    if (this.#window.takeOpened()) this.#outbox.drain();
  }

  async join(group: string | Uint8Array, initialTotemConfchg: boolean, signal?: AbortSignal): Promise<void> {
    assertAllowed(this.#state, 'join');
    const name = groupBytes(group, 'join');
    throwIfAborted(signal);
    this.#state = 'joining';
    this.#group = name;
    const flags = initialTotemConfchg ? DELIVER_INITIAL_TOTEM_CONF : 0;
    // The state follows the daemon's reply, even after the caller has given up.
    await this.#requests.call('join', signal, (limit) =>
      this.#askToJoin(name, flags, limit).then(
        () => this.#enter('joining', 'joined'),
        (error: unknown) => {
          if (this.#enter('joining', 'unjoined')) this.#group = undefined;
          throw error;
        },
      ),
    );
  }

  /** Joins, and retries with another pid if the drawn one is taken. */
  async #askToJoin(group: Uint8Array, flags: number, limit: Deadline): Promise<void> {
    for (;;) {
      try {
        await this.#requests.ask('join', { type: 'join', group, pid: this.pid, flags }, 'join', limit);
        return;
      } catch (error) {
        if (!isCpgError(error) || error.code !== 'CS_ERR_EXIST') throw error;
        if (!this.#identity.redraw()) throw this.#identity.refusal(error);
      }
    }
  }

  async leave(group?: string | Uint8Array, signal?: AbortSignal): Promise<void> {
    assertAllowed(this.#state, 'leave');
    const joined = this.#group!;
    if (group !== undefined && Buffer.compare(groupBytes(group, 'leave'), joined) !== 0) {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'leave: this handle has joined another group', {
        reason: 'other-group',
        remedy: `leave '${groupLabel(joined)}', or call leave() without a name`,
      });
    }
    throwIfAborted(signal);
    this.#state = 'leaving';
    await this.#requests.call('leave', signal, (limit) =>
      this.#requests.ask('leave', { type: 'leave', group: joined, pid: this.pid }, 'leave', limit).then(
        () => this.#enter('leaving', 'left'),
        (error: unknown) => {
          this.#enter('leaving', 'joined');
          throw error;
        },
      ),
    );
  }

  async membership(group?: string | Uint8Array, signal?: AbortSignal): Promise<CpgAddress[]> {
    assertAllowed(this.#state, 'query', 'membership');
    const name = group === undefined ? this.#group : groupBytes(group, 'membership');
    if (name === undefined) {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'membership: no group is given and none is joined', {
        reason: 'bad-argument',
        remedy: 'name a group',
      });
    }
    // Never membershipGet: if the group has more members than the reply holds, the daemon overruns its stack and aborts.
    const rows = this.#iterations.rows('membership', IterationType.ONE_GROUP, name, signal);
    // The daemon inserts each later member right after the first one.
    const [first, ...others] = await collect(rows);
    const members = first === undefined ? [] : [first, ...others.reverse()];
    return members.map(({ nodeId, pid }) => ({ nodeId, pid, reason: Reason.UNDEFINED }));
  }

  async localNodeId(signal?: AbortSignal): Promise<number> {
    assertAllowed(this.#state, 'query', 'localNodeId');
    return (await this.#requests.query('localNodeId', { type: 'localGet' }, 'localGet', signal)).nodeId;
  }

  /** The rows of a snapshot of groups, which is released when the loop over it ends. */
  async *groups(
    iterationType: number,
    group: Uint8Array,
    signal?: AbortSignal,
  ): AsyncGenerator<GroupEntry, void> {
    assertAllowed(this.#state, 'query', 'groups');
    for await (const row of this.#iterations.rows('groups', iterationType, group, signal)) {
      // Without members the daemon leaves these two unset.
      const { nodeId, pid } = iterationType === IterationType.NAME_ONLY ? { nodeId: 0, pid: 0 } : row;
      yield { group: groupText(row.group), nodeId, pid };
    }
  }

  /**
   * Sends a message. Resolves when it is in the daemon's ring; with `confirm`, when it was delivered back.
   * The bytes must not change before that.
   */
  mcast(parts: readonly Uint8Array[], length: number, options: McastOptions): Promise<void> {
    try {
      assertAllowed(this.#state, 'mcast');
      assertSendable(length);
      if (options.confirm) return this.#sendConfirmed(parts, length, options);
      return this.#sender.send({ parts, length, guarantee: options.guarantee }, options.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Sends without waiting. False: not sent, for lack of room; onDrain() follows. */
  tryMcast(parts: readonly Uint8Array[], length: number, guarantee: number): boolean {
    assertAllowed(this.#state, 'mcast', 'tryMcast');
    if (length > this.maxAtomicMessageSize) {
      throw new CpgError(
        'CS_ERR_TOO_BIG',
        `tryMcast of ${length} bytes (at most ${this.maxAtomicMessageSize})`,
        {
          remedy: 'use mcast(): a larger message goes in fragments, whose replies must be awaited',
        },
      );
    }
    return this.#sender.trySend({ parts, length, guarantee });
  }

  /** Allocates a message of `size` bytes that is sent without a copy. */
  alloc(size: number): Buffer {
    assertAllowed(this.#state, 'query', 'alloc');
    assertSendable(size);
    return allocMessage(this.#transport, size);
  }

  /** Asks the daemon to finalize, ends the connection and settles everything pending. Idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#state = 'closed';
    const deadline = new Deadline('close', Math.min(CLOSE_GRACE_MS, this.#timeoutMs));
    // Requests keep their order, so the reply also means that the daemon took everything sent before.
    const finalized = this.#requests.ask('close', { type: 'finalize' }, 'finalize', deadline);
    await untilAborted(finalized, deadline.signal).catch((error: unknown) =>
      debug('finalize: %s', String(error)),
    );
    deadline.dispose();
    await this.#transport.close();
  }

  #enter(from: SessionState, to: SessionState): boolean {
    if (this.#state !== from) return false;
    debug('%s -> %s', from, to);
    this.#state = to;
    return true;
  }

  async #sendConfirmed(parts: readonly Uint8Array[], length: number, options: McastOptions): Promise<void> {
    if (this.#window.pending >= MAX_CONFIRMATIONS) throw tooManyConfirmations();
    const confirm = deferred<void>();
    // It may reject while the message is still being sent.
    confirm.promise.catch(() => undefined);
    const message: OutgoingMessage = { parts, length, guarantee: options.guarantee, confirm };
    this.#confirming++;
    try {
      // Sending has its own time limit, which restarts while a large message makes progress.
      await this.#sender.send(message, options.signal);
      await this.#requests.call('mcast with confirm', options.signal, (limit) => {
        limit.reason = 'not-confirmed';
        limit.remedy =
          'it was sent and may still be delivered; events must be read meanwhile (by dispatch, and by loops that go on)';
        return confirm.promise;
      });
    } finally {
      this.#confirming--;
    }
  }
}

async function collect<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

function assertSendable(length: number): void {
  if (length > MAX_MESSAGE_BYTES) {
    throw new CpgError('CS_ERR_TOO_BIG', `mcast of ${length} bytes (at most ${MAX_MESSAGE_BYTES})`);
  }
}

function tooManyConfirmations(): CpgError {
  return new CpgError('CS_ERR_TRY_AGAIN', `mcast: ${MAX_CONFIRMATIONS} confirmations are awaited already`, {
    remedy: 'await some of them before sending on',
  });
}
