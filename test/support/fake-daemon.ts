/**
 * A daemon for tests that does what a test tells it to: it answers the handshake, makes the rings, takes
 * requests and replies by a script. Its rings are fake-ring.ts, independent of src/transport.
 *
 * Directories are made where a test can look at them, and removed when a client hangs up, as corosync does.
 */
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  decodeRequest,
  encodeEvent,
  encodeHandshakeResponse,
  encodeResponse,
  IterationType,
  type CpgRequest,
  type CpgResponse,
  type CpgWireEvent,
  type HandshakeResponse,
  type ResponseType,
} from '../../src/codec';
import { FakeRing } from './fake-ring';

const HANDSHAKE_BYTES = 24;
const OK = 1;
const NO_SECTIONS = 27;
const [FIRST, LAST] = [1, 3];

/** Bigger than the largest frame and its margin. */
const DEFAULT_WORDS = 300 * 1024;

export interface FakeDaemonOptions {
  /** 32-bit words of each ring. */
  words?: number;
  serverPid?: number;
  clientPid?: number;
  nodeId?: number;
  /** Instead of the handshake: the test talks itself. */
  onSocket?: (socket: Socket) => void;
  /** Changes the answer of the handshake, or the bytes of it. */
  answer?: (answer: HandshakeResponse, connection: FakeConnection) => HandshakeResponse | Buffer;
}

/** What a script may answer: an error number, a whole reply, any bytes, or nothing at all. */
export type Scripted = number | CpgResponse | Buffer | 'silence';

export class FakeDaemon {
  readonly directory: string;
  readonly connections: FakeConnection[] = [];
  /** Sockets that were accepted, for tests that do not want a connection. */
  readonly sockets = new Set<Socket>();
  readonly #server: Server;
  readonly #waiting: ((connection: FakeConnection) => void)[] = [];

  private constructor(readonly options: FakeDaemonOptions) {
    this.directory = mkdtempSync(join(tmpdir(), 'fake-cpg-'));
    this.#server = createServer((socket) => this.#accept(socket));
  }

  static async start(options: FakeDaemonOptions = {}): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(options);
    await new Promise<void>((resolve) => daemon.#server.listen(daemon.address, resolve));
    return daemon;
  }

  get address(): string {
    return join(this.directory, 'cpg.sock');
  }

  /** The connection of a test that has only one. */
  get connection(): FakeConnection {
    const { connections } = this;
    if (connections.length !== 1) throw new Error(`there are ${connections.length} connections`);
    return connections[0]!;
  }

  /** The next connection whose handshake is done. */
  connected(): Promise<FakeConnection> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** What was left behind by connections. */
  get leftovers(): string[] {
    return readdirSync(this.directory).filter((name) => name !== 'cpg.sock');
  }

  /** Resolves when all connections are gone, as after the clients closed. */
  async idle(): Promise<void> {
    await Promise.all([...this.sockets].map((socket) => closed(socket)));
  }

  /** Stops; throws when a client broke the rules of the rings. */
  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await this.idle();
    for (const connection of this.connections) connection.finish();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.directory, { recursive: true, force: true });
    const violations = this.connections.flatMap((connection) => connection.violations);
    if (violations.length > 0) throw new Error(`a client broke the rules: ${violations.join('; ')}`);
  }

  #accept(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.sockets.delete(socket));
    if (this.options.onSocket !== undefined) {
      this.options.onSocket(socket);
      return;
    }
    let received = Buffer.alloc(0);
    socket.on('data', (bytes) => {
      received = Buffer.concat([received, bytes]);
      if (received.length < HANDSHAKE_BYTES) return;
      socket.removeAllListeners('data');
      const connection = new FakeConnection(this, socket, this.connections.length);
      this.connections.push(connection);
      const answer = connection.handshake();
      const bytesOrValue = this.options.answer?.(answer, connection) ?? answer;
      socket.write(Buffer.isBuffer(bytesOrValue) ? bytesOrValue : encodeHandshakeResponse(bytesOrValue));
      this.#waiting.shift()?.(connection);
    });
  }
}

function closed(socket: Socket): Promise<void> {
  return socket.closed ? Promise.resolve() : new Promise((resolve) => socket.once('close', () => resolve()));
}

