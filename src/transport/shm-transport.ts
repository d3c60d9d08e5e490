/** The transport over shared memory: the service socket for wake-ups, three rings for the frames. */
import { clearImmediate, monotonicMs, nextTick, setImmediate } from '../clock';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { systemError } from '../system-error';
import { EventReader, type FrameHandler } from '../ring/event-reader';
import { CHUNK_HEADER_BYTES } from '../ring/layout';
import { RequestWriter } from '../ring/request-writer';
import { ResponseReader } from '../ring/response-reader';
import { Coalescer } from './coalescer';
import type { ConnectionFiles } from './connection-files';
import { Poller } from './poller';
import type { ServiceSocket } from './service-socket';
import { Submitter, type Staging } from './submitter';
import type { Transport, TransportListener, TransportOptions } from './transport';

/**
 * A busy daemon takes its chunks within microseconds, and its events say when to look too; one that holds us takes
 * milliseconds.
 */
const POST_POLLING = { turns: 8, maxPauseMs: 4 };
/** A reply comes within a few turns, or after a round of the ring. */
const RESPONSE_POLLING = { turns: 50, maxPauseMs: 8 };
/** Busy polling ends by time, so it never comes to timers. */
const BUSY_POLLING = { turns: Infinity, maxPauseMs: 1 };
/** The part of the event ring that may fill during a pause of the coalescer. */
const COALESCE_FRACTION = 8;
/** Looks at the event ring in one turn of busy polling: a turn costs several times what a look does. */
const LOOKS_PER_TURN = 8;

export class ShmTransport implements Transport {
  readonly serverPid: number;
  readonly clientPid: number;
  readonly maxFrameBytes: number;
  readonly headroomBytes = CHUNK_HEADER_BYTES;
  readonly #service: ServiceSocket;
  readonly #files: ConnectionFiles;
  readonly #requests: RequestWriter;
  readonly #submitter: Submitter;
  readonly #responses: ResponseReader;
  readonly #events: EventReader;
  readonly #posting = new Poller(() => this.#submit(), POST_POLLING);
  readonly #replying = new Poller(() => this.#tryResponse(), RESPONSE_POLLING);
  readonly #watching = new Poller(() => this.#lookForEvents(), BUSY_POLLING);
  readonly #coalescer: Coalescer;
  readonly #busyPollMs: number;
  #busyUntilMs = 0;
  readonly #closed: Promise<void>;
  #listener: TransportListener | undefined;
  #reclaiming: NodeJS.Immediate | undefined;
  #ended = false;
  #hungUp = false;
  #reason: CpgError | undefined;

