/** One client of the server: its stream, its rings, and what it may not do. */
import { constants } from 'node:os';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { clearImmediate, clearTimeout, monotonicMs, pause, setImmediate, setTimeout } from '../clock';
import { ConnectionType } from '../codec/handshake';
import { frameId } from '../codec/header';
import { CpgError } from '../errors';
import { debugServer as debug } from '../debug';
import { RequestReader } from '../ring/request-reader';
import { ResponseWriter } from '../ring/response-writer';
import type { ClientPort, ServiceHandle } from './cpg-service';
import { DatagramLink } from './wire/datagram-link';
import { EventQueue } from './wire/event-queue';
import {
  acceptance,
  frameBytesFor,
  HandshakeReader,
  refusal,
  refusalFor,
  type Refusal,
} from './wire/handshake';
import { createRings, type RingDirectory } from './wire/ring-directory';

/** A client that has not shaken hands, and opened its rings, for so long is dropped. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** For so long a new client keeps its place although others need it. */
const PROOF_GRACE_MS = 200;
/** A client that takes no event for so long is not waited for when the server stops, ... */
const STOP_PATIENCE_MS = 1000;
/** ... and none for longer than this. */
const STOP_LIMIT_MS = 10_000;
/** When it can read all of them, it hangs up as well within this time. */
const HANG_UP_MS = 200;
/** Requests read in one turn of the event loop, so that every client gets its turn. */
const REQUESTS_PER_TURN = 4096;
/** Events that may wait for a client that does not read; with more it is dropped. */
export const MAX_QUEUED_EVENT_BYTES = 64 * 1024 * 1024;

/** QB_IPC_MSG_DISCONNECT: a client that says goodbye. */
const DISCONNECT_ID = -3;
const ID_BYTES = 4;

const WAKE_UP_BYTES = 16 * 1024;
const wakeUps = Buffer.alloc(WAKE_UP_BYTES);

export const IPC_TYPES = ['shm', 'socket'] as const;
/** How frames travel: through rings in shared memory, or by datagrams (system.qb_ipc_type of a daemon). */
export type IpcType = (typeof IPC_TYPES)[number];

/** What a connection needs of the node it belongs to. */
export interface ConnectionHost {
  /** How frames travel. */
  readonly ipc: IpcType;
  /** Says why not, or numbers the client. */
  admit(): { refuse: Refusal } | { clientPid: number; connection: number };
  /** A client with working rings. */
  serve(connection: Connection): ServiceHandle;
  /** The bytes that wait for this client changed. */
  onBytesWaiting(connection: Connection, bytes: number): void;
  onClosed(connection: Connection): void;
}

/** Rings, or a DatagramLink, which is all of it. */
interface Open {
  directory: Pick<RingDirectory, 'remove'>;
  requests: Pick<RequestReader, 'available' | 'credit' | 'peek' | 'consume' | 'reclaim' | 'hold'>;
  responses: Pick<ResponseWriter, 'write'>;
  events: Pick<EventQueue, 'append' | 'close' | 'lastProgress' | 'queuedBytes'>;
  /** Whether the client has opened its side, which no other user can do. */
  attached(): boolean;
}

export class Connection implements ClientPort {
  readonly #stream: Duplex;
  readonly #host: ConnectionHost;
  readonly #handshake = new HandshakeReader();
  readonly #handshakeTimer: NodeJS.Timeout;
  readonly #sinceMs = monotonicMs();
  #proven = false;
  #open: Open | undefined;
  #service: ServiceHandle | undefined;
  #continuing: NodeJS.Immediate | undefined;
  #closed = false;
  /** The number in the names of the rings, which the client takes for its pid. 0 before the handshake. */
  clientPid = 0;