export class FakeConnection {
  readonly directory: string;
  readonly request: FakeRing;
  readonly response: FakeRing;
  readonly event: FakeRing;
  readonly nodeId: number;
  /** Requests in the order in which they were taken, and their frames. */
  readonly requests: CpgRequest[] = [];
  readonly frames: Buffer[] = [];
  /** Bytes that came without a chunk, and the like. */
  readonly violations: string[] = [];
  /** The members of every group, in the order of an iteration; by default the client alone. */
  members: { nodeId: number; pid: number }[] | undefined;
  readonly #iterations = new Map<bigint, { group: Uint8Array; nodeId: number; pid: number }[]>();
  /** Send mcast back as deliver. */
  echo = true;
  /** Looks at events that found no room only when a request comes, as corosync does when nothing else happens. */
  sleepy = false;
  /** While true, chunks and their bytes are left alone. */
  #held = false;
  #credits = 0;
  #finished = false;
  readonly #scripts = new Map<CpgRequest['type'], Scripted[]>();
  readonly #queuedEvents: Buffer[] = [];
  #flushing = false;
  #watchers: (() => void)[] = [];
  #group: Uint8Array = new Uint8Array();
  #pid = 0;

  constructor(
    readonly daemon: FakeDaemon,
    readonly socket: Socket,
    number: number,
  ) {
    const {
      words = DEFAULT_WORDS,
      serverPid = process.pid,
      clientPid = process.pid,
      nodeId = 1,
    } = daemon.options;
    this.nodeId = nodeId;
    this.directory = mkdtempSync(join(daemon.directory, `qb-${serverPid}-${clientPid}-${number}-`));
    chmodSync(this.directory, 0o770);
    this.request = new FakeRing(join(this.directory, 'qb-request-cpg'), words);
    this.response = new FakeRing(join(this.directory, 'qb-response-cpg'), words);
    this.event = new FakeRing(join(this.directory, 'qb-event-cpg'), words);
    socket.on('data', (bytes) => {
      this.#credits += bytes.length;
      this.serve();
    });
    socket.on('close', () => this.finish());
  }

  handshake(): HandshakeResponse {
    return {
      error: 0,
      connectionType: 1,
      maxMessageSize: 1024 * 1024,
      connection: 1n,
      request: this.request.stem,
      response: this.response.stem,
      event: this.event.stem,
    };
  }

  /** Requests of one kind that were taken. */
  taken<Type extends CpgRequest['type']>(type: Type): Extract<CpgRequest, { type: Type }>[] {
    return this.requests.filter(
      (request): request is Extract<CpgRequest, { type: Type }> => request.type === type,
    );
  }

  /** The messages of the mcasts that were taken, as text. */
  get texts(): string[] {
    return this.taken('mcast').map(({ message }) => Buffer.from(message).toString('utf8'));
  }

  /** Answers to the next requests of this kind; behind them the usual ones. */
  script(type: CpgRequest['type'], ...answers: Scripted[]): void {
    this.#scripts.set(type, [...(this.#scripts.get(type) ?? []), ...answers]);
  }

