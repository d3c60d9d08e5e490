/**
 * One handle on a daemon: its state, what it sends, and the replies. What arrives by itself is left to the
 * dispatcher.
 */
import { Reason } from '../codec/addresses';
import { groupBytes, groupText } from '../codec/groups';
import { MAX_ATOMIC_MESSAGE_BYTES, MAX_MESSAGE_BYTES } from '../codec/limits';
import {
  DELIVER_INITIAL_TOTEM_CONF,
  encodeRequest,
  FragmentType,
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
import type { CpgAddress } from '../events';
import { frameId } from '../codec/header';
import { connectTransport } from '../transport/connect';
import { isTransient } from '../transport/service-socket';
import type { Transport, TransportListener, TransportOptions } from '../transport/transport';
import { abortReason, Backoff, Deadline, listenForAbort, throwIfAborted, untilAborted } from './deadline';
import { deferred, type Deferred } from './deferred';
import { Fence } from './fence';
import { InFlight, MAX_CONFIRMATIONS } from './in-flight';
import { Identity } from './identity';
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

/** Snapshots of groups that a client may have open: the daemon keeps each until it is released. */
const MAX_ITERATIONS = 256;

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
  /** After tryMcast() returned false: it is worth calling again. */
  onDrain(): void;
  onClose(reason?: CpgError): void;
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

type SuccessfulReply<Type extends ResponseType> = Extract<CpgResponse, { type: Type; error: typeof CS_OK }>;

export class Session {
  readonly transport: Transport;
  /** The largest message that goes out in one frame: cpg_max_atomic_msgsize_get. */
  readonly maxAtomicMessageSize: number;
  readonly #identity: Identity;
  readonly #timeoutMs: number;
  readonly #outbox: Outbox;
  readonly #inFlight = new InFlight();
  readonly #fence: Fence;
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
  /** Snapshots that are open. */
  #iterations = 0;
  #stall: NodeJS.Timeout | undefined;
  #wantsDrain = false;
  /** Why everything fails since the connection ended; undefined before. */
  #endError: CpgError | undefined;
  #closing: Promise<void> | undefined;

  private constructor(transport: Transport, options: SessionOptions) {
    this.transport = transport;
    this.#identity = new Identity(options.pid, transport.clientPid);
    this.#timeoutMs = options.timeoutMs;
    this.maxAtomicMessageSize = Math.min(transport.maxFrameBytes - 1024, MAX_ATOMIC_MESSAGE_BYTES);
    this.#outbox = new Outbox(transport);
    this.#pace = new Pace(transport.eventCapacityBytes, () => this.#drain());
    this.#fence = new Fence(this.#jobHost, transport, this.#inFlight);
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

  /** A message of our own was delivered. */
  ownDelivered(message: Uint8Array): void {
    const wasLast = this.#inFlight.delivered(message);
    this.#pace.delivered(message.length);
    // A request may be on its way besides.
    if (wasLast && this.#awaiting === undefined) this.transport.noteAllTaken();
  }

  /** A fragment of our own was delivered: the end of a large message, or a fence. */
  ownFragmentDelivered(fragmentType: number, length: number): void {
    if (fragmentType === FragmentType.LAST) this.#inFlight.largeDelivered();
    else if (fragmentType === FragmentType.FIRST && length === 0) this.#inFlight.fenceDelivered();
  }

  /** A configuration change shows us among the members, whether or not the reply to our join was seen. */
  ownJoined(): void {
    this.#enter('joining', 'joined');
  }

  /** We stand in the left list of our group: nothing of ours will be delivered any more. */
  ownLeft(): void {
    if (!this.#enter('leaving', 'left')) this.#enter('joined', 'left');
    this.#inFlight.failAll(
      new CpgError('CS_ERR_INTERRUPT', 'this handle left the group before the message was delivered', {
        reason: 'left',
        remedy: 'connect again, join, and send again',
      }),
    );
  }

  async join(group: string | Uint8Array, initialTotemConfchg: boolean, signal?: AbortSignal): Promise<void> {
    assertAllowed(this.#state, 'join');
    const name = groupBytes(group, 'join');
    throwIfAborted(signal);
    this.#state = 'joining';
    this.#group = name;
    const flags = initialTotemConfchg ? DELIVER_INITIAL_TOTEM_CONF : 0;
    // The state follows the daemon's reply, also one that comes when the caller has given up.
    await this.#call('join', signal, (limit) =>
      this.#askToJoin(name, flags, limit).then(
        () => this.#enter('joining', 'joined'),
        (error: unknown) => {
          if (this.#enter('joining', 'unjoined')) this.#group = undefined;
          throw error;
        },
      ),
    );
  }

  /** Asks again with another pid while the one that is taken was ours to choose. */
  async #askToJoin(group: Uint8Array, flags: number, limit: Deadline): Promise<void> {
    for (;;) {
      try {
        await this.#ask('join', { type: 'join', group, pid: this.pid, flags }, 'join', limit);
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
        remedy: `leave ${JSON.stringify(groupText(joined))}, or call leave() without a name`,
      });
    }
    throwIfAborted(signal);
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
    const name = group === undefined ? this.#group : groupBytes(group, 'membership');
    if (name === undefined) {
      throw new CpgError('CS_ERR_INVALID_PARAM', 'membership: no group is given and none is joined', {
        reason: 'bad-argument',
        remedy: 'name a group',
      });
    }
    // Never membershipGet: a group of more members than its reply holds makes the daemon overrun its stack and abort.
    const rows = await this.#call('membership', signal, (limit) =>
      collect(this.#iterate('membership', IterationType.ONE_GROUP, name, limit.signal)),
    );
    // The daemon puts the first member first and each further one right behind it.
    const [first, ...others] = rows;
    const members = first === undefined ? [] : [first, ...others.reverse()];
    return members.map(({ nodeId, pid }) => ({ nodeId, pid, reason: Reason.UNDEFINED }));
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
    for await (const row of this.#iterate('groups', iterationType, group, signal)) {
      // Without members the daemon leaves these two unset.
      const { nodeId, pid } = iterationType === IterationType.NAME_ONLY ? { nodeId: 0, pid: 0 } : row;
      yield { group: groupText(row.group), nodeId, pid };
    }
  }

  async *#iterate(
    what: string,
    iterationType: number,
    group: Uint8Array,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<SuccessfulReply<'iterationNext'>, void> {
    if (this.#iterations >= MAX_ITERATIONS) throw tooManyIterations(what);
    this.#iterations++;
    try {
      const handle = await this.#beginIteration(what, iterationType, group, signal);
      let settled = false;
      try {
        for (;;) {
          const row = await this.#nextRow(what, handle, signal);
          if (row === undefined) break;
          settled = true;
          yield row;
          settled = false;
        }
        settled = true;
      } finally {
        // The caller of a request that failed, on a daemon that hangs perhaps, does not wait for another one.
        const released = this.#releaseIteration(handle);
        if (settled) await released;
      }
    } finally {
      this.#iterations--;
    }
  }

  async #beginIteration(
    what: string,
    iterationType: number,
    group: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<bigint> {
    const begin: CpgRequest = { type: 'iterationInitialize', group, iterationType };
    let begun: Promise<SuccessfulReply<'iterationInitialize'>> | undefined;
    try {
      const { handle } = await this.#call(what, signal, (limit) => {
        begun = this.#ask(what, begin, 'iterationInitialize', limit);
        return begun;
      });
      return handle;
    } catch (error) {
      // A reply that comes too late has made a snapshot all the same.
      void begun?.then(
        (late) => this.#releaseIteration(late.handle),
        () => undefined,
      );
      throw error;
    }
  }

  /** Undefined after the last row. */
  async #nextRow(
    what: string,
    handle: bigint,
    signal: AbortSignal | undefined,
  ): Promise<SuccessfulReply<'iterationNext'> | undefined> {
    try {
      return await this.#query(what, { type: 'iterationNext', handle }, 'iterationNext', signal);
    } catch (error) {
      if (isCpgError(error) && error.code === 'CS_ERR_NO_SECTIONS') return undefined;
      throw error;
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
      if (options.confirm && this.#inFlight.pending >= MAX_CONFIRMATIONS) throw tooManyConfirmations();
      if (!options.confirm)
        return this.#send({ parts, length, guarantee: options.guarantee }, options.signal);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#sendConfirmed(parts, length, options);
  }

  /** Sends without waiting. False: it was not sent, since there is no room now; onDrain() follows. */
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
    this.#assertGoesOn();
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
    throwIfAborted(signal);
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
        limit.reason = 'not-confirmed';
        limit.remedy =
          'it was sent and may still be delivered; events must be read meanwhile (by dispatch, and by loops that go on)';
        return confirm.promise;
      });
    } finally {
      this.#confirming--;
    }
  }

  #send(message: OutgoingMessage, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    if (message.length > this.maxAtomicMessageSize) return this.#sendFragmented(message, signal);
    if (this.#outbox.empty && this.#stage(message)) {
      const posted = this.#messageStaged(message);
      return signal === undefined ? posted : untilAborted(posted, signal);
    }
    this.#assertGoesOn();
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
    const onAbort = (): void => this.#cancel(job, abortReason(signal!));
    if (signal !== undefined) listenForAbort(signal, onAbort);
    try {
      this.#add(job);
      await sent;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Throws why the connection ended, should it have done so under a call that was allowed when it began. */
  #assertGoesOn(): void {
    if (this.#endError !== undefined) throw this.#endError;
  }

  #add(job: Job): void {
    this.#assertGoesOn();
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
    return (
      this.#fence.passes(message.confirm !== undefined) &&
      this.#pace.allows(message.length) &&
      stageMessage(this.transport, message)
    );
  }

  /** Notes a message that the transport took over. */
  #noteStaged(message: OutgoingMessage): void {
    this.#pace.sent(message.length);
    this.#inFlight.sent(message.parts, message.length, message.confirm);
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
    largeSent: ({ confirm }) => this.#inFlight.largeSent(confirm),
    largeRefused: () => this.#inFlight.largeRefused(),
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
    void this.transport.close(reason);
  }

  #onClose(reason?: CpgError): void {
    if (this.#ended) return;
    this.#state = 'closed';
    this.#disarmStall();
    this.#pace.stop();
    this.#fence.fail();
    const error = reason ?? closedError();
    this.#endError = error;
    const awaiting = this.#awaiting;
    this.#awaiting = undefined;
    awaiting?.fail(error);
    this.#outbox.failAll(error);
    this.#batch?.reject(error);
    this.#batch = undefined;
    this.#inFlight.failAll(error);
    // Who waits to call tryMcast() again calls it, and learns of the end.
    this.#drain();
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
      new CpgError('CS_ERR_TIMEOUT', what, {
        reason: 'sent-later',
        remedy: `it is sent once the daemon goes on; ${look}`,
      }),
    );
    this.#batch = undefined;
    this.#outbox.failMessages(
      new CpgError('CS_ERR_TIMEOUT', what, { reason: 'not-sent', remedy: `nothing of it was sent; ${look}` }),
    );
    this.#drain();
    this.#armStall();
  }
}

async function collect<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

function tooManyIterations(what: string): CpgError {
  return new CpgError('CS_ERR_NO_RESOURCES', `${what}: ${MAX_ITERATIONS} loops over groups() are open`, {
    remedy: 'run loops to their end, or leave them: each holds a snapshot in the daemon',
  });
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

function closedError(): CpgError {
  return new CpgError('CS_ERR_BAD_HANDLE', 'the handle was closed');
}