  constructor(stream: Duplex, host: ConnectionHost) {
    this.#stream = stream;
    this.#host = host;
    this.#handshakeTimer = setTimeout(() => {
      if (!this.proves()) this.drop('no handshake in time');
    }, HANDSHAKE_TIMEOUT_MS).unref();
    stream.on('data', (bytes: Buffer) => this.#onBytes(bytes));
    stream.on('error', (error) => debug('client %d: %s', this.clientPid, error.message));
    stream.once('close', () => this.#onStreamClosed());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The pid by which members know this client; before its join the one in the names of its rings. */
  get pid(): number {
    return this.#service?.pid ?? this.clientPid;
  }

  /** When this client last made room for events; milliseconds of the monotonic clock. */
  get lastProgress(): number {
    return this.#open?.events.lastProgress ?? 0;
  }

  /** It is past its handshake. */
  get served(): boolean {
    return this.#service !== undefined;
  }

  /** Whether anything is still on its way, to the client or from it. */
  get busy(): boolean {
    if (this.#closed || this.#open === undefined) return false;
    return this.#hasRequests() || this.#open.events.queuedBytes > 0 || this.#stream.writableLength > 0;
  }

  /**
   * Whether the client can write to its rings, which are for our own user alone. Anybody may connect to an abstract
   * address, and shake hands; such clients have their place only until others need it.
   */
  proves(): boolean {
    const open = this.#open;
    if (!this.#closed && open !== undefined) this.#guarded(() => (this.#proven ||= open.attached()));
    return this.#proven;
  }

  /** Whether its place may be given to another client. */
  get expendable(): boolean {
    return monotonicMs() - this.#sinceMs >= PROOF_GRACE_MS && !this.proves();
  }

  // ---- what the service does with it -----------------------------------------------------------------------

  respond(frame: Buffer): void {
    if (this.#closed || this.#open === undefined) return;
    try {
      this.#open.responses.write(frame);
    } catch (error) {
      this.drop(error);
    }
  }

  send(head: Buffer, body: Buffer, start: number): void {
    if (!this.#closed) this.#open?.events.append(head, body, start);
  }

  // ---- what the node does with it --------------------------------------------------------------------------

  /** Flow control: asks the client not to send, or to send again. */
  hold(on: boolean): void {
    if (this.#closed || this.#open === undefined) return;
    try {
      this.#open.requests.hold(on);
    } catch (error) {
      this.drop(error);
    }
  }

  /** Reads what is in the ring, although the bytes that tell of it may still be on their way. */
  readPosted(): void {
    if (this.#closed || this.#open === undefined) return;
    const { requests } = this.#open;
    this.#guarded(() => void requests.peek());
    while (this.#hasRequests()) this.#guarded(() => this.#readRequests());
  }

  /** The connection does not keep the process alive. */
  unref(): void {
    (this.#stream as Partial<Socket>).unref?.();
  }

  /** Ends the connection when the client has had its events, or takes none any more. */
  async finish(): Promise<void> {
    const begunMs = monotonicMs();
    const isPatient = (): boolean =>
      monotonicMs() - Math.max(begunMs, this.lastProgress) < STOP_PATIENCE_MS &&
      monotonicMs() - begunMs < STOP_LIMIT_MS;
    while (this.busy && isPatient()) await pause(1);
    const saidMs = monotonicMs();
    if (!this.#closed) this.#stream.end();
    while (!this.#closed && monotonicMs() - saidMs < HANG_UP_MS) await pause(1);
    this.drop('the server stops');
  }

  /** Ends the connection; the client sees its daemon hang up. */
  drop(reason: unknown): void {
    if (this.#closed) return;
    debug('client %d dropped: %s', this.clientPid, reason instanceof Error ? reason.message : reason);
    this.#close();
  }

  // ---- the stream ------------------------------------------------------------------------------------------

  #onBytes(bytes: Buffer): void {
    if (this.#closed) return;
    try {
      if (this.#open !== undefined) {
        this.#open.requests.credit(bytes.length);
        this.#readRequests();
        return;
      }
      const asked = this.#handshake.take(bytes);
      if (asked !== undefined) this.#answer(asked);
    } catch (error) {
      this.drop(error);
    }
  }

  #answer(asked: number): void {
    this.#handshakeTimer.refresh();
    const admission = this.#host.admit();
    if ('refuse' in admission) {
      this.#refuse(constants.errno[admission.refuse]);
      return;
    }
    const { clientPid, connection } = admission;
    try {
      const answer =
        this.#host.ipc === 'socket'
          ? this.#openDatagrams(clientPid, connection, frameBytesFor(asked))
          : this.#openRings(clientPid, connection, frameBytesFor(asked));
      this.clientPid = clientPid;
      this.#stream.write(answer);
    } catch (error) {
      debug('no rings for a client: %s', (error as Error).message);
      this.#refuse(refusalFor(error));
      return;
    }
    debug('client %d connected', clientPid);
    this.#service = this.#host.serve(this);
  }

  /** Returns the answer to the handshake. */
  #openRings(clientPid: number, connection: number, frameBytes: number): Buffer {
    const directory = createRings(clientPid, connection, frameBytes);
    const { request, response, event } = directory.rings;
    this.#open = {
      directory,
      requests: new RequestReader(request),
      responses: new ResponseWriter(response),
      events: new EventQueue(event, {
        announce: (count) => this.#announce(count),
        unreadAnnouncements: () => this.#stream.writableLength,
        onQueued: (bytes) => this.#onQueued(bytes),
        onFailure: (error) => this.drop(error),
      }),
      attached: () => request.attached(),
    };
    return acceptance(ConnectionType.SHM, directory.stems, connection, frameBytes);
  }

  #openDatagrams(clientPid: number, connection: number, frameBytes: number): Buffer {
    const link = new DatagramLink(clientPid, connection, frameBytes, {
      onRequests: () => this.#guarded(() => this.#readRequests()),
      onQueued: (bytes) => this.#onQueued(bytes),
      onFailure: (error) => this.drop(error),
    });
    const attached = (): boolean => link.connected;
    this.#open = { directory: link, requests: link, responses: link, events: link, attached };
    return acceptance(ConnectionType.SOCKET, link.stems, connection, link.frameBytes);
  }

  #refuse(errno: number): void {
    debug('client refused: errno %d', errno);
    this.#stream.end(refusal(errno));
    // The answer still goes out; nobody waits for the client to hang up as well.
    this.#stream.once('finish', () => this.#stream.destroy());
  }

  #readRequests(): void {
    const { requests } = this.#open!;
    let left = REQUESTS_PER_TURN;
    while (left > 0 && this.#hasRequests()) left -= requests.consume(left, this.#onRequest);
    if (!this.#closed) requests.reclaim();
    if (this.#hasRequests()) {
      this.#continuing ??= setImmediate(() => {
        this.#continuing = undefined;
        if (!this.#closed) this.#guarded(() => this.#readRequests());
      });
    }
  }

  readonly #onRequest = (frame: Buffer): boolean => {
    if (frame.length >= ID_BYTES && frameId(frame) === DISCONNECT_ID) this.#close();
    else this.#service!.request(frame);
    this.#proven = true;
    return !this.#closed;
  };

  #hasRequests(): boolean {
    return !this.#closed && this.#open !== undefined && this.#open.requests.available > 0;
  }

  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.drop(error);
    }
  }

  #announce(count: number): void {
    if (!this.#stream.writable) return;
    for (let left = count; left > 0; left -= WAKE_UP_BYTES) {
      this.#stream.write(wakeUps.subarray(0, Math.min(left, WAKE_UP_BYTES)));
    }
  }

  #onQueued(bytes: number): void {
    if (bytes > MAX_QUEUED_EVENT_BYTES) {
      this.drop(new CpgError('CS_ERR_QUEUE_FULL', `it does not read: ${bytes} bytes of events wait for it`));
    } else {
      this.#host.onBytesWaiting(this, bytes);
    }
  }

  #onStreamClosed(): void {
    if (this.#closed) return;
    // What the client had announced before it went counts.
    while (this.#hasRequests()) this.#guarded(() => this.#readRequests());
    this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#handshakeTimer);
    clearImmediate(this.#continuing);
    this.#stream.destroy();
    this.#open?.events.close();
    this.#service?.close();
    this.#open?.directory.remove();
    this.#host.onClosed(this);
  }
}
