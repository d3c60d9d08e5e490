/**
 * One handle on a daemon: its state, what it sends, and the replies. What arrives by itself is left to the
 * dispatcher.
 */
import type { CpgAddress } from '../codec/addresses';
import { groupBytes, groupText } from '../codec/groups';
import { MAX_ATOMIC_MESSAGE_BYTES, MAX_MESSAGE_BYTES } from '../codec/limits';
import {
  DELIVER_INITIAL_TOTEM_CONF,
  encodeRequest,
  IterationType,
  MCAST_HEADER_BYTES,
  PARTIAL_MCAST_HEADER_BYTES,
  RequestId,
  type CpgRequest,
} from '../codec/requests';
import {
  decodeResponse,
  RESPONSE_ID_OF,
  ResponseId,
  type CpgResponse,
  type ResponseType,
} from '../codec/responses';
import { debugMessage, debugSession as debug } from '../debug';
import { CpgError, CS_OK, isCpgError } from '../errors';
import { frameId } from '../codec/header';
import { connectTransport } from '../transport/connect';
import { isTransient } from '../transport/service-socket';
import type { Transport, TransportListener, TransportOptions } from '../transport/transport';
import { Confirmations } from './confirmations';
import { Backoff, Deadline, listenForAbort, untilAborted } from './deadline';
import { deferred, type Deferred } from './deferred';
import {
  allocMessage,
  FragmentedJob,
  MessageJob,
  RequestJob,
  stageMessage,
  type AwaitingReply,
  type JobHost,
  type OutgoingMessage,
} from './jobs';
import { Nudge } from './nudge';
import { Outbox, type Job } from './outbox';
import { Pace } from './pace';
import { assertAllowed, type SessionState } from './states';

/** How long close() waits for what is under way and for the daemon's reply to finalize. */
const CLOSE_GRACE_MS = 1000;

const DONE = Promise.resolve();

export interface SessionOptions {
  address: string | undefined;
  timeoutMs: number;
  signal: AbortSignal | undefined;
  pid: number | undefined;
  transport?: TransportOptions;
}

export interface McastOptions {
  guarantee: number;
  signal: AbortSignal | undefined;
  confirm: boolean;
}

/** What the layers above are told. */
export interface SessionObserver {
  onEvents(): void;
  /** After tryMcast() said false: it may say true again. */
  onDrain(): void;
  onClose(reason?: CpgError): void;
}

/** One row of an iteration: `cpg_iteration_description_t`. */
export interface GroupEntry {
  group: string | Uint8Array;
  nodeId: number;
  pid: number;
}

type SuccessfulReply<Type extends ResponseType> = Extract<CpgResponse, { type: Type; error: typeof CS_OK }>;

export class Session {
  readonly transport: Transport;
  /** The pid announced on join. */
  readonly pid: number;
  /** The largest message that goes out in one frame: cpg_max_atomic_msgsize_get. */
  readonly maxAtomicMessageSize: number;
  readonly #timeoutMs: number;
  readonly #outbox: Outbox;
  readonly #confirmations = new Confirmations();
  readonly #pace: Pace;
  readonly #nudge: Nudge;
  #state: SessionState = 'unjoined';
  #group: Uint8Array | undefined;
  #nodeId = 0;
  #observer: SessionObserver | undefined;
  #awaiting: AwaitingReply | undefined;
  /** Calls that wait for a confirmation. */
  #confirming = 0;
  /** Promise of the messages that are staged and not posted. */
  #batch: Deferred<void> | undefined;
  /** Messages handed to the transport, those in fragments not among them, and messages that came back. */
  #ownSent = 0;
  #ownDelivered = 0;
  #stall: NodeJS.Timeout | undefined;
  #wantsDrain = false;
  /** Why everything fails since the connection ended; undefined before. */
  #endError: CpgError | undefined;
  #closing: Promise<void> | undefined;

