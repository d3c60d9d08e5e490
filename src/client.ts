/** The public client: a thin facade over the session (what we ask) and the dispatcher (what arrives). */
import { EventEmitter } from 'node:events';
import { types } from 'node:util';
import {
  abortSignal,
  allAre,
  boolean,
  check,
  id,
  invalid,
  kind,
  number,
  oneOf,
  readOptions,
  whole,
  type OptionKinds,
} from './arguments';
import type { CpgAddress } from './codec/addresses';
import { GROUP, groupBytes, groupText } from './codec/groups';
import { MAX_MESSAGE_BYTES } from './codec/limits';
import { Guarantee, IterationType } from './codec/requests';
import { debugDispatcher as debug } from './debug';
import {
  Dispatcher,
  type DispatcherOptions,
  type DispatchFlag,
  type DispatchMode,
} from './dispatcher/dispatcher';
import type { ConfchgEvent, CpgEvent, DeliverEvent, TotemConfchgEvent } from './dispatcher/events';
import { asError, isCpgError, type CpgError } from './errors';
import { openTransport } from './session/connect';
import { Deadline, MAX_TIMEOUT_MS } from './session/deadline';
import { Session, type GroupEntry, type McastOptions, type SessionOptions } from './session/session';
import type { SessionState } from './session/states';
import { ADDRESS } from './transport/address';
import type { Transport } from './transport/transport';

const DEFAULT_TIMEOUT_MS = 10_000;
export const MAX_BUSY_POLL_US = 1_000_000;
const MAX_REST_MS = 1000;
const DEFAULT_REST_MS = 5;
/** Room for the largest message of 32 senders at once. */
const DEFAULT_MAX_REASSEMBLY_BYTES = 32 * MAX_MESSAGE_BYTES;

/**
 * Text is sent as UTF-8, any view of memory (Buffer, Uint8Array, DataView ...) as the bytes it shows; several pieces
 * are sent as one message.
 */
export type Message = string | NodeJS.ArrayBufferView | readonly NodeJS.ArrayBufferView[];

export interface ConnectOptions {
  /** '@name' is an abstract socket, '/path' one in the filesystem. Default: CPG_ADDRESS, else '@cpg'. */
  address?: string;
  /** Milliseconds that connecting, and every later request, may take. Default 10,000. */
  timeoutMs?: number;
  /** Gives up connecting; has no effect later. */
  signal?: AbortSignal;
  /** 'manual' leaves events in the daemon's ring until dispatch() is called. Default 'auto'. */
  dispatch?: DispatchMode;
  /**
   * The pid announced on join; with the node id it must be unique in the group. Default: the pid under which the
   * daemon sees this process. A daemon in another pid namespace may see none (containers of one pod): then each
   * handle draws a random one above 2^22, where real pids end, and another one if that is taken.
   */
  pid?: number;
  /**
   * Messages handed to 'deliver' listeners are lent for the duration of the call instead of copied: whoever
   * keeps one finds it empty (length 0) afterwards. Loops get copies all the same. Default false.
   */
  lend?: boolean;
  /**
   * Microseconds (up to 1,000,000) for which the client looks for the next event instead of sleeping, after
   * it sent or got something: less latency for more processor time. Default 0.
   */
  busyPollUs?: number;
  /**
   * Milliseconds (0 to 1000) for which messages may gather before the next look, while many come and this
   * client sends nothing: less processor time for up to that much latency. Default 5; 0 to look at once.
   * Not used with busyPollUs or manual dispatch.
   */
  restMs?: number;
  /**
   * Map the rings into memory, as libqb does, instead of reading and writing their files: about half the
   * latency, and more of large messages. Needs the package koffi (which comes compiled) beside this one; without
   * it connect() rejects with CS_ERR_NOT_SUPPORTED. Files with holes, which an embedded server makes, are read and
   * written all the same. Default false.
   */
  mapped?: boolean;
  /**
   * Bytes received of unfinished messages (over 1 MiB, they arrive in fragments), all senders together. With more,
   * the connection ends with CS_ERR_NO_MEMORY: dropping one message would let members disagree. It only protects
   * the process, so it should never be reached; a sender that gives up in the middle leaves up to 64 MiB
   * until its next large message or its leave. Default 2 GiB, which is 32 senders with 64 MiB each.
   *
   * Members with the same history deliver the same messages, with two exceptions: who joined between the first and the
   * last fragment of a message does not get it, unless the last one holds all of it; and messages over 64 MiB, which
   * libcpg can send, are dropped and reported by 'error'.
   */
  maxReassemblyBytes?: number;
}

