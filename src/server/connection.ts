/** One client of the server: its stream, its rings, and its limits. */
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

/** Time limit for the handshake and for opening the rings. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A new client keeps its slot for this long even if others need it. */
const PROOF_GRACE_MS = 200;
/** A stopping server does not wait for a client that takes no event for this long, ... */
const STOP_PATIENCE_MS = 1000;
/** ... and waits for none longer than this. */
const STOP_LIMIT_MS = 10_000;
/** Once a client can read all its events, it hangs up within this time. */
const HANG_UP_MS = 200;
/** Requests read in one turn of the event loop, for fairness between clients. */
const REQUESTS_PER_TURN = 4096;
/** Limit of the events that wait for a client; above it the client is dropped. */
export const MAX_QUEUED_EVENT_BYTES = 64 * 1024 * 1024;

/** QB_IPC_MSG_DISCONNECT: the client ends the connection. */
const DISCONNECT_ID = -3;
const ID_BYTES = 4;

const WAKE_UP_BYTES = 16 * 1024;
const wakeUps = Buffer.alloc(WAKE_UP_BYTES);

export const IPC_TYPES = ['shm', 'socket'] as const;
/** Rings in shared memory, or datagrams (system.qb_ipc_type of a daemon). */
export type IpcType = (typeof IPC_TYPES)[number];

/** The node's side of a connection. */
export interface ConnectionHost {
  readonly ipc: IpcType;
  /** Returns the client's number, or the reason to refuse it. */
  admit(): { refuse: Refusal } | { clientPid: number; connection: number };
  /** The client has working rings. */
  serve(connection: Connection): ServiceHandle;
  /** The bytes that wait for this client changed. */
  onBytesWaiting(connection: Connection, bytes: number): void;
  onClosed(connection: Connection): void;
}

/** Rings, or a DatagramLink, which plays all three parts. */
interface Open {
  directory: Pick<RingDirectory, 'remove'>;
  requests: Pick<RequestReader, 'available' | 'credit' | 'peek' | 'consume' | 'reclaim' | 'hold'>;
  responses: Pick<ResponseWriter, 'write'>;
  events: Pick<EventQueue, 'append' | 'close' | 'lastProgress' | 'queuedBytes'>;
  /** Whether the client has opened its side; no other user can. */
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
  /** The number in the ring names, which the client takes for its pid. 0 before the handshake. */
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

  /** The pid known to members; before the join, the one in the ring names. */
  get pid(): number {
    return this.#service?.pid ?? this.clientPid;
  }

  /** Last time this client made room for events; milliseconds of the monotonic clock. */
  get lastProgress(): number {
    return this.#open?.events.lastProgress ?? 0;
  }

  /** The handshake is complete. */
  get served(): boolean {
    return this.#service !== undefined;
  }

  /** Whether anything is in flight, to the client or from it. */
  get busy(): boolean {
    if (this.#closed || this.#open === undefined) return false;
    return this.#hasRequests() || this.#open.events.queuedBytes > 0 || this.#stream.writableLength > 0;
  }

  /**
   * Whether the client can write to its rings, which only our own user can. Anybody may connect to an abstract address
   * and complete the handshake; such a client keeps its slot only until another client needs it.
   */
  proves(): boolean {
    const open = this.#open;
    if (!this.#closed && open !== undefined) this.#guarded(() => (this.#proven ||= open.attached()));
    return this.#proven;
  }

  /** Whether another client may take its slot. */
  get expendable(): boolean {
    return monotonicMs() - this.#sinceMs >= PROOF_GRACE_MS && !this.proves();
  }

  // ---- for the service --------------------------------------------------------------------------------------

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

  // ---- for the node -----------------------------------------------------------------------------------------

  /** Flow control: tells the client to pause or to resume sending. */
  hold(on: boolean): void {
    if (this.#closed || this.#open === undefined) return;
    try {
      this.#open.requests.hold(on);
    } catch (error) {
      this.drop(error);
    }
  }

  /** Reads the requests in the ring, even if their bytes on the socket have not arrived. */
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

  /** Ends the connection when the client has received its events or stopped taking them. */
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

  /** Ends the connection; to the client, the daemon hangs up. */
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
    // The answer still goes out; do not wait for the client to hang up.
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
    // Requests that the client announced before its end count.
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