  constructor(
    service: ServiceSocket,
    files: ConnectionFiles,
    maxFrameBytes: number,
    announced: number,
    { lend, busyPollUs, coalesceMs }: TransportOptions,
  ) {
    this.#service = service;
    this.#files = files;
    this.serverPid = files.serverPid;
    this.clientPid = files.clientPid;
    this.maxFrameBytes = maxFrameBytes;
    this.#requests = new RequestWriter(files.rings.request);
    this.#submitter = new Submitter(this.#requests, (chunks) => service.wakeUp(chunks), monotonicMs);
    this.#responses = new ResponseReader(files.rings.response);
    this.#events = new EventReader(files.rings.event, { lend, largestFrame: maxFrameBytes });
    this.#events.credit(announced);
    this.#busyPollMs = busyPollUs / 1000;
    this.#coalescer = new Coalescer({
      coalesceMs: busyPollUs > 0 ? 0 : coalesceMs,
      maxBytes: this.#events.capacityBytes / COALESCE_FRACTION,
      onEnd: () => service.readOn(),
    });
    this.#closed = new Promise((resolve) => {
      service.socket.once('close', () => {
        this.#onHangUp();
        resolve();
      });
    });
    service.socket.once('end', () => this.#onHangUp());
    service.socket.once('error', (error) => this.#onHangUp(error));
  }

  get fd(): number {
    return this.#service.fd;
  }

  get eventCapacityBytes(): number {
    return this.#events.capacityBytes;
  }

  get staged(): number {
    return this.#requests.stagedChunks;
  }

  get pendingEvents(): number {
    return this.#events.available;
  }

  get wantsWakeUp(): boolean {
    // Frames that wait for the daemon, or for room, go out without further ado.
    if (this.#ended || this.staged > 0 || this.#submitter.state.wantsRoom) return false;
    return this.#guarded(() => this.#events.holdsBack(), false);
  }

  listen(listener: TransportListener): void {
    this.#listener = listener;
    this.#service.count((count) => {
      if (this.#ended) return true;
      this.#events.credit(count);
      if (this.pendingEvents > 0) listener.onEvents();
      this.#reclaimLater();
      this.#extendBusyPoll();
      // The daemon is at work on our connection: its reply may come now, and it may take what waits.
      if (this.#replying.running) this.#replying.start();
      if (this.#posting.running && !this.#submit()) this.#posting.start();
      return !this.#coalescer.received(count, count * this.#events.averageBytes);
    });
    if (this.#ended) listener.onClose(this.#reason);
    else if (this.pendingEvents > 0) listener.onEvents();
  }

  flowControl(): boolean {
    return !this.#ended && this.#guarded(() => this.#requests.flowControl(), false);
  }

  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean {
    if (this.#ended) return false;
    try {
      return this.#staged(this.#submitter.stage(head, parts, length));
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  stagePrepared(memory: Buffer, length: number): boolean {
    if (this.#ended) return false;
    try {
      return this.#staged(this.#submitter.stagePrepared(memory, length));
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  markConsumed(): void {
    this.#submitter.markConsumed();
  }

  expectResponse(): void {
    this.#replying.start();
  }

  consumeEvents(limit: number, handler: FrameHandler): number {
    if (this.#ended) return 0;
    try {
      return this.#events.consume(limit, handler);
    } catch (error) {
      this.#fail(error);
      return 0;
    } finally {
      this.#reclaimLater();
    }
  }

  keepAlive(on: boolean): void {
    if (on) this.#service.socket.ref();
    else this.#service.socket.unref();
  }

  close(reason?: CpgError): Promise<void> {
    this.#end(reason);
    return this.#closed;
  }

  /** Acts on what became of a frame. */
  #staged(staging: Staging): boolean {
    if (staging === 'posted') this.#posted();
    if (staging === 'posted' && !this.#submitter.waiting) nextTick(this.#onTurnEnd);
    else if (!this.#posting.running) this.#posting.start();
    return staging !== 'full';
  }

  readonly #onTurnEnd = (): void => this.#submitter.endTurn();

  /** Posts what is staged if the daemon can take it; true when nothing is left to wait for. */
  #submit(): boolean {
    const submitter = this.#submitter;
    if (this.#ended || !submitter.waiting) return true;
    return this.#guarded(() => {
      if (submitter.state.wantsRoom) {
        if (!submitter.findRoom()) return false;
        this.#listener?.onRoom();
      }
      // onRoom() may have ended the connection.
      return this.#post() || !submitter.waiting;
    }, true);
  }

  #post(): boolean {
    if (!this.#ended && this.#submitter.post()) this.#posted();
    return this.#ended;
  }

  #posted(): void {
    this.#events.noteWakeUp();
    this.#coalescer.sent();
    this.#extendBusyPoll();
    this.#listener?.onPosted();
  }

  #tryResponse(): boolean {
    if (this.#ended) return true;
    return this.#guarded(() => {
      const frame = this.#responses.take();
      if (frame === undefined) return false;
      this.#listener?.onResponse(frame);
      return true;
    }, true);
  }

  /** At the end of the turn, so that what a listener sends goes out before; a little may stay for the next time. */
  #reclaimLater(): void {
    if (!this.#events.shouldReclaim && !this.#events.wasCrowded) return;
    this.#reclaiming ??= setImmediate(() => {
      this.#reclaiming = undefined;
      if (this.#ended) return;
      this.#guarded(() => this.#events.reclaim(), undefined);
      if (this.#events.wasCrowded) this.#listener?.onRingEmptied();
    });
  }

  /** Something was sent or came: for a while the next event is not waited for but looked for. */
  #extendBusyPoll(): void {
    if (this.#busyPollMs === 0 || this.#ended) return;
    this.#busyUntilMs = monotonicMs() + this.#busyPollMs;
    if (!this.#watching.running) this.#watching.start();
  }

  /** True when it was long enough. */
  #lookForEvents(): boolean {
    // What is known already waits for its reader, and is no reason to stay awake.
    if (this.pendingEvents > 0) return monotonicMs() >= this.#busyUntilMs;
    for (let looks = 0; looks < LOOKS_PER_TURN; looks++) {
      if (this.#ended) return true;
      if (!this.#guarded(() => this.#events.peek(), false)) continue;
      this.#extendBusyPoll();
      this.#listener?.onEvents();
      break;
    }
    return this.#ended || monotonicMs() >= this.#busyUntilMs;
  }

  /** A ring that is not what it should be is the end of the connection. */
  #guarded<T>(action: () => T, otherwise: T): T {
    try {
      return action();
    } catch (error) {
      this.#fail(error);
      return otherwise;
    }
  }

  #fail(error: unknown): void {
    const { directory } = this.#files;
    this.#end(
      systemError(error, `the rings in ${directory} failed`, {
        CS_ERR_NO_SPACE: `make room in the file system of ${directory}`,
      }),
    );
  }

  /** What the daemon had announced is still in the ring: the connection ends when it is read, or nobody reads now. */
  #onHangUp(cause?: Error): void {
    if (this.#hungUp) return;
    this.#hungUp = true;
    let left = Infinity;
    const readRest = (): void => {
      const pending = this.pendingEvents;
      if (this.#listener === undefined || pending === 0 || pending >= left || this.#ended) {
        this.#end(hungUp(this.serverPid, cause));
        return;
      }
      left = pending;
      setImmediate(readRest);
      this.#listener.onEvents();
    };
    readRest();
  }

  #end(reason?: CpgError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reason = reason;
    debug('connection to daemon %d ends: %s', this.serverPid, reason?.message ?? 'closed by us');
    for (const poller of [this.#posting, this.#replying, this.#watching]) poller.stop();
    clearImmediate(this.#reclaiming);
    this.#coalescer.stop();
    this.#service.socket.destroy();
    // Before anybody hears of the end: they may end the process.
    this.#files.remove();
    this.#listener?.onClose(reason);
  }
}

export function hungUp(serverPid: number, cause?: Error): CpgError {
  return new CpgError('CS_ERR_LIBRARY', `the daemon (pid ${serverPid}) closed the connection`, {
    cause,
    reason: 'connection-lost',
    remedy: 'it stopped, crashed or dropped this client (see its log); connect and join again',
  });
}