export interface JoinOptions {
  /** Ask for one totemConfchg with the present ring: CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF. */
  initialTotemConfchg?: boolean;
  signal?: AbortSignal;
}

type GuaranteeName = keyof typeof Guarantee;

export interface MessageOptions {
  /** cpg_guarantee_t, by name or number. The daemon delivers everything in agreed order, whatever is asked. */
  guarantee?: GuaranteeName | (typeof Guarantee)[GuaranteeName];
  /** Ends the waiting. A message on its way into the ring may be sent all the same; one that waits is not. */
  signal?: AbortSignal;
  /**
   * Resolve only when the message was delivered back to us in total order. Events must be read for that: dispatch
   * them, or let loops over them go on.
   */
  confirm?: boolean;
}

/** The events of a client and what their listeners get. */
export interface CpgClientEvents {
  confchg: [event: ConfchgEvent];
  deliver: [event: DeliverEvent];
  totemConfchg: [event: TotemConfchgEvent];
  /** After tryMcast() returned false: call it again. It throws now if the connection ended meanwhile. */
  drain: [];
  /** The connection ended; `reason` is absent after close(). */
  close: [reason?: CpgError];
  /** Trouble that does not end the connection; without a listener it is a process warning. */
  error: [error: Error];
}

interface GroupsOptions {
  group?: string | Uint8Array;
  namesOnly?: boolean;
  signal?: AbortSignal;
}

// What each call takes: see arguments.ts.
export const CONNECT_OPTIONS: OptionKinds<ConnectOptions> = {
  address: ADDRESS,
  timeoutMs: kind('a positive number of milliseconds', (value) => typeof value === 'number' && value > 0),
  signal: abortSignal,
  dispatch: oneOf('auto', 'manual'),
  pid: id,
  lend: boolean,
  busyPollUs: number(0, MAX_BUSY_POLL_US, 'microseconds'),
  restMs: number(0, MAX_REST_MS, 'milliseconds'),
  mapped: boolean,
  maxReassemblyBytes: kind('a number of bytes above 0', (value) => typeof value === 'number' && value > 0),
};
const SIGNAL_OPTIONS: OptionKinds<{ signal?: AbortSignal }> = { signal: abortSignal };
const JOIN_OPTIONS: OptionKinds<JoinOptions> = { initialTotemConfchg: boolean, signal: abortSignal };
const GROUPS_OPTIONS: OptionKinds<GroupsOptions> = { group: GROUP, namesOnly: boolean, signal: abortSignal };
const MESSAGE_OPTIONS: OptionKinds<MessageOptions> = {
  guarantee: oneOf<NonNullable<MessageOptions['guarantee']>>(
    ...(Object.keys(Guarantee) as GuaranteeName[]),
    ...Object.values(Guarantee),
  ),
  signal: abortSignal,
  confirm: boolean,
};
const SIZE = whole(0);
const DISPATCH_FLAG = oneOf('one', 'all', 'blocking', 'oneNonblocking');

/**
 * Connects to a corosync daemon: cpg_initialize.
 *
 * Rejects with CpgError: CS_ERR_LIBRARY when nobody listens there, CS_ERR_ACCESS when the daemon does not
 * allow this user, CS_ERR_TIMEOUT, CS_ERR_NOT_SUPPORTED for a daemon with `qb_ipc_type: socket` and for `mapped`
 * without koffi, CS_ERR_INVALID_PARAM for bad options; or with the reason of `signal`.
 */
