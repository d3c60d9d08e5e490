/** The transport over shared memory: the service socket for wake-ups, three rings for the frames. */
import { debugTransport as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import { removeIfDaemonDied, type ConnectionFiles } from './connection-files';
import { EventRing, type FrameHandler } from './event-ring';
import { Poller } from './poller';
import { RequestRing } from './request-ring';
import { ResponseRing } from './response-ring';
import { CHUNK_HEADER_BYTES } from './ring';
import type { ServiceSocket } from './service-socket';
import type { Transport, TransportListener } from './transport';

/** A busy daemon takes its chunks within microseconds, one that holds us takes milliseconds. */
const POST_POLLING = { turns: 50, maxPauseMs: 4 };
/** A reply comes within a few turns, or after a round of the ring. */
const RESPONSE_POLLING = { turns: 50, maxPauseMs: 8 };

/** One byte for each chunk; any value will do. */
const WAKE_UP_BYTES = 32 * 1024;
const wakeUps = Buffer.alloc(WAKE_UP_BYTES);

export class ShmTransport implements Transport {
  readonly serverPid: number;
  readonly clientPid: number;
  readonly maxFrameBytes: number;
  readonly headroomBytes = CHUNK_HEADER_BYTES;
  readonly #service: ServiceSocket;
  readonly #files: ConnectionFiles;
  readonly #requests: RequestRing;
  readonly #responses: ResponseRing;
  readonly #events: EventRing;
  readonly #posting = new Poller(() => this.#tryPost(), POST_POLLING);
  readonly #replying = new Poller(() => this.#tryResponse(), RESPONSE_POLLING);
  readonly #closed: Promise<void>;
  #listener: TransportListener | undefined;
  #wantsRoom = false;
  #ended = false;
  #reason: CpgError | undefined;

  constructor(service: ServiceSocket, files: ConnectionFiles, maxFrameBytes: number, announced: number) {
    this.#service = service;
    this.#files = files;
    this.serverPid = files.serverPid;
    this.clientPid = files.clientPid;
    this.maxFrameBytes = maxFrameBytes;
    this.#requests = new RequestRing(files.rings.request);
    this.#responses = new ResponseRing(files.rings.response);
    this.#events = new EventRing(files.rings.event);
    this.#events.announce(announced);
    this.#closed = new Promise((resolve) => {
      service.socket.once('close', () => {
        void this.#release().finally(resolve);
      });
    });
    service.socket.once('end', () => this.#end(hungUp(this.serverPid)));
    service.socket.once('error', (error) => this.#end(hungUp(this.serverPid, error)));
  }

  get fd(): number {
    // Not public in Node, and the only way to learn what cpg_fd_get tells.
    return (this.#service.socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;
  }

  get staged(): number {
    return this.#requests.stagedChunks;
  }

  get pendingEvents(): number {
    return this.#events.announced;
  }

  listen(listener: TransportListener): void {
    this.#listener = listener;
    this.#service.count((count) => {
      if (this.#ended) return;
      this.#events.announce(count);
      listener.onEvents();
      // The daemon is at work on our connection: a good moment to hand over what waits.
      if (this.#posting.running) this.#posting.start();
    });
    if (this.#ended) listener.onClose(this.#reason);
    else if (this.pendingEvents > 0) listener.onEvents();
  }

  flowControl(): boolean {
    return !this.#ended && this.#guarded(() => this.#requests.flowControl(), false);
  }

  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean {
    return this.#staging(() => this.#requests.stage(head, parts, length));
  }

  stagePrepared(memory: Buffer, length: number): boolean {
    return this.#staging(() => this.#requests.stagePrepared(memory, length));
  }

  discardStaged(): number {
    return this.#requests.discard();
  }

  expectResponse(): void {
    this.#replying.start();
  }

  consumeEvents(limit: number, handler: FrameHandler): number {
    if (this.#ended) return 0;
    return this.#guarded(() => this.#events.consume(limit, handler), 0);
  }

  close(): Promise<void> {
    this.#end();
    return this.#closed;
  }

  #staging(stage: () => boolean): boolean {
    if (this.#ended) return false;
    const staged = this.#guarded(stage, false);
    // Post at once when nothing went out since the last look, so that a single message is not delayed. What
    // else is staged in this turn waits for the poller and goes out in one batch.
    if (!this.#posting.running) {
      this.#tryPost();
      this.#startPosting();
    }
    if (!staged) this.#wantsRoom = true;
    return staged;
  }

  /** Posts what is staged if the daemon can take it; true when nothing is left to wait for. */
  #tryPost(): boolean {
    if (this.#ended) return true;
    if (this.#requests.stagedChunks === 0 && !this.#wantsRoom) return true;
    return this.#guarded(() => {
      const postable = this.#requests.postable() === 'now';
      // While the daemon works on one batch, the next one can be laid out in what it has freed.
      if (this.#wantsRoom && (postable || this.#requests.roomy())) {
        this.#wantsRoom = false;
        this.#listener?.onRoom();
        if (this.#ended) return true;
      }
      if (!postable) return false;
      if (this.#requests.stagedChunks > 0) {
        const chunks = this.#requests.post();
        this.#service.socket.write(
          chunks <= WAKE_UP_BYTES ? wakeUps.subarray(0, chunks) : Buffer.alloc(chunks),
        );
        this.#listener?.onPosted();
      }
      return this.#requests.stagedChunks === 0 && !this.#wantsRoom;
    }, true);
  }

  #startPosting(): void {
    if (!this.#ended) this.#posting.start();
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

  /** A ring that is not what it should be is the end of the connection. */
  #guarded<T>(action: () => T, otherwise: T): T {
    try {
      return action();
    } catch (error) {
      const reason = isCpgError(error)
        ? error
        : new CpgError('CS_ERR_LIBRARY', `the rings of daemon ${this.serverPid} failed`, { cause: error });
      this.#end(reason);
      return otherwise;
    }
  }

  #end(reason?: CpgError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reason = reason;
    debug('connection to daemon %d ends: %s', this.serverPid, reason?.message ?? 'closed by us');
    this.#posting.stop();
    this.#replying.stop();
    this.#service.socket.destroy();
    for (const ring of Object.values(this.#files.rings)) ring.close();
    this.#listener?.onClose(reason);
  }

  async #release(): Promise<void> {
    this.#end(hungUp(this.serverPid));
    // After a close of our own the daemon is at work on the files, unless it died unnoticed.
    await removeIfDaemonDied(this.#files, this.#reason === undefined ? 'dead already' : 'dying');
  }
}

function hungUp(serverPid: number, cause?: Error): CpgError {
  return new CpgError('CS_ERR_LIBRARY', `the daemon (pid ${serverPid}) closed the connection`, {
    cause,
    remedy: 'it stopped, crashed or dropped this client (see its log); connect and join again',
  });
}