  private constructor(transport: Transport, options: SessionOptions) {
    this.transport = transport;
    this.pid = options.pid ?? transport.clientPid;
    this.#timeoutMs = options.timeoutMs;
    this.maxAtomicMessageSize = Math.min(transport.maxFrameBytes - 1024, MAX_ATOMIC_MESSAGE_BYTES);
    this.#outbox = new Outbox(transport);
    this.#pace = new Pace(transport.eventCapacityBytes, () => this.#drain());
    this.#nudge = new Nudge(transport, this.#jobHost);
    transport.listen(this.#listener);
  }

  /**
   * Connects, and asks the daemon for its nodeid so that a mute one is found at once. A daemon that is still
   * starting is asked again until the deadline.
   */
  static async connect(options: SessionOptions): Promise<Session> {
    const deadline = new Deadline('connect', options.timeoutMs, options.signal);
    try {
      const transport = await Session.#connectTransport(options, deadline);
      const session = new Session(transport, options);
      try {
        const asked = session.#ask('connect', { type: 'localGet' }, 'localGet', deadline);
        session.#nodeId = (await untilAborted(asked, deadline.signal)).nodeId;
        return session;
      } catch (error) {
        await session.transport.close();
        throw error;
      }
    } finally {
      deadline.dispose();
    }
  }

  static async #connectTransport(
    { address, transport }: SessionOptions,
    limit: Deadline,
  ): Promise<Transport> {
    const backoff = new Backoff();
    for (;;) {
      try {
        return await connectTransport(address, limit.signal, transport);
      } catch (error) {
        if (!isTransient(error)) throw error;
        debug('connect: %s', error.message);
        limit.lastAnswer = error;
      }
      await backoff.pause(limit.signal);
    }
  }

  get state(): SessionState {
    return this.#state;
  }

  /** The group joined or being joined; undefined before. */
  get group(): Uint8Array | undefined {
    return this.#group;
  }

  get nodeId(): number {
    return this.#nodeId;
  }

  /** Somebody waits for one of our own messages to come back. */
  get awaitsConfirmation(): boolean {
    return this.#confirming > 0;
  }

