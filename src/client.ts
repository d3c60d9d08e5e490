/** The public client: a thin facade over the session (what we ask) and the dispatcher (what arrives). */
import { EventEmitter } from 'node:events';
import { inspect, types, type InspectOptions } from 'node:util';
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
import { setImmediate } from './clock';
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
import { asError, isCpgError, type CpgError } from './errors';
import type {
  ConfchgEvent,
  CpgAddress,
  CpgEvent,
  CpgEventLoop,
  DeliverEvent,
  TotemConfchgEvent,
} from './events';
import { openTransport } from './session/connect';
import { Deadline, MAX_TIMEOUT_MS } from './session/deadline';
import { Session, type GroupEntry, type McastOptions, type SessionOptions } from './session/session';
import type { SessionState } from './session/states';
import { ADDRESS, resolveAddress } from './transport/address';
import type { Transport } from './transport/transport';

const DEFAULT_TIMEOUT_MS = 10_000;
export const MAX_BUSY_POLL_US = 1_000_000;
const MAX_COALESCE_MS = 1000;
const DEFAULT_COALESCE_MS = 1;
/** Room for the largest message of 32 senders at once. */
const DEFAULT_MAX_REASSEMBLY_BYTES = 32 * MAX_MESSAGE_BYTES;

/**
 * A message of 0 bytes to 64 MiB. Text is sent as UTF-8, any view of memory (Buffer, Uint8Array, DataView ...) as the bytes it shows; several pieces
 * are sent as one message.
 */
export type Message = string | NodeJS.ArrayBufferView | readonly NodeJS.ArrayBufferView[];

/** What connect() takes. */
export interface ConnectOptions {
  /**
   * '@name' is an abstract socket, '/path' one in the filesystem.
   *
   * @default the environment variable CPG_ADDRESS, else '@cpg'
   */
  address?: string | undefined;
  /**
   * Milliseconds that connecting, and every later request, may take.
   *
   * @default 10_000
   */
  timeoutMs?: number | undefined;
  /**
   * Gives up connecting; has no effect later.
   *
   * @default none
   */
  signal?: AbortSignal | undefined;
  /**
   * 'manual' leaves events in the daemon's ring until dispatch() is called.
   *
   * @default 'auto'
   */
  dispatch?: DispatchMode | undefined;
  /**
   * The pid announced on join, a uint32 above 0; with the node id it must be unique in the group. A daemon in another pid
   * namespace may see no pid of this process (containers of one pod): then each handle draws a random one above 2^22,
   * where real pids end, and another one if that is taken.
   *
   * @default the pid under which the daemon sees this process
   */
  pid?: number | undefined;
  /**
   * Messages given to 'deliver' listeners are lent for the duration of the call instead of copied, and empty (length 0)
   * afterwards. Loops get copies all the same.
   *
   * @default false
   */
  lend?: boolean | undefined;
  /**
   * Microseconds (up to 1,000,000) for which the client looks for the next event instead of sleeping, after
   * it sent or got something: less latency for more CPU time.
   *
   * @default 0
   */
  busyPollUs?: number | undefined;
  /**
   * Milliseconds (0 to 1000) that a busy receive-only client waits between two reads, so that one wake-up finds many
   * messages: less CPU time for up to that much latency. 0 reads at once. Not used with busyPollUs or manual dispatch,
   * where `dispatch('all')` must see everything.
   *
   * @default 1
   */
  coalesceMs?: number | undefined;
  /**
   * Map the rings into memory, as libqb does, instead of reading and writing their files: about half the
   * latency, and more of large messages. 'auto': where the package koffi (prebuilt binaries are included) is beside this
   * one, or `node:ffi` works without a warning. true: with either of them; without both connect() rejects with
   * CS_ERR_NOT_SUPPORTED. Only whole files of our own, with one name, are mapped: nobody but our user and root can
   * shorten them, which would end the process with SIGBUS. Files with holes, which an embedded server makes, are read
   * and written all the same.
   *
   * @default 'auto'
   */
  mapped?: 'auto' | boolean | undefined;
  /**
   * Bytes received of unfinished messages (over 1 MiB, they arrive in fragments), all senders together. With more,
   * the connection ends with CS_ERR_NO_MEMORY: dropping one message would let members disagree. It only protects
   * the process, so it should never be reached; a sender that gives up in the middle leaves up to 64 MiB
   * until its next large message or its leave.
   *
   * Members with the same history deliver the same messages, with two exceptions: a member that joined between the first
   * and the last fragment of a message does not get it, unless the last one holds all of it; and messages over 64 MiB,
   * which libcpg can send, are dropped and reported by 'error'.
   *
   * @default 2 GiB, which is 32 senders with 64 MiB each
   */
  maxReassemblyBytes?: number | undefined;
}