export async function connect(options?: ConnectOptions): Promise<CpgClient> {
  const {
    address,
    timeoutMs = DEFAULT_TIMEOUT_MS,
    signal,
    dispatch = 'auto',
    pid,
    lend = false,
    busyPollUs = 0,
    restMs = DEFAULT_REST_MS,
    mapped = false,
    maxReassemblyBytes = DEFAULT_MAX_REASSEMBLY_BYTES,
  } = readOptions('connect', options, CONNECT_OPTIONS);
  const limitMs = Math.min(timeoutMs, MAX_TIMEOUT_MS);
  const limit = new Deadline('connect', limitMs, signal);
  try {
    const transport = await openTransport(address, limit, {
      mapped,
      lend,
      busyPollUs,
      // Who dispatches himself rests as he likes, and gets all there is when he asks.
      restMs: dispatch === 'manual' ? 0 : restMs,
    });
    const options = { timeoutMs: limitMs, pid, mode: dispatch, lend, maxReassemblyBytes };
    return await CpgClient.open(transport, options, limit);
  } finally {
    limit.dispose();
  }
}

type ClientOptions = DispatcherOptions & Omit<SessionOptions, 'onDrain'>;

/** One handle on a daemon. It joins at most one group, once; connect again for another. */
export class CpgClient extends EventEmitter<CpgClientEvents> implements AsyncIterable<CpgEvent> {
  readonly #transport: Transport;
  readonly #session: Session;
  readonly #dispatcher: Dispatcher;
  #warnings = 0;
  /** connect() is about to resolve: events are not read before. */
  #opened = false;
  /** Anything of yours: cpg_context_get and cpg_context_set. */
  context: unknown;

