/**
 * The transport of libqb's socket mode: every frame is one datagram, and the service socket only says when the
 * connection ends.
 *
 *     we                            daemon
 *     B-response  -- requests -->   B-request       one pair of sockets, both ways
 *                 <-- replies ---
 *     B-event     <-- events ----   B-event-tx
 */
import { clearImmediate, monotonicMs, setImmediate } from '../clock';
import { frameSize, requestHeader } from '../codec/header';
import { malformed } from '../codec/fields';
import { debugTransport as debug } from '../debug';
import type { CpgError } from '../errors';
import type { DatagramSocket } from '../native/datagram';
import { systemError } from '../system-error';
import type { DatagramFiles } from './datagram-files';
import type { FrameHandler } from '../ring/event-reader';
import { BorrowedBuffer } from '../ring/memory';
import { Poller } from './poller';
import type { ServiceSocket } from './service-socket';
import { hungUp } from './shm-transport';
import type { Transport, TransportListener, TransportOptions } from './transport';

/** Flow control lasts milliseconds. */
const FLOW_CONTROL_POLLING = { turns: 8, maxPauseMs: 4 };
/** Busy polling ends by time, so it never comes to timers. */
const BUSY_POLLING = { turns: Infinity, maxPauseMs: 1 };
/** As many events in a row as a socket holds (net.unix.max_dgram_qlen): the daemon may have found it full. */
const FULL_QUEUE = 10;
/**
 * What may be in flight, in bytes: the queue of a socket holds but a few frames, and what the daemon cannot send it tries
 * again later.
 */
const IN_FLIGHT_BYTES = 256 * 1024;

/** Events kept for a consumer that has no room; with more, they stay in the daemon's queue. As much as a ring holds. */
const MAX_KEPT_BYTES = 1024 * 1024;

/** Frames up to this are put together in memory of all connections. */
const SMALL_FRAME_BYTES = 64 * 1024;
const smallFrame = Buffer.allocUnsafeSlow(SMALL_FRAME_BYTES);

/** The two sockets of a connection. */
export interface ConnectionSockets {
  readonly requests: DatagramSocket;
  readonly events: DatagramSocket;
}

export class DatagramTransport implements Transport {
  readonly serverPid: number;
  readonly clientPid: number;
  readonly maxFrameBytes: number;
  readonly eventCapacityBytes = IN_FLIGHT_BYTES;
  readonly headroomBytes = 0;
  readonly #service: ServiceSocket;
  readonly #files: DatagramFiles;
  readonly #requests: DatagramSocket;
  readonly #events: DatagramSocket;
  readonly #borrowed: BorrowedBuffer | undefined;
  readonly #busyPollMs: number;
  readonly #holding = new Poller(() => this.#mayGoOn(), FLOW_CONTROL_POLLING);
  readonly #watching = new Poller(() => monotonicMs() >= this.#busyUntilMs, BUSY_POLLING);
  readonly #closed: Promise<unknown>;
  #listener: TransportListener | undefined;
  /** The event that is being reported, in memory that is read into again. */
  #arriving: Buffer | undefined;
  /** Those that were not consumed when they came. */
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #paused = false;
  #wantsRoom = false;
  #busyUntilMs = 0;
  /** Events that came without a pause, and whether one came in this turn. */
  #inARow = 0;
  #cameNow = false;
  #turn: NodeJS.Immediate | undefined;
  #mayHoldBack = false;
  #ended = false;
  #reason: CpgError | undefined;