/** What a call takes that can be given up. */
export interface SignalOptions {
  /**
   * Ends the call: it rejects, or throws, with the signal's reason.
   *
   * @default none
   */
  signal?: AbortSignal | undefined;
}

/** What client.join() takes. */
export interface JoinOptions extends SignalOptions {
  /**
   * Ask for one totemConfchg with the present ring: CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF.
   *
   * @default false
   */
  initialTotemConfchg?: boolean | undefined;
}

type GuaranteeName = keyof typeof Guarantee;

/** What client.mcast() takes. */
export interface MessageOptions {
  /**
   * cpg_guarantee_t, by name or number. The daemon delivers everything in agreed order, whatever is asked.
   *
   * @default 'AGREED'
   */
  guarantee?: GuaranteeName | (typeof Guarantee)[GuaranteeName] | undefined;
  /**
   * Ends the waiting. A message on its way into the ring may be sent all the same; one that waits is not.
   *
   * @default none
   */
  signal?: AbortSignal | undefined;
  /**
   * Resolve only when the message was delivered back to us in total order. Events must be read for that: dispatch
   * them, or let loops over them go on.
   *
   * @default false
   */
  confirm?: boolean | undefined;
}

/** What client.groups() takes. */
export interface GroupsOptions extends SignalOptions {
  /**
   * Only this group: CPG_ITERATION_ONE_GROUP.
   *
   * @default all of them
   */
  group?: string | Uint8Array | undefined;
  /**
   * Each group once, without its members: CPG_ITERATION_NAME_ONLY. Not used with `group`.
   *
   * @default false
   */
  namesOnly?: boolean | undefined;
}

/** The events of a client and what their listeners get. */
export interface CpgClientEvents {
  /** The membership of the group changed: cpg_confchg_fn_t. */
  confchg: [event: ConfchgEvent];
  /** A message, in total order: cpg_deliver_fn_t. */
  deliver: [event: DeliverEvent];
  /** The nodes of the ring changed: cpg_totem_confchg_fn_t. */
  totemConfchg: [event: TotemConfchgEvent];
  /** After tryMcast() returned false: call it again. It throws now if the connection ended meanwhile. */
  drain: [];
  /** The connection ended; `reason` is absent after close(). */
  close: [reason?: CpgError];
  /** Trouble that does not end the connection; without a listener it is a process warning. */
  error: [error: Error];
}

type EventName = keyof CpgClientEvents;
type Listener<Name extends EventName> = (...event: CpgClientEvents[Name]) => void;

/** EventEmitter<CpgClientEvents>, which needs newer types of Node. */
interface ClientEmitter extends EventEmitter {
  on<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  once<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  off<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  addListener<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  removeListener<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  prependListener<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  prependOnceListener<Name extends EventName>(name: Name, listener: Listener<Name>): this;
  emit<Name extends EventName>(name: Name, ...event: CpgClientEvents[Name]): boolean;
}
const ClientEmitter = EventEmitter as unknown as new () => ClientEmitter;

// What each call takes: see arguments.ts.
export const CONNECT_OPTIONS: OptionKinds<ConnectOptions> = {
  address: ADDRESS,
  timeoutMs: kind('a positive number of milliseconds', (value) => typeof value === 'number' && value > 0),
  signal: abortSignal,
  dispatch: oneOf('auto', 'manual'),
  pid: id,
  lend: boolean,
  busyPollUs: number(0, MAX_BUSY_POLL_US, 'microseconds'),
  coalesceMs: number(0, MAX_COALESCE_MS, 'milliseconds'),
  mapped: oneOf<'auto' | boolean>('auto', true, false),
  maxReassemblyBytes: kind('a number of bytes above 0', (value) => typeof value === 'number' && value > 0),
};
const SIGNAL_OPTIONS: OptionKinds<SignalOptions> = { signal: abortSignal };
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
 * allow this user, CS_ERR_TIMEOUT, CS_ERR_NOT_SUPPORTED for a daemon with `qb_ipc_type: socket` and for `mapped: true`
 * without koffi or node:ffi, CS_ERR_INVALID_PARAM for bad options; or with the reason of `signal`.
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
    coalesceMs = DEFAULT_COALESCE_MS,
    mapped = 'auto',
    maxReassemblyBytes = DEFAULT_MAX_REASSEMBLY_BYTES,
  } = readOptions('connect', options, CONNECT_OPTIONS);
  const { text } = resolveAddress(address);
  const limitMs = Math.min(timeoutMs, MAX_TIMEOUT_MS);
  const limit = new Deadline('connect', limitMs, signal);
  try {
    const transport = await openTransport(text, limit, {
      mapped,
      lend,
      busyPollUs,
      // No coalescing with manual dispatch: dispatch('all') must see everything.
      coalesceMs: dispatch === 'manual' ? 0 : coalesceMs,
    });
    const options = { timeoutMs: limitMs, pid, mode: dispatch, lend, maxReassemblyBytes };
    return await openClient(transport, text, options, limit);
  } finally {
    limit.dispose();
  }
}

