/** The public client: a thin facade over the session (what we ask) and the dispatcher (what arrives). */
import { EventEmitter } from 'node:events';
import type { CpgAddress } from './codec/addresses';
import { groupBytes, groupText } from './codec/groups';
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
import { asError, CpgError, isCpgError } from './errors';
import { checkedTimeout } from './session/deadline';
import { Session, type GroupEntry } from './session/session';
import type { SessionState } from './session/states';

const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_PID = 0xffffffff;
export const MAX_BUSY_POLL_US = 1_000_000;
const MAX_REST_MS = 1000;
const DEFAULT_REST_MS = 5;
/** Room for the largest message of 32 senders at once. */
const DEFAULT_MAX_REASSEMBLY_BYTES = 32 * MAX_MESSAGE_BYTES;

/** Text is sent as UTF-8; several pieces are sent as one message. */
export type Message = string | Uint8Array | readonly Uint8Array[];

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

/**
 * Connects to a corosync daemon: cpg_initialize.
 *
 * Rejects with CpgError: CS_ERR_LIBRARY when nobody listens there, CS_ERR_ACCESS when the daemon does not
 * allow this user, CS_ERR_TIMEOUT, CS_ERR_NOT_SUPPORTED for a daemon with `qb_ipc_type: socket` and for `mapped`
 * without koffi, CS_ERR_INVALID_PARAM for bad options; or with the reason of `signal`.
 */
export async function connect(options: ConnectOptions = {}): Promise<CpgClient> {
  const { pid } = options;
  if (pid !== undefined && !(Number.isInteger(pid) && pid > 0 && pid <= MAX_PID)) {
    throw new CpgError('CS_ERR_INVALID_PARAM', `connect: pid ${pid}`, { remedy: `give 1 to ${MAX_PID}` });
  }
  const dispatch = options.dispatch ?? 'auto';
  if (!['auto', 'manual'].includes(dispatch)) {
    throw new CpgError('CS_ERR_INVALID_PARAM', `connect: dispatch ${dispatch}`, {
      remedy: "give 'auto' or 'manual'",
    });
  }
  const busyPollUs = options.busyPollUs ?? 0;
  if (!(busyPollUs >= 0 && busyPollUs <= MAX_BUSY_POLL_US)) {
    throw new CpgError('CS_ERR_INVALID_PARAM', `connect: busyPollUs ${busyPollUs}`, {
      remedy: `give 0 to ${MAX_BUSY_POLL_US} microseconds`,
    });
  }
  const restMs = options.restMs ?? DEFAULT_REST_MS;
  if (!(restMs >= 0 && restMs <= MAX_REST_MS)) {
    throw new CpgError('CS_ERR_INVALID_PARAM', `connect: restMs ${restMs}`, {
      remedy: `give 0 to ${MAX_REST_MS} milliseconds`,
    });
  }
  const maxReassemblyBytes = options.maxReassemblyBytes ?? DEFAULT_MAX_REASSEMBLY_BYTES;
  if (!(maxReassemblyBytes > 0)) {
    throw new CpgError('CS_ERR_INVALID_PARAM', `connect: maxReassemblyBytes ${maxReassemblyBytes}`, {
      remedy: 'give a number of bytes above 0',
    });
  }
  const lend = options.lend ?? false;
  const session = await Session.connect({
    address: options.address,
    timeoutMs: checkedTimeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS),
    signal: options.signal,
    pid,
    // Who dispatches himself rests as he likes, and gets all there is when he asks.
    transport: {
      mapped: options.mapped ?? false,
      lend,
      busyPollUs,
      restMs: dispatch === 'manual' ? 0 : restMs,
    },
  });
  return new CpgClient(session, { mode: dispatch, lend, maxReassemblyBytes });
}

/** One handle on a daemon. It joins at most one group, once; connect again for another. */
export class CpgClient extends EventEmitter<CpgClientEvents> implements AsyncIterable<CpgEvent> {
  readonly #session: Session;
  readonly #dispatcher: Dispatcher;
  /** Anything of yours: cpg_context_get and cpg_context_set. */
  context: unknown;

  /** @internal Use connect(). */
  constructor(session: Session, options: DispatcherOptions) {
    super();
    this.#session = session;
    this.#dispatcher = new Dispatcher(session, this.#sink, options);
    session.observe({
      onEvents: () => this.#dispatcher.onEvents(),
      onDrain: () => this.#safely(() => this.emit('drain')),
      onClose: (reason) => {
        this.#dispatcher.end(reason);
        this.#safely(() => (reason === undefined ? this.emit('close') : this.emit('close', reason)));
      },
    });
    this.#watchListeners();
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
    return this.#session.transport.flowControl();
  }

  /** The descriptor of the service socket: cpg_fd_get. -1 after close. */
  get fd(): number {
    return this.#session.transport.fd;
  }

  /**
   * Joins a group: cpg_join. Resolves when the daemon has taken the request; the confchg that shows us among
   * the members follows as an event. CS_ERR_EXIST: a member on this node has our pid, which is another handle
   * of this process, or a process in another pid namespace; see the option `pid` of connect().
   */
  join(group: string | Uint8Array, options: JoinOptions = {}): Promise<void> {
    return this.#session.join(group, options.initialTotemConfchg ?? false, options.signal);
  }