  constructor(
    service: ServiceSocket,
    files: DatagramFiles,
    { requests, events }: ConnectionSockets,
    maxFrameBytes: number,
    { lend, busyPollUs }: Pick<TransportOptions, 'lend' | 'busyPollUs'>,
  ) {
    this.#service = service;
    this.#files = files;
    this.#requests = requests;
    this.#events = events;
    this.serverPid = files.serverPid;
    this.clientPid = files.clientPid;
    this.maxFrameBytes = maxFrameBytes;
    this.#borrowed = lend ? new BorrowedBuffer() : undefined;
    this.#busyPollMs = busyPollUs / 1000;
    const { socket } = service;
    const serviceClosed = new Promise<void>((resolve) => socket.once('close', resolve));
    this.#closed = serviceClosed.then(() => Promise.all([requests.close(), events.close()]));
    const lost = (error?: Error): void => this.#end(hungUp(this.serverPid, error));
    socket.once('close', () => lost());
    socket.once('end', () => lost());
    socket.once('error', lost);
    service.count(() => !this.#ended);
    requests.listen({
      onFrame: (frame) => this.#received(frame, () => this.#onResponse(frame)),
      onSent: () => this.#onSent(),
      onEnd: lost,
    });
    events.listen({
      onFrame: (frame) => this.#received(frame, () => this.#onEvent(frame)),
      onSent: () => undefined,
      onEnd: lost,
    });
  }

  get fd(): number {
    return this.#service.fd;
  }

  get staged(): number {
    return !this.#ended && this.#requests.sending ? 1 : 0;
  }

  get pendingEvents(): number {
    return this.#kept.length + (this.#arriving === undefined ? 0 : 1);
  }

  get wantsWakeUp(): boolean {
    return this.#mayHoldBack && !this.#ended && !this.#wantsRoom && this.staged === 0;
  }

  listen(listener: TransportListener): void {
    this.#listener = listener;
    if (this.#ended) listener.onClose(this.#reason);
    else if (this.pendingEvents > 0) listener.onEvents();
  }

  flowControl(): boolean {
    return !this.#ended && this.#guarded(() => this.#files.control.flowControl(), false);
  }

  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean {
    if (!this.#maySend()) return false;
    const frame = length <= SMALL_FRAME_BYTES ? smallFrame.subarray(0, length) : Buffer.allocUnsafe(length);
    frame.set(head);
    let end = head.length;
    for (const part of parts) {
      frame.set(part, end);
      end += part.length;
    }
    return this.#send(frame);
  }

  stagePrepared(memory: Buffer, length: number): boolean {
    return this.#maySend() && this.#send(memory.subarray(0, length));
  }

  markConsumed(): void {
    // The socket says itself whether it has room.
  }

  expectResponse(): void {
    // It comes by itself.
  }

  consumeEvents(limit: number, handler: FrameHandler): number {
    let consumed = 0;
    try {
      let going = true;
      while (going && consumed < limit && !this.#ended) {
        const kept = this.#kept.shift();
        const frame = kept ?? this.#arriving;
        if (frame === undefined) break;
        // Before the handler is called: should it throw, it has had its event.
        if (kept === undefined) this.#arriving = undefined;
        else this.#keptBytes -= kept.length;
        consumed++;
        going =
          this.#borrowed === undefined ? handler(kept ?? Buffer.from(frame)) : this.#lend(frame, handler);
      }
    } catch (error) {
      this.#fail(error);
    }
    if (this.#paused && this.#keptBytes <= MAX_KEPT_BYTES / 2 && !this.#ended) {
      this.#paused = false;
      this.#events.resume();
    }
    return consumed;
  }

  keepAlive(on: boolean): void {
    this.#requests.keepAlive(on);
    this.#events.keepAlive(on);
    if (on) this.#service.socket.ref();
    else this.#service.socket.unref();
  }

  close(reason?: CpgError): Promise<void> {
    this.#end(reason);
    return this.#closed.then(() => undefined);
  }

  // ---- out -------------------------------------------------------------------------------------------------

  #maySend(): boolean {
    if (this.#ended) return false;
    if (!this.#requests.sending && !this.flowControl()) return true;
    this.#wantsRoom = true;
    // A socket that has room again says so; flow control does not.
    if (!this.#requests.sending && !this.#holding.running) this.#holding.start();
    return false;
  }

  #send(frame: Buffer): boolean {
    if (this.#ended) return false;
    this.#mayHoldBack = false;
    this.#requests.send(frame);
    this.#files.control.count('request', 1);
    this.#extendBusyPoll();
    return true;
  }

  /** What was sent is on its way; nothing waits any more. */
  #onSent(): void {
    if (this.#ended) return;
    this.#listener?.onPosted();
    this.#goOn();
  }

  #goOn(): void {
    if (!this.#wantsRoom || this.#ended) return;
    this.#wantsRoom = false;
    this.#listener?.onRoom();
  }

  /** True when flow control ended. */
  #mayGoOn(): boolean {
    if (!this.#ended && this.flowControl()) return false;
    if (!this.#requests.sending) this.#goOn();
    return true;
  }

  // ---- in --------------------------------------------------------------------------------------------------

  /** Looks at a frame, of either socket; `take` says whether more may come. */
  #received(frame: Buffer, take: () => boolean): boolean {
    if (this.#ended) return false;
    this.#extendBusyPoll();
    if (frame.length < requestHeader.size) {
      this.#end(hungUp(this.serverPid));
      return false;
    }
    return this.#guarded(() => {
      if (frameSize(frame) !== frame.length) {
        throw malformed(
          `a datagram of ${frame.length} bytes whose header says ${frameSize(frame)}`,
          'a whole frame',
        );
      }
      return take() && !this.#ended;
    }, false);
  }

  #onResponse(frame: Buffer): boolean {
    this.#files.control.count('response', -1);
    this.#listener?.onResponse(Buffer.from(frame));
    return true;
  }

  #onEvent(frame: Buffer): boolean {
    this.#files.control.count('event', -1);
    this.#noteInARow();
    if (this.#kept.length > 0) this.#keep(frame);
    else this.#arriving = frame;
    this.#listener?.onEvents();
    if (this.#arriving !== undefined) this.#keep(frame);
    this.#paused = this.#keptBytes > MAX_KEPT_BYTES;
    return !this.#paused;
  }

  #keep(frame: Buffer): void {
    this.#arriving = undefined;
    this.#kept.push(Buffer.from(frame));
    this.#keptBytes += frame.length;
  }

  /** Nothing tells that a queue was full; but then events come in turn after turn. */
  #noteInARow(): void {
    this.#inARow++;
    this.#cameNow = true;
    this.#turn ??= setImmediate(this.#onTurnEnd);
  }

  readonly #onTurnEnd = (): void => {
    this.#turn = undefined;
    if (this.#cameNow) {
      this.#cameNow = false;
      this.#turn = setImmediate(this.#onTurnEnd);
      return;
    }
    // Once reading goes on, it does so in a row.
    if (this.#paused || this.#inARow < FULL_QUEUE) {
      this.#inARow = this.#paused ? FULL_QUEUE : 0;
      return;
    }
    this.#inARow = 0;
    this.#mayHoldBack = true;
    this.#listener?.onRingEmptied();
  };

  #lend(frame: Buffer, handler: FrameHandler): boolean {
    const lent = this.#borrowed!.take(frame.length);
    frame.copy(lent);
    try {
      return handler(lent);
    } finally {
      this.#borrowed!.giveBack();
    }
  }

  /** Something was sent or came: for a while the loop does not sleep. */
  #extendBusyPoll(): void {
    if (this.#busyPollMs === 0 || this.#ended) return;
    this.#busyUntilMs = monotonicMs() + this.#busyPollMs;
    if (!this.#watching.running) this.#watching.start();
  }

  // ---- the end ---------------------------------------------------------------------------------------------

  #guarded<T>(action: () => T, otherwise: T): T {
    try {
      return action();
    } catch (error) {
      this.#fail(error);
      return otherwise;
    }
  }

  #fail(error: unknown): void {
    this.#end(systemError(error, `the connection by datagrams in ${this.#files.directory} failed`));
  }

  #end(reason?: CpgError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reason = reason;
    debug('connection to daemon %d ends: %s', this.serverPid, reason?.message ?? 'closed by us');
    for (const poller of [this.#holding, this.#watching]) poller.stop();
    clearImmediate(this.#turn);
    this.#arriving = undefined;
    this.#kept = [];
    this.#service.socket.destroy();
    void this.#requests.close();
    void this.#events.close();
    // Before anybody hears of the end: they may end the process.
    this.#files.remove();
    this.#listener?.onClose(reason);
  }
}