  /** Leaves what comes where it is, like a daemon that is stopped. */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
    this.serve();
  }

  /** Resolves when the condition holds after a request was taken. */
  until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const watcher = (): void => {
        if (!condition()) return;
        this.#watchers = this.#watchers.filter((other) => other !== watcher);
        resolve();
      };
      this.#watchers.push(watcher);
      watcher();
    });
  }

  /** Resolves when that many requests of this kind were taken. */
  untilTaken(type: CpgRequest['type'], count = 1): Promise<void> {
    return this.until(() => this.taken(type).length >= count);
  }

  /** Takes one chunk for each byte that came. */
  serve(): void {
    while (this.#credits > 0 && !this.#held && !this.#finished) {
      this.#credits--;
      const frame = this.request.take();
      if (frame === undefined) {
        this.violations.push('a byte came without a chunk');
        return;
      }
      this.#handle(frame);
      if (this.sleepy) this.#flushEvents();
    }
  }

  /** Puts a reply into its ring. */
  respond(reply: CpgResponse | Buffer): void {
    if (!this.response.put(Buffer.isBuffer(reply) ? reply : encodeResponse(reply))) {
      this.violations.push('the response ring looks full');
    }
  }

  /** Puts events into their ring, with their bytes; what finds no room waits, as in a daemon. */
  send(...events: (CpgWireEvent | Buffer)[]): void {
    const queuing = this.#queuedEvents.length > 0;
    for (const event of events) this.#queuedEvents.push(Buffer.isBuffer(event) ? event : encodeEvent(event));
    if (!queuing || !this.sleepy) this.#flushEvents();
  }

  /** Looks at what found no room, as for any reason of its own. */
  wakeUp(): void {
    this.#flushEvents();
  }

  /** Events that found no room yet. */
  get queuedEvents(): number {
    return this.#queuedEvents.length;
  }

  deliver(text: string | Uint8Array, nodeId = this.nodeId, pid = this.#pid): void {
    const message = typeof text === 'string' ? Buffer.from(text) : text;
    this.send({ type: 'deliver', group: this.#group, nodeId, pid, message });
  }

  /** Delivers a fragment of the client, as its last one unless said otherwise. */
  deliverFragment(fragment: Uint8Array, messageLength = fragment.length, fragmentType: number = LAST): void {
    const sender = { group: this.#group, nodeId: this.nodeId, pid: this.#pid };
    this.send({ type: 'partialDeliver', ...sender, messageLength, fragmentType, fragment });
  }

  /** Delivers what keeps confirmed messages apart from others: the empty beginning of a message. */
  deliverFence(): void {
    this.deliverFragment(Buffer.alloc(0), 1, FIRST);
  }

  /** Hangs up and removes the rings, like a daemon that stops. */
  drop(): void {
    this.socket.destroy();
    this.finish();
  }

  /** Closes and removes the rings. */
  finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    for (const ring of [this.request, this.response, this.event]) ring.close();
    if (existsSync(this.directory)) rmSync(this.directory, { recursive: true });
  }

  /** Closes the rings but leaves the files, like a daemon that is killed. */
  die(): void {
    this.#finished = true;
    for (const ring of [this.request, this.response, this.event]) ring.close();
    this.socket.destroy();
  }

  #handle(frame: Buffer): void {
    this.frames.push(frame);
    const request = decodeRequest(frame);
    this.requests.push(request);
    const scripted = this.#scripts.get(request.type)?.shift();
    if (scripted === undefined) this.#usual(request);
    else if (scripted === 'silence') this.#changed();
    else if (typeof scripted !== 'number') this.respond(scripted);
    else if (scripted === OK) this.#usual(request);
    else this.respond({ type: REPLIES[request.type]!, error: scripted });
    this.#changed();
  }

  #changed(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  #usual(request: CpgRequest): void {
    const me = { nodeId: this.nodeId, pid: this.#pid, reason: 0 };
    switch (request.type) {
      case 'localGet':
        this.respond({ type: 'localGet', error: OK, nodeId: this.nodeId });
        break;
      case 'join':
        this.#group = request.group;
        this.#pid = request.pid;
        this.respond({ type: 'join', error: OK });
        break;
      case 'membershipGet':
        this.respond({ type: 'membershipGet', error: OK, members: [me] });
        break;
      case 'mcast':
        if (this.echo) this.deliver(request.message);
        break;
      case 'partialMcast':
        this.respond({ type: 'partialMcast', error: OK });
        if (this.echo) {
          const { messageLength, fragmentType, fragment } = request;
          const { nodeId, pid } = me;
          const group = this.#group;
          this.send({ type: 'partialDeliver', group, messageLength, nodeId, pid, fragmentType, fragment });
        }
        break;
      case 'iterationInitialize': {
        const handle = BigInt(77 + this.#iterations.size);
        const oneGroup = request.iterationType === IterationType.ONE_GROUP;
        const rows = oneGroup ? (this.members ?? [me]) : [];
        this.#iterations.set(
          handle,
          rows.map(({ nodeId, pid }) => ({ group: request.group, nodeId, pid })),
        );
        this.respond({ type: 'iterationInitialize', error: OK, handle });
        break;
      }
      case 'iterationNext': {
        const row = this.#iterations.get(request.handle)?.shift();
        this.respond(
          row === undefined
            ? { type: 'iterationNext', error: NO_SECTIONS }
            : { type: 'iterationNext', error: OK, ...row },
        );
        break;
      }
      default:
        this.respond({ type: REPLIES[request.type]!, error: OK });
    }
  }

  #flushEvents(): void {
    while (this.#queuedEvents.length > 0 && !this.#finished) {
      if (!this.event.put(this.#queuedEvents[0]!)) break;
      this.#queuedEvents.shift();
      this.socket.write(Buffer.alloc(1));
    }
    if (this.#queuedEvents.length === 0 || this.#finished || this.#flushing || this.sleepy) return;
    // Looked at again and again, as corosync does.
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      this.#flushEvents();
    });
  }
}

const REPLIES: Partial<Record<CpgRequest['type'], ResponseType>> = {
  join: 'join',
  leave: 'leave',
  membershipGet: 'membershipGet',
  localGet: 'localGet',
  iterationInitialize: 'iterationInitialize',
  iterationNext: 'iterationNext',
  iterationFinalize: 'iterationFinalize',
  finalize: 'finalize',
  partialMcast: 'partialMcast',
};