type ClientOptions = DispatcherOptions & Omit<SessionOptions, 'onDrain'>;

let openClient: (
  transport: Transport,
  address: string,
  options: ClientOptions,
  limit: Deadline,
) => Promise<CpgClient>;

/** One handle (cpg_handle_t) on a daemon, made by connect(). It joins at most one group, once; connect again for another. */
export class CpgClient extends ClientEmitter implements AsyncIterable<CpgEvent> {
  readonly #transport: Transport;
  readonly #session: Session;
  readonly #address: string;
  readonly #dispatcher: Dispatcher;
  #warnings = 0;
  /** connect() is about to resolve: events are not read before. */
  #opened = false;
  /** Anything of yours: cpg_context_get and cpg_context_set. */
  context: unknown;

  static {
    openClient = async (transport, address, options, limit) => {
      const client = new CpgClient(transport, address, options);
      await client.#open(limit);
      return client;
    };
  }

  private constructor(transport: Transport, address: string, options: ClientOptions) {
    super();
    this.#transport = transport;
    this.#address = address;
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

  async #open(limit: Deadline): Promise<void> {
    await this.#session.open(limit);
    this.#opened = true;
    // What came before; later, so that the caller can begin to listen.
    if (this.#transport.pendingEvents > 0) setImmediate(() => this.#dispatcher.onEvents());
  }

  /** Listeners get what arrived while nothing consumed events. */
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

  /** Where the handle is in its life. */
  get state(): SessionState {
    return this.#session.state;
  }

  /** The group joined, or being joined, or left; undefined before. */
  get group(): string | Uint8Array | undefined {
    const { group } = this.#session;
    return group === undefined ? undefined : groupText(group);
  }

  /** The nodeid of the daemon, as it answered when we connected; with `pid` it is our address in the group. */
  get nodeId(): number {
    return this.#session.nodeId;
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
  async leave(group?: string | Uint8Array, options?: SignalOptions): Promise<void> {
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
  async membership(group?: string | Uint8Array, options?: SignalOptions): Promise<CpgAddress[]> {
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
  async localNodeId(options?: SignalOptions): Promise<number> {
    return this.#session.localNodeId(readOptions('localNodeId', options, SIGNAL_OPTIONS).signal);
  }

  /**
   * Manual dispatch, cpg_dispatch; resolves with the number of events dispatched. 'one' waits for an event,
   * 'all' takes what is there, 'blocking' goes on until the handle is closed, 'oneNonblocking' rejects with
   * CS_ERR_TRY_AGAIN when nothing is there.
   */
  async dispatch(flag: DispatchFlag, options?: SignalOptions): Promise<number> {
    check('dispatch', 'flag', flag, DISPATCH_FLAG);
    return this.#dispatcher.dispatch(flag, readOptions('dispatch', options, SIGNAL_OPTIONS).signal);
  }

  /** The connection does not keep the process alive, as unref() of a socket; a call that waits for its answer still does. */
  unref(): this {
    this.#transport.keepAlive(false);
    return this;
  }

  /** Ends unref(). */
  ref(): this {
    this.#transport.keepAlive(true);
    return this;
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
   * The events that came while nothing consumed them, and all from now on, for one `for await` loop. The loop ends with the
   * connection, and throws the CpgError if the connection was lost. When `signal` aborts, it ends at once by throwing the
   * signal's reason; what it had not taken is for the next consumer, as after `break`.
   *
   * A loop that does not go on stops the reading at 1,024 events or 4 MiB of messages.
   */
  events(options?: SignalOptions): CpgEventLoop {
    return this.#dispatcher.loop(readOptions('events', options, SIGNAL_OPTIONS).signal);
  }

  /** As events(). */
  [Symbol.asyncIterator](): CpgEventLoop {
    return this.events();
  }

  /** What console.log() shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { state, group, nodeId, pid } = this;
    return `CpgClient ${inspect({ address: this.#address, state, group, nodeId, pid }, options)}`;
  }

  get #sink(): ConstructorParameters<typeof Dispatcher>[2] {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the same object, with events of any name
    const emitter: EventEmitter = this;
    return {
      get listening() {
        // Most listen to messages.
        return (
          emitter.listenerCount('deliver') > 0 ||
          emitter.listenerCount('confchg') > 0 ||
          emitter.listenerCount('totemConfchg') > 0
        );
      },
      emit: (event) => emitter.emit(event.type, event),
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