  /** @internal Use connect(). */
  constructor(transport: Transport, options: ClientOptions) {
    super();
    this.#transport = transport;
    this.#session = new Session(transport, {
      ...options,
      onDrain: () => this.#safely(() => this.emit('drain')),
    });
    this.#dispatcher = new Dispatcher(transport, this.#session, this.#sink, options);
    this.#watchListeners();
    transport.listen({
      ...this.#session.listener,
      onEvents: () => {
        if (this.#opened) this.#dispatcher.onEvents();
      },
      onClose: (reason) => {
        this.#session.end(reason);
        this.#dispatcher.end(reason);
        this.#safely(() => (reason === undefined ? this.emit('close') : this.emit('close', reason)));
      },
    });
  }

  /** @internal Use connect(). */
  static async open(transport: Transport, options: ClientOptions, limit: Deadline): Promise<CpgClient> {
    const client = new CpgClient(transport, options);
    await client.#session.open(limit);
    client.#opened = true;
    // What came before; later, so that the caller can begin to listen.
    if (transport.pendingEvents > 0) setImmediate(() => client.#dispatcher.onEvents());
    return client;
  }

  /** What came before anybody listened is for the first one who does. */
  #watchListeners(): void {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the same object, with events of any name
    const emitter: EventEmitter = this;
    emitter.on('newListener', (name: string | symbol) => {
      if (name === 'confchg' || name === 'deliver' || name === 'totemConfchg') this.#dispatcher.onListening();
    });
  }

  override removeAllListeners(eventName?: string | symbol): this {
    // It counts its arguments: undefined would be the name of an event.
    if (eventName === undefined) super.removeAllListeners();
    else super.removeAllListeners(eventName);
    if (eventName === undefined || eventName === 'newListener') this.#watchListeners();
    return this;
  }

  /** unjoined, joining, joined, leaving, left or closed. */
  get state(): SessionState {
    return this.#session.state;
  }

  /** The group joined, or being joined, or left; undefined before. */
  get group(): string | Uint8Array | undefined {
    const { group } = this.#session;
    return group === undefined ? undefined : groupText(group);
  }

  /**
   * The pid by which members know us. Read it after join(): where the daemon sees no pid of ours, it is drawn at
   * random, and join() draws another one if a member has it.
   */
  get pid(): number {
    return this.#session.pid;
  }

  /** Bytes of the largest message that is not sent in fragments: cpg_max_atomic_msgsize_get. */
  get maxAtomicMessageSize(): number {
    return this.#session.maxAtomicMessageSize;
  }

  /** The daemon's flow control flag, read now: cpg_flow_control_state_get. True: do not send. */
  get flowControl(): boolean {
    return this.#transport.flowControl();
  }

  /** The descriptor of the service socket: cpg_fd_get. -1 after close. */
  get fd(): number {
    return this.#transport.fd;
  }

  /**
   * Joins a group: cpg_join. Resolves when the daemon has taken the request; the confchg that shows us among
   * the members follows as an event. CS_ERR_EXIST: a member on this node has our pid, which is another handle
   * of this process, or a process in another pid namespace; see the option `pid` of connect().
   */
  async join(group: string | Uint8Array, options?: JoinOptions): Promise<void> {
    const { initialTotemConfchg = false, signal } = readOptions('join', options, JOIN_OPTIONS);
    await this.#session.join(group, initialTotemConfchg, signal);
  }

  /** Leaves the group: cpg_leave. The handle is spent then. `group` may only be the joined one. */
  async leave(group?: string | Uint8Array, options?: { signal?: AbortSignal }): Promise<void> {
    await this.#session.leave(group, readOptions('leave', options, SIGNAL_OPTIONS).signal);
  }

  /**
   * Sends a message to the group: cpg_mcast_joined, up to 64 MiB. Resolves when the daemon's ring has it;
   * with `confirm`, when it was delivered back to us, and rejects if it was dropped on the way. The bytes
   * must not change before that.
   */
  mcast(message: Message, options?: MessageOptions): Promise<void> {
    try {
      const parts = messageParts('mcast', message);
      const how = options === undefined ? PLAIN : mcastOptions(options);
      return this.#session.mcast(parts, totalLength(parts), how);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a message if there is room for it now: cpg_mcast_joined without waiting. False (CS_ERR_TRY_AGAIN of libcpg)
   * means that the message was NOT sent, the opposite of what `false` means for a stream's write(): send it again after
   * 'drain'.
   *
   *     while (!client.tryMcast(message)) await once(client, 'drain');
   *
   * The bytes are copied. True: the message goes out unless the connection ends. Throws CS_ERR_TOO_BIG above
   * maxAtomicMessageSize, CS_ERR_NOT_EXIST without a join, CS_ERR_BAD_HANDLE after the end of the connection.
   */
  tryMcast(message: Message): boolean {
    const parts = messageParts('tryMcast', message);
    return this.#session.tryMcast(parts, totalLength(parts), Guarantee.AGREED);
  }

  /**
   * Memory for a message that mcast() sends without a copy: cpg_zcb_alloc. Fill it, send it, and use it
   * again or forget it when the promise resolved.
   */
  alloc(size: number): Uint8Array {
    return this.#session.alloc(check('alloc', 'size', size, SIZE));
  }

  /**
   * Members of a group, by default of ours: cpg_membership_get. Empty for a group that does not exist. One snapshot of
   * the daemon, asked for by iteration (cpg_iteration_initialize), a round trip with its own deadline for each
   * member, because the daemon aborts when it answers cpg_membership_get for more than 384 members. `reason` is 0.
   */
  async membership(group?: string | Uint8Array, options?: { signal?: AbortSignal }): Promise<CpgAddress[]> {
    return this.#session.membership(group, readOptions('membership', options, SIGNAL_OPTIONS).signal);
  }

  /**
   * All members of all groups, or of one, or the names alone (nodeId and pid are 0 then), from a snapshot
   * the daemon takes at the first step: cpg_iteration_initialize, _next and _finalize.
   */
  groups(options?: GroupsOptions): AsyncIterableIterator<GroupEntry> {
    const { group, namesOnly = false, signal } = readOptions('groups', options, GROUPS_OPTIONS);
    const all = namesOnly ? IterationType.NAME_ONLY : IterationType.ALL;
    return group === undefined
      ? this.#session.groups(all, new Uint8Array(), signal)
      : this.#session.groups(IterationType.ONE_GROUP, groupBytes(group, 'groups'), signal);
  }

  /** The nodeid of the daemon we are connected to: cpg_local_get. */
  async localNodeId(options?: { signal?: AbortSignal }): Promise<number> {
    return this.#session.localNodeId(readOptions('localNodeId', options, SIGNAL_OPTIONS).signal);
  }

  /**
   * Manual dispatch, cpg_dispatch; resolves with the number of events dispatched. 'one' waits for an event,
   * 'all' takes what is there, 'blocking' goes on until the handle is closed, 'oneNonblocking' rejects with
   * CS_ERR_TRY_AGAIN when nothing is there.
   */
  async dispatch(flag: DispatchFlag, options?: { signal?: AbortSignal }): Promise<number> {
    check('dispatch', 'flag', flag, DISPATCH_FLAG);
    return this.#dispatcher.dispatch(flag, readOptions('dispatch', options, SIGNAL_OPTIONS).signal);
  }

  /**
   * Ends the connection: cpg_finalize. What was sent before is handed to the daemon if it takes it within a
   * second; everything else pending is rejected with CS_ERR_BAD_HANDLE. Can be called again.
   */
  close(): Promise<void> {
    this.#dispatcher.stop();
    return this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * The events that came while nobody listened, and all from now on. The loop ends with the connection, and throws
   * if the connection was lost.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<CpgEvent, undefined> {
    return this.#dispatcher.loop();
  }

  get #sink(): ConstructorParameters<typeof Dispatcher>[2] {
    const listening = (): boolean =>
      this.listenerCount('confchg') + this.listenerCount('deliver') + this.listenerCount('totemConfchg') > 0;
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the same object, with events of any name
    const emitter: EventEmitter = this;
    return {
      get listening() {
        return listening();
      },
      emit: (type, event) => {
        emitter.emit(type, event);
      },
      report: (error) => this.#report(error),
    };
  }

  #safely(action: () => unknown): void {
    try {
      action();
    } catch (error) {
      this.#report(asError(error));
    }
  }

  /** Tells trouble that is not the connection's: a listener that threw, a message that was dropped. */
  #report(error: Error): void {
    debug('%s', error.stack);
    if (this.listenerCount('error') === 0) {
      this.#warn(error);
      return;
    }
    try {
      this.emit('error', error);
    } catch (second) {
      this.#warn(asError(second));
    }
  }

  /** A process warning that shows the stack. Given as text, since Node takes no error of another realm. */
  #warn(error: Error): void {
    // A listener that throws with every message must not flood standard error.
    if (++this.#warnings > MAX_WARNINGS) return;
    const last =
      this.#warnings === MAX_WARNINGS ? " (the last warning of this client: listen to 'error')" : '';
    const { name, message, stack } = error;
    const code = isCpgError(error) ? { code: error.code } : {};
    process.emitWarning(message + last, {
      type: name,
      ...code,
      ...(stack !== undefined && { detail: stack }),
    });
  }
}