  get #ended(): boolean {
    return this.#endError !== undefined;
  }

  observe(observer: SessionObserver): void {
    this.#observer = observer;
    // What came before; later, so that the observer's own users can begin to listen.
    if (this.transport.pendingEvents > 0) setImmediate(() => observer.onEvents());
  }

  /** True for our own address as it stands in events. */
  isOwn(nodeId: number, pid: number): boolean {
    return pid === this.pid && nodeId === this.#nodeId;
  }

  /** A message of our own was delivered; one that came in fragments was not counted when it was sent. */
  ownDelivered(message: Uint8Array, inFragments: boolean): void {
    this.#confirmations.delivered(message);
    if (inFragments) return;
    this.#pace.delivered(message.length);
    // Own messages come back in the order in which they were sent, so equal numbers mean that all were taken;
    // should the daemon drop one, they never meet again. A request may be on its way besides.
    if (++this.#ownDelivered === this.#ownSent && this.#awaiting === undefined) this.transport.noteAllTaken();
  }

  /** We stand in the left list of our group: nothing of ours will be delivered any more. */
  ownLeft(): void {
    this.#confirmations.failAll(
      new CpgError('CS_ERR_INTERRUPT', 'this handle left the group before the message was delivered', {
        remedy: 'connect again, join, and send again',
      }),
    );
  }

  async join(group: string | Uint8Array, initialTotemConfchg: boolean, signal?: AbortSignal): Promise<void> {
    assertAllowed(this.#state, 'join');
    const name = groupBytes(group);
    signal?.throwIfAborted();
    this.#state = 'joining';
    this.#group = name;
    const flags = initialTotemConfchg ? DELIVER_INITIAL_TOTEM_CONF : 0;
    const request: CpgRequest = { type: 'join', group: name, pid: this.pid, flags };
    // The state follows the daemon's reply, also one that comes when the caller has given up.
    await this.#call('join', signal, (limit) =>
      this.#ask('join', request, 'join', limit).then(
        () => this.#enter('joining', 'joined'),
        (error: unknown) => {
          if (this.#enter('joining', 'unjoined')) this.#group = undefined;
          throw error;
        },
      ),
    );
  }

  async leave(group?: string | Uint8Array, signal?: AbortSignal): Promise<void> {
    assertAllowed(this.#state, 'leave');
    const joined = this.#group!;
    if (group !== undefined && Buffer.compare(groupBytes(group), joined) !== 0) {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'leave: this handle has joined another group', {
        remedy: `leave ${JSON.stringify(groupText(joined))}, or call leave() without a name`,
      });
    }
    signal?.throwIfAborted();
    this.#state = 'leaving';
    await this.#call('leave', signal, (limit) =>
      this.#ask('leave', { type: 'leave', group: joined, pid: this.pid }, 'leave', limit).then(
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
    const name = group === undefined ? this.#group : groupBytes(group);
    if (name === undefined) {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'membership: no group is given and none is joined', {
        remedy: 'name a group',
      });
    }
    const request: CpgRequest = { type: 'membershipGet', group: name };
    return (await this.#query('membership', request, 'membershipGet', signal)).members;
  }

  async localNodeId(signal?: AbortSignal): Promise<number> {
    assertAllowed(this.#state, 'query', 'localNodeId');
    return (await this.#query('localNodeId', { type: 'localGet' }, 'localGet', signal)).nodeId;
  }

  /** The daemon's snapshot of groups, row by row; it is released when the loop over it ends. */
  async *groups(
    iterationType: number,
    group: Uint8Array,
    signal?: AbortSignal,
  ): AsyncGenerator<GroupEntry, void> {
    assertAllowed(this.#state, 'query', 'groups');
    const begin: CpgRequest = { type: 'iterationInitialize', group, iterationType };
    let begun: Promise<SuccessfulReply<'iterationInitialize'>> | undefined;
    const { handle } = await this.#call('groups', signal, (limit) => {
      begun = this.#ask('groups', begin, 'iterationInitialize', limit);
      return begun;
    }).catch((error: unknown) => {
      // A reply that comes too late has made a snapshot all the same.
      void begun?.then(
        (late) => this.#releaseIteration(late.handle),
        () => undefined,
      );
      throw error;
    });
    try {
      for (;;) {
        const next = this.#query('groups', { type: 'iterationNext', handle }, 'iterationNext', signal);
        const row = await next.catch((error: unknown) => {
          if (isCpgError(error) && error.code === 'CS_ERR_NO_SECTIONS') return undefined;
          throw error;
        });
        if (row === undefined) return;
        const namesOnly = iterationType === IterationType.NAME_ONLY;
        // Without members the daemon leaves these two unset.
        const address = namesOnly ? { nodeId: 0, pid: 0 } : { nodeId: row.nodeId, pid: row.pid };
        yield { group: groupText(row.group), ...address };
      }
    } finally {
      await this.#releaseIteration(handle);
    }
  }

  async #releaseIteration(handle: bigint): Promise<void> {
    if (this.#ended) return;
    const release: CpgRequest = { type: 'iterationFinalize', handle };
    await this.#query('groups', release, 'iterationFinalize').catch((error: unknown) =>
      debug('iteration %s: %s', handle, String(error)),
    );
  }

  /**
   * Sends a message. Resolves when the daemon's ring has it; with `confirm`, when it was delivered back.
   * The bytes must not change before that.
   */
  mcast(parts: readonly Uint8Array[], length: number, options: McastOptions): Promise<void> {
    try {
      assertAllowed(this.#state, 'mcast');
      assertSendable(length);
      if (!options.confirm)
        return this.#send({ parts, length, guarantee: options.guarantee }, options.signal);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#sendConfirmed(parts, length, options);
  }

  /** Sends without waiting: false when the daemon's ring has no room now, and onDrain() follows. */
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
    const message = { parts, length, guarantee };
    if (this.#outbox.empty && this.#stage(message)) {
      // Should the connection have ended with that, 'close' tells.
      this.#noteStaged(message);
      return true;
    }
    this.#wantsDrain = true;
    return false;
  }

  /** Memory for a message of `size` bytes that goes out without a copy. */
  alloc(size: number): Buffer {
    assertAllowed(this.#state, 'query', 'alloc');
    assertSendable(size);
    return allocMessage(this.transport, size);
  }

  /** Asks the daemon to finalize, ends the connection and settles everything pending. Can be called again. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#state = 'closed';
    if (!this.#ended) {
      const deadline = new Deadline('close', Math.min(CLOSE_GRACE_MS, this.#timeoutMs));
      // Requests keep their order, so the reply also says that everything sent before was taken.
      const finalized = this.#ask('close', { type: 'finalize' }, 'finalize', deadline);
      await untilAborted(finalized, deadline.signal).catch((error: unknown) =>
        debug('finalize: %s', String(error)),
      );
      deadline.dispose();
    }
    await this.transport.close();
  }

  #enter(from: SessionState, to: SessionState): boolean {
    if (this.#state !== from) return false;
    debug('%s -> %s', from, to);
    this.#state = to;
    return true;
  }

  /** A request that changes nothing of ours, with the deadline and signal of its call. */
  #query<Type extends ResponseType>(
    what: string,
    request: CpgRequest,
    expected: Type,
    signal?: AbortSignal,
  ): Promise<SuccessfulReply<Type>> {
    return this.#call(what, signal, (limit) => this.#ask(what, request, expected, limit));
  }

  async #call<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (limit: Deadline) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted();
    const deadline = new Deadline(what, this.#timeoutMs, signal);
    try {
      return await untilAborted(work(deadline), deadline.signal);
    } finally {
      deadline.dispose();
    }
  }

  /**
   * One request until it has an answer: CS_ERR_TRY_AGAIN and CS_ERR_BUSY are asked again after a pause, any
   * other error is thrown. A request that was sent is waited for even after `limit`, since its reply comes.
   */
  async #ask<Type extends ResponseType>(
    what: string,
    request: CpgRequest,
    expected: Type,
    limit: Deadline,
  ): Promise<SuccessfulReply<Type>> {
    const backoff = new Backoff();
    for (;;) {
      const reply = await this.#request(request, limit.signal);
      if (reply.error === CS_OK) {
        if (reply.type !== expected) throw this.#unexpected(reply, expected);
        return reply as SuccessfulReply<Type>;
      }
      const refusal = CpgError.fromReply(reply.error, what);
      if (refusal.code !== 'CS_ERR_TRY_AGAIN' && refusal.code !== 'CS_ERR_BUSY') throw refusal;
      debug('%s', refusal.message);
      limit.lastAnswer = refusal;
      await backoff.pause(limit.signal);
    }
  }

  async #request(request: CpgRequest, limit: AbortSignal): Promise<CpgResponse> {
    limit.throwIfAborted();
    debugMessage('>', request);
    const job = new RequestJob(this.#jobHost, encodeRequest(request), RequestId[request.type]);
    const onAbort = (): void => {
      if (!job.started) this.#cancel(job, limit.reason as Error);
    };
    limit.addEventListener('abort', onAbort);
    try {
      this.#add(job);
      return await job.reply;
    } finally {
      limit.removeEventListener('abort', onAbort);
    }
  }

  async #sendConfirmed(parts: readonly Uint8Array[], length: number, options: McastOptions): Promise<void> {
    const confirm = deferred<void>();
    // It may fail while we still wait for the message to be sent.
    confirm.promise.catch(() => undefined);
    // Sending has a limit of its own, which a large message that makes progress does not meet.
    await this.#send({ parts, length, guarantee: options.guarantee, confirm }, options.signal);
    this.#confirming++;
    try {
      // Reading may have stopped because a loop was full.
      this.#observer?.onEvents();
      await this.#call('mcast with confirm', options.signal, (limit) => {
        limit.remedy =
          'it was sent and may still be delivered; events must be read meanwhile (by dispatch, and by loops that go on)';
        return confirm.promise;
      });
    } finally {
      this.#confirming--;
    }
  }

  #send(message: OutgoingMessage, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (message.length > this.maxAtomicMessageSize) return this.#sendFragmented(message, signal);
    if (this.#outbox.empty && this.#stage(message)) {
      const posted = this.#messageStaged(message);
      return signal === undefined ? posted : untilAborted(posted, signal);
    }
    if (this.#ended) throw closedError();
    const job = new MessageJob(this.#jobHost, message);
    const sent = this.#addAbortable(job, job.sent, signal);
    // Once it is staged, aborting ends only the waiting.
    return signal === undefined ? sent : untilAborted(sent, signal);
  }

  async #sendFragmented(message: OutgoingMessage, signal: AbortSignal | undefined): Promise<void> {
    // Each fragment the daemon takes gives the message new time.
    const deadline = new Deadline(`mcast of ${message.length} bytes`, this.#timeoutMs, signal);
    const fragmentBytes = this.maxAtomicMessageSize - (PARTIAL_MCAST_HEADER_BYTES - MCAST_HEADER_BYTES);
    const job = new FragmentedJob(this.#jobHost, message, fragmentBytes, () => deadline.refresh());
    try {
      await this.#addAbortable(job, job.sent, deadline.signal);
    } finally {
      deadline.dispose();
    }
  }

  async #addAbortable(job: Job, sent: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const onAbort = (): void => this.#cancel(job, signal?.reason as Error);
    if (signal !== undefined) listenForAbort(signal, onAbort);
    try {
      this.#add(job);
      await sent;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #add(job: Job): void {
    if (this.#ended) throw closedError();
    this.#outbox.add(job);
    this.#armStall();
  }

  #cancel(job: Job, reason: Error): void {
    job.cancelled = true;
    job.fail(reason);
    // Later, because the same signal may be about to cancel what comes next.
    queueMicrotask(() => {
      this.#drain();
      if (!this.#waiting) this.#disarmStall();
    });
  }

  #drain(): void {
    this.#outbox.drain();
    if (this.#wantsDrain && this.#outbox.empty) {
      this.#wantsDrain = false;
      this.#observer?.onDrain();
    }
    this.#nudge.consider();
  }

  // ---- what jobs need ------------------------------------------------------------------------------------

  /** Hands a message to the transport, if there is room and it is not to be held back. */
  #stage(message: OutgoingMessage): boolean {
    return this.#pace.allows(message.length) && stageMessage(this.transport, message);
  }

  /** Notes a message that the transport took over. */
  #noteStaged(message: OutgoingMessage): void {
    this.#ownSent++;
    this.#pace.sent(message.length);
    this.#confirmations.record(message.parts, message.length, message.confirm);
  }

  /** As #noteStaged(); the promise says that the daemon's ring has the message. */
  #messageStaged(message: OutgoingMessage): Promise<void> {
    this.#noteStaged(message);
    if (this.#endError !== undefined) {
      // The connection ended with that. Its sender may have been told already.
      const failed = Promise.reject(this.#endError);
      failed.catch(() => undefined);
      return failed;
    }
    if (this.transport.staged === 0) return DONE;
    if (this.#batch === undefined) {
      this.#batch = deferred<void>();
      this.#armStall();
    }
    return this.#batch.promise;
  }

  readonly #jobHost: JobHost = {
    claimReply: (request) => {
      if (this.#awaiting !== undefined) return false;
      this.#awaiting = request;
      return true;
    },
    releaseReply: () => {
      this.#awaiting = undefined;
    },
    replyExpected: () => {
      // The connection may have ended while the request was staged.
      if (this.#awaiting !== undefined) this.transport.expectResponse();
    },
    stageMessage: (message) => this.#stage(message),
    messageStaged: (message) => this.#messageStaged(message),
    expectOwn: (message) => {
      const recorded = this.#confirmations.record(message.parts, message.length, message.confirm);
      return { undo: () => this.#confirmations.withdraw(recorded) };
    },
    resume: () => this.#drain(),
  };

  // ---- what the transport tells --------------------------------------------------------------------------

  readonly #listener: TransportListener = {
    onEvents: () => this.#observer?.onEvents(),
    onResponse: (frame) => this.#onResponse(frame),
    onRoom: () => this.#drain(),
    onPosted: () => {
      this.#batch?.resolve();
      this.#batch = undefined;
      this.#moved();
    },
    onRingEmptied: () => this.#nudge.consider(),
    onClose: (reason) => this.#onClose(reason),
  };

  #onResponse(frame: Buffer): void {
    const awaiting = this.#awaiting;
    this.#awaiting = undefined;
    try {
      const reply = decodeResponse(frame);
      debugMessage('<', reply);
      // A request the daemon could not take is answered with id 0 and an error, whatever it was.
      const refused = frameId(frame) === ResponseId.join && reply.error !== CS_OK;
      if (
        awaiting === undefined ||
        (!refused && ResponseId[reply.type] !== RESPONSE_ID_OF[awaiting.requestId])
      ) {
        throw this.#unexpected(reply, 'the one awaited');
      }
      awaiting.onReply(reply);
    } catch (error) {
      // Replies have no number: once one does not fit, none can be trusted.
      const reason = isCpgError(error)
        ? error
        : new CpgError('CS_ERR_LIBRARY', 'a reply failed', { cause: error });
      awaiting?.fail(reason);
      this.#terminate(reason);
      return;
    }
    this.#drain();
    this.#moved();
  }

  #unexpected(reply: CpgResponse, expected: string): CpgError {
    return new CpgError(
      'CS_ERR_MESSAGE_ERROR',
      `the daemon answered with ${reply.type} (error ${reply.error}), not with ${expected}`,
    );
  }

  /** Ends the connection because it cannot be trusted any more. */
  #terminate(reason: CpgError): void {
    this.#onClose(reason);
    void this.transport.close();
  }

  #onClose(reason?: CpgError): void {
    if (this.#ended) return;
    this.#state = 'closed';
    this.#disarmStall();
    this.#pace.stop();
    const error = reason ?? closedError();
    this.#endError = error;
    const awaiting = this.#awaiting;
    this.#awaiting = undefined;
    awaiting?.fail(error);
    this.#outbox.failAll(error);
    this.#batch?.reject(error);
    this.#batch = undefined;
    this.#confirmations.failAll(error);
    this.#observer?.onClose(reason);
  }

  // ---- a daemon that takes nothing -----------------------------------------------------------------------

  /** One timer for all that waits: it runs while something does, and anew whenever the daemon takes something. */
  #armStall(): void {
    if (this.#waiting && !this.#ended) this.#stall ??= setTimeout(() => this.#onStall(), this.#timeoutMs);
  }

  get #waiting(): boolean {
    return this.#batch !== undefined || !this.#outbox.empty;
  }

  #moved(): void {
    if (this.#waiting) this.#stall?.refresh();
    else this.#disarmStall();
  }

  #disarmStall(): void {
    clearTimeout(this.#stall);
    this.#stall = undefined;
  }

  /** Requests have deadlines of their own and wait on. */
  #onStall(): void {
    this.#stall = undefined;
    if (!this.#waiting) return;
    const what = `mcast: the daemon took nothing for ${this.#timeoutMs} ms`;
    const look = 'see whether the node is overloaded, has lost its cluster, or is stopped';
    this.#batch?.reject(
      new CpgError('CS_ERR_TIMEOUT', what, { remedy: `it is sent once the daemon goes on; ${look}` }),
    );
    this.#batch = undefined;
    this.#outbox.failMessages(
      new CpgError('CS_ERR_TIMEOUT', what, { remedy: `nothing of it was sent; ${look}` }),
    );
    this.#drain();
    this.#armStall();
  }
}

function assertSendable(length: number): void {
  if (length > MAX_MESSAGE_BYTES) {
    throw new CpgError('CS_ERR_TOO_BIG', `mcast of ${length} bytes (at most ${MAX_MESSAGE_BYTES})`);
  }
}

function closedError(): CpgError {
  return new CpgError('CS_ERR_BAD_HANDLE', 'the handle was closed');
}