  /** Leaves the group: cpg_leave. The handle is spent then. `group` may only be the joined one. */
  leave(group?: string | Uint8Array, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#session.leave(group, options.signal);
  }

  /**
   * Sends a message to the group: cpg_mcast_joined, up to 64 MiB. Resolves when the daemon's ring has it;
   * with `confirm`, when it was delivered back to us, and rejects if it was dropped on the way. The bytes
   * must not change before that.
   */
  mcast(message: Message, options: MessageOptions = {}): Promise<void> {
    let parts: readonly Uint8Array[];
    let guarantee: number;
    try {
      parts = messageParts(message);
      guarantee = guaranteeNumber(options.guarantee ?? Guarantee.AGREED);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#session.mcast(parts, totalLength(parts), {
      guarantee,
      signal: options.signal,
      confirm: options.confirm ?? false,
    });
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
    const parts = messageParts(message);
    return this.#session.tryMcast(parts, totalLength(parts), Guarantee.AGREED);
  }

  /**
   * Memory for a message that mcast() sends without a copy: cpg_zcb_alloc. Fill it, send it, and use it
   * again or forget it when the promise resolved.
   */
  alloc(size: number): Uint8Array {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new CpgError('CS_ERR_INVALID_PARAM', `alloc of ${size} bytes`, {
        remedy: 'give a number of bytes',
      });
    }
    return this.#session.alloc(size);
  }

  /** Members of a group, by default of ours: cpg_membership_get. Empty for a group that does not exist. */
  membership(group?: string | Uint8Array, options: { signal?: AbortSignal } = {}): Promise<CpgAddress[]> {
    return this.#session.membership(group, options.signal);
  }

  /**
   * All members of all groups, or of one, or the names alone (nodeId and pid are 0 then), from a snapshot
   * the daemon takes at the first step: cpg_iteration_initialize, _next and _finalize.
   */
  groups(
    options: { group?: string | Uint8Array; namesOnly?: boolean; signal?: AbortSignal } = {},
  ): AsyncIterableIterator<GroupEntry> {
    const name = options.group === undefined ? new Uint8Array() : groupBytes(options.group);
    const all = options.namesOnly === true ? IterationType.NAME_ONLY : IterationType.ALL;
    return this.#session.groups(
      options.group === undefined ? all : IterationType.ONE_GROUP,
      name,
      options.signal,
    );
  }

  /** The nodeid of the daemon we are connected to: cpg_local_get. */
  localNodeId(options: { signal?: AbortSignal } = {}): Promise<number> {
    return this.#session.localNodeId(options.signal);
  }

  /**
   * Manual dispatch, cpg_dispatch; resolves with the number of events dispatched. 'one' waits for an event,
   * 'all' takes what is there, 'blocking' goes on until the handle is closed, 'oneNonblocking' rejects with
   * CS_ERR_TRY_AGAIN when nothing is there.
   */
  async dispatch(flag: DispatchFlag, options: { signal?: AbortSignal } = {}): Promise<number> {
    if (!DISPATCH_FLAGS.includes(flag)) {
      throw new CpgError('CS_ERR_INVALID_PARAM', `dispatch with the unknown flag ${flag}`, {
        remedy: `give one of ${DISPATCH_FLAGS.join(', ')}`,
      });
    }
    return this.#dispatcher.dispatch(flag, options.signal);
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

  get #sink(): ConstructorParameters<typeof Dispatcher>[1] {
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
      warn(error);
      return;
    }
    try {
      this.emit('error', error);
    } catch (second) {
      warn(asError(second));
    }
  }
}

/** A process warning that shows the stack. Given as text, since Node takes no error of another realm. */
function warn(error: Error): void {
  const { name, message, stack } = error;
  const code = isCpgError(error) ? { code: error.code } : {};
  process.emitWarning(message, { type: name, ...code, ...(stack !== undefined && { detail: stack }) });
}

const DISPATCH_FLAGS: readonly DispatchFlag[] = ['one', 'all', 'blocking', 'oneNonblocking'];

function messageParts(message: Message): readonly Uint8Array[] {
  if (typeof message === 'string') return [Buffer.from(message, 'utf8')];
  if (message instanceof Uint8Array) return [message];
  if (Array.isArray(message) && message.every((part) => part instanceof Uint8Array)) return message;
  throw new CpgError('CS_ERR_INVALID_PARAM', 'a message that is neither text nor bytes', {
    remedy: 'give a string, a Uint8Array, or an array of Uint8Array',
  });
}

function guaranteeNumber(given: NonNullable<MessageOptions['guarantee']>): number {
  if (typeof given === 'number' && Object.values(Guarantee).includes(given)) return given;
  if (typeof given === 'string' && Object.hasOwn(Guarantee, given)) return Guarantee[given];
  throw new CpgError('CS_ERR_INVALID_PARAM', `mcast with the unknown guarantee ${String(given)}`, {
    remedy: `give one of ${Object.keys(Guarantee).join(', ')}`,
  });
}

function totalLength(parts: readonly Uint8Array[]): number {
  let length = 0;
  for (const part of parts) length += part.length;
  return length;
}