const MAX_WARNINGS = 10;

/** Most messages are sent without options. */
const PLAIN: McastOptions = { guarantee: Guarantee.AGREED, signal: undefined, confirm: false };

function mcastOptions(given: MessageOptions): McastOptions {
  const { guarantee = 'AGREED', signal, confirm = false } = readOptions('mcast', given, MESSAGE_OPTIONS);
  return { guarantee: typeof guarantee === 'string' ? Guarantee[guarantee] : guarantee, signal, confirm };
}

function messageParts(call: string, message: unknown): readonly Uint8Array[] {
  if (typeof message === 'string') return [Buffer.from(message, 'utf8')];
  if (types.isUint8Array(message)) return [message];
  if (ArrayBuffer.isView(message)) return [bytesOf(message)];
  if (Array.isArray(message)) {
    if (allAre(message, types.isUint8Array)) return message as Uint8Array[];
    if (allAre(message, (piece) => ArrayBuffer.isView(piece)))
      return (message as ArrayBufferView[]).map(bytesOf);
  }
  throw invalid(
    call,
    'message',
    message,
    'a string, bytes (a Uint8Array or another view), or an array of bytes',
  );
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function totalLength(parts: readonly Uint8Array[]): number {
  let length = 0;
  for (const part of parts) length += part.length;
  return length;
}
