/**
 * One connection by datagrams, from the server's side (transport/datagram-transport.ts is the other one), in the shape of a
 * connection by rings:
 *
 *     <base>/qb-<our pid>-<client pid>-<connection>-XXXXXX/qb-control-cpg     the control file
 *     .../qb-cpg-{request,event-tx}                                           our sockets, by name or as files
 */
import { closeSync, mkdtempSync, openSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { monotonicMs } from '../../clock';
import { requestHeader } from '../../codec/header';
import { CpgError } from '../../errors';
import { findDatagrams, noDatagrams, type Datagrams } from '../../native';
import type { DatagramAddress, DatagramSocket } from '../../native/datagram';
import { directoryPrefix, SHM_DIRECTORY } from '../../ring/paths';
import type { FrameHandler } from '../../ring/event-reader';
import { CONTROL_BYTES, socketNames } from '../../transport/datagram-files';
import { Poller } from '../../transport/poller';
import { claim, type Share } from '../claim';
import { removeOnExit } from '../exit';
import { removeQuietly } from '../remove';

/** A client binds its sockets as soon as it has our answer. */
const CLIENT_TIMEOUT_MS = 10_000;
const CONNECT_POLLING = { turns: 8, maxPauseMs: 16 };
/** Requests that may wait to be handled; then the client's kernel holds the rest. */
const MAX_WAITING_BYTES = 1024 * 1024;
/** Replies that may wait; a client has one request in flight. */
const MAX_WAITING_REPLIES = 16;
const FLOW_CONTROL_OFFSET = 4;

/** What the connection is told. */
export interface LinkHost {
  /** There are requests. */
  onRequests(): void;
  /** So many bytes of events wait for the client. */
  onQueued(bytes: number): void;
  onFailure(error: unknown): void;
}

/** Names of both kinds work with what can do abstract ones, which are those of libqb. */
export function findServerDatagrams(): { kind: DatagramAddress['kind']; datagrams: Datagrams } {
  for (const kind of ['abstract', 'path'] as const) {
    const datagrams = findDatagrams(kind);
    if (datagrams !== undefined) return { kind, datagrams };
  }
  throw noDatagrams(
    'path',
    "a server with ipc 'socket' needs datagram sockets, and Node has none",
    "take ipc 'shm'",
  );
}

export class DatagramLink {
  /** Bytes of the largest frame, either way. */
  readonly frameBytes: number;
  /** What the handshake tells the client. */
  readonly stems: { request: string; response: string; event: string };
  /** When the client last took an event; milliseconds of the monotonic clock. */
  lastProgress = monotonicMs();
  readonly #host: LinkHost;
  readonly #path: string;
  readonly #share: Share;
  readonly #controlFd: number;
  readonly #opened: DatagramSocket[] = [];
  readonly #requests: DatagramSocket;
  readonly #events: DatagramSocket;
  readonly #keepOnExit: () => void;
  readonly #connecting: Poller;
  readonly #replies: Buffer[] = [];
  readonly #queue: Buffer[] = [];
  #queuedBytes = 0;
  #incoming: Buffer[] = [];
  #incomingBytes = 0;
  #paused = false;
  #connected = false;
  #closed = false;

  /** Throws CpgError, and the error of the system; nothing is left then. */
  constructor(clientPid: number, connection: number, frameBytes: number, host: LinkHost) {
    const { kind, datagrams } = findServerDatagrams();
    this.#host = host;
    [this.#path, this.#share] = makeDirectory(directoryPrefix(process.pid, clientPid, connection));
    try {
      const response = join(this.#path, 'qb-cpg');
      const event = kind === 'path' ? response : '';
      this.stems = { request: join(this.#path, 'qb-control-cpg'), response, event };
      this.#controlFd = openSync(this.stems.request, 'wx+', 0o600);
      writeSync(this.#controlFd, Buffer.alloc(CONTROL_BYTES));
      const names = socketNames(this.stems);
      const open = (local: DatagramAddress): DatagramSocket => {
        const socket = datagrams.open({ local, frameBytes });
        this.#opened.push(socket);
        return socket;
      };
      this.#requests = open(names.request);
      this.#events = open(names.eventTx);
      this.frameBytes = Math.min(frameBytes, this.#requests.maxBytes, this.#events.maxBytes);
      const untilMs = monotonicMs() + CLIENT_TIMEOUT_MS;
      this.#connecting = new Poller(() => this.#tryConnect(names, untilMs), CONNECT_POLLING);
    } catch (error) {
      this.#remove();
      throw error;
    }
    this.#keepOnExit = removeOnExit(() => removeQuietly(this.#path));
    this.#connecting.start();
  }

  // ---- what a connection does with it: see RequestReader, ResponseWriter and EventQueue -------------------------

  get available(): number {
    return this.#incoming.length;
  }

  /** Bytes of events that wait for the client. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** The client has bound its sockets. */
  get connected(): boolean {
    return this.#connected;
  }

  consume(limit: number, handler: FrameHandler): number {
    let consumed = 0;
    while (consumed < limit && !this.#closed) {
      const frame = this.#incoming.shift();
      if (frame === undefined) break;
      this.#incomingBytes -= frame.length;
      consumed++;
      if (!handler(frame)) break;
    }
    return consumed;
  }

  peek(): boolean {
    return this.available > 0;
  }

  credit(): void {
    // A byte on the stream means nothing.
  }

  close(): void {
    // remove() follows.
  }

  /** Requests that were handled make room for others. */
  reclaim(): void {
    if (!this.#paused || this.#closed || this.#incomingBytes > MAX_WAITING_BYTES / 2) return;
    this.#paused = false;
    this.#requests.resume();
  }

  write(frame: Buffer): void {
    if (this.#replies.length >= MAX_WAITING_REPLIES) {
      throw new CpgError('CS_ERR_NO_SPACE', 'it asks and does not read the replies');
    }
    this.#replies.push(frame);
    this.#flush(this.#requests, this.#replies);
  }

  append(head: Buffer, body: Buffer, start: number): void {
    const frame = Buffer.concat([head, body.subarray(start)]);
    if (frame.length > this.frameBytes) {
      this.#host.onFailure(
        new CpgError(
          'CS_ERR_TOO_BIG',
          `an event of ${frame.length} bytes, for sockets that carry ${this.frameBytes}`,
        ),
      );
      return;
    }
    if (this.#queue.length === 0) this.lastProgress = monotonicMs();
    this.#queue.push(frame);
    this.#queuedBytes += frame.length;
    this.#flushEvents();
  }

  hold(on: boolean): void {
    const word = Buffer.alloc(4);
    word.writeInt32LE(on ? 1 : 0, 0);
    writeSync(this.#controlFd, word, 0, word.length, FLOW_CONTROL_OFFSET);
  }

  remove(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connecting.stop();
    this.#queue.length = 0;
    this.#replies.length = 0;
    this.#incoming = [];
    this.#keepOnExit();
    this.#remove();
  }

  // ---- the sockets -------------------------------------------------------------------------------------------

  /** Nothing is read before, so that it is the client that we hear: a connected socket takes from its peer alone. */
  #tryConnect(names: ReturnType<typeof socketNames>, untilMs: number): boolean {
    if (this.#closed) return true;
    try {
      this.#requests.connect(names.response);
      this.#events.connect(names.event);
    } catch (error) {
      if (monotonicMs() < untilMs) return false;
      this.#host.onFailure(error);
      return true;
    }
    const onEnd = (error?: Error): void => {
      if (!this.#closed) this.#host.onFailure(error ?? new Error('its socket ended'));
    };
    this.#connected = true;
    this.#requests.listen({
      onFrame: (frame) => this.#received(frame),
      onSent: () => this.#flush(this.#requests, this.#replies),
      onEnd,
    });
    this.#events.listen({ onFrame: () => !this.#closed, onSent: () => this.#flushEvents(), onEnd });
    this.#flush(this.#requests, this.#replies);
    this.#flushEvents();
    return true;
  }

  #received(frame: Buffer): boolean {
    if (this.#closed) return false;
    if (frame.length < requestHeader.size) {
      this.#host.onFailure(new Error('it said goodbye'));
      return false;
    }
    this.#incoming.push(Buffer.from(frame));
    this.#incomingBytes += frame.length;
    this.#paused = this.#incomingBytes > MAX_WAITING_BYTES;
    const goesOn = !this.#paused;
    this.#host.onRequests();
    return goesOn || !this.#paused;
  }

  #flushEvents(): void {
    const before = this.#queue.length;
    this.#queuedBytes -= this.#flush(this.#events, this.#queue);
    if (this.#queue.length < before) this.lastProgress = monotonicMs();
    if (!this.#closed) this.#host.onQueued(this.#queuedBytes);
  }

  /** Sends what there is room for; returns how many bytes. */
  #flush(socket: DatagramSocket, frames: Buffer[]): number {
    let bytes = 0;
    while (this.#connected && !this.#closed && !socket.sending) {
      const frame = frames.shift();
      if (frame === undefined) break;
      socket.send(frame);
      bytes += frame.length;
    }
    return bytes;
  }

  #remove(): void {
    for (const socket of this.#opened) void socket.close();
    // Not set when it could not be made.
    if ((this.#controlFd as number | undefined) !== undefined) closeSync(this.#controlFd);
    removeQuietly(this.#path);
    this.#share.release();
  }
}

/** In shared memory, where clients look for it, or where temporary files are; with our claim on what is there. */
function makeDirectory(prefix: string): [path: string, share: Share] {
  try {
    return makeIn(SHM_DIRECTORY, prefix);
  } catch {
    return makeIn(resolve(tmpdir()), prefix);
  }
}

function makeIn(base: string, prefix: string): [path: string, share: Share] {
  const share = claim(base);
  try {
    return [mkdtempSync(join(base, `${prefix}${share.tag}.`)), share];
  } catch (error) {
    share.release();
    throw error;
  }
}
