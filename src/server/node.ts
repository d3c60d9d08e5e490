/** One node: a socket, the connections behind it, and the CPG service they talk to. */
import type { Duplex } from 'node:stream';
import type { RingId } from '../codec/events';
import { debugServer as debug } from '../debug';
import { CpgService, type RingChange, type ServiceHandle } from './cpg-service';
import { Connection, type ConnectionHost, type IpcType } from './connection';
import type { FaultState, Faults } from './faults';
import { listen, type Listener } from './listener';
import type { Ordered } from './ordered';
import type { Process } from './process-list';
import type { OrderedNode } from './total-order';
import type { Refusal } from './wire/handshake';

/** Connections, served or not, for each client that may be served. */
const CONNECTIONS_PER_CLIENT = 2;

/** A node that starts takes its last ring's number and goes on from there, as totem does. */
const SEQ_OF_FIRST_RING = 5n;

/** What a node needs of its cluster. */
export interface NodeHost {
  readonly ipc: IpcType;
  readonly strict: boolean;
  readonly maxConnections: number;
  /** Clients are held while more than this waits to be ordered, until no more than a quarter of it does. */
  readonly holdBytes: number;
  /** Whether all senders are to wait. */
  isCongested(): boolean;
  readonly faults: FaultState;
  /** Numbers a new connection; no two of the cluster are the same. */
  nextClientPid(): number;
  submit(node: Node, message: Ordered): void;
  /** So many bytes wait for this client now. */
  onBytesWaiting(connection: Connection, bytes: number): void;
  onClosed(connection: Connection): void;
  /** A request came in. */
  onRequest(): void;
}

export class Node implements OrderedNode, ConnectionHost {
  readonly #host: NodeHost;
  readonly #connections = new Set<Connection>();
  /** Connections that are past their handshake. */
  #served = 0;
  #lastConnection = 0;
  #service: CpgService;
  #listener: Listener | undefined;
  #full = false;
  #held = false;
  #unrefed = false;

  constructor(
    readonly nodeId: number,
    readonly address: string,
    host: NodeHost,
  ) {
    this.#host = host;
    this.#service = this.#newService(0n);
  }

  // ---- from outside ----------------------------------------------------------------------------------------

  get ipc(): IpcType {
    return this.#host.ipc;
  }

  get faults(): FaultState {
    return this.#host.faults;
  }

  setFaults(faults: Faults | undefined): void {
    this.faults.set(faults);
  }

  /** Clients that are past their handshake. */
  get clients(): number {
    return this.#served;
  }

  /** Begins to listen. Rejects as listen() does. */
  async listen(): Promise<void> {
    this.#listener = await listen(this.address, (stream) => this.handle(stream));
    if (this.#unrefed) this.#listener.unref();
  }

  /** Serves a client on a stream that came from anywhere. */
  handle(stream: Duplex): void {
    if (this.#listener === undefined) {
      debug('node %d does not run', this.nodeId);
      stream.destroy();
      return;
    }
    // Also those that never finish their handshake take descriptors.
    const limit = CONNECTIONS_PER_CLIENT * this.#host.maxConnections;
    if (this.#connections.size >= limit && !this.#dropExpendable(() => true)) {
      debug('node %d: too many connections', this.nodeId);
      stream.destroy();
      return;
    }
    const connection = new Connection(stream, this);
    if (this.#unrefed) connection.unref();
    this.#connections.add(connection);
  }

  /** Hangs up on all clients, or on those with this pid. Returns how many there were. */
  disconnect(pid?: number): number {
    const chosen = [...this.#connections].filter((connection) => pid === undefined || connection.pid === pid);
    for (const connection of chosen) connection.drop('disconnected, as told');
    return chosen.length;
  }

  /** Reads all that clients have handed over, also what the event loop has not told of yet. */
  readPosted(): void {
    for (const connection of this.#connections) connection.readPosted();
  }

  /** A client that has something on its way, from it or to it. */
  get busyClient(): Connection | undefined {
    return [...this.#connections].find(({ busy }) => busy);
  }

  /** Nothing of it keeps the process alive. */
  unref(): void {
    this.#unrefed = true;
    this.#listener?.unref();
    for (const connection of this.#connections) connection.unref();
  }

  /** Nothing is served any more; resolves when the address is free. */
  async close(): Promise<void> {
    const closing = this.#closeListener();
    this.disconnect();
    await closing;
  }

  /** The same, when clients have had their events. */
  async finish(): Promise<void> {
    const closing = this.#closeListener();
    await Promise.all([...this.#connections].map((connection) => connection.finish()));
    await closing;
  }

  /** Forgets everything but its last ring. */
  reset(): void {
    this.#service = this.#newService(this.ringId.seq);
    this.#full = false;
  }

  hold(): void {
    const held = this.#full || this.#host.isCongested();
    if (held === this.#held) return;
    this.#held = held;
    for (const connection of this.#connections) connection.hold(held);
  }

  // ---- for the total order ---------------------------------------------------------------------------------

  get ringId(): RingId {
    return this.#service.ringId;
  }

  get members(): readonly number[] {
    return this.#service.members;
  }

  processes(): readonly Process[] {
    return this.#service.processes;
  }

  localProcesses(): Process[] {
    return this.#service.localProcesses();
  }

  deliver(message: Ordered): void {
    this.#service.deliver(message);
  }

  changeRing(change: RingChange): void {
    debug('node %d: ring %d.%s', this.nodeId, change.ringId.nodeId, change.ringId.seq);
    this.#service.changeRing(change);
  }

  onQueued(bytes: number): void {
    if (bytes > this.#host.holdBytes) this.#full = true;
    else if (bytes <= this.#host.holdBytes / 4) this.#full = false;
    this.hold();
  }

  // ---- for the service -------------------------------------------------------------------------------------

  overloaded(): boolean {
    return this.#full || this.faults.takeTryAgain();
  }

  submit(message: Ordered): void {
    this.#host.submit(this, message);
  }

  // ---- for connections -------------------------------------------------------------------------------------

  admit(): { refuse: Refusal } | { clientPid: number; connection: number } {
    if (this.faults.refuse !== undefined) return { refuse: this.faults.refuse };
    const full = this.#served >= this.#host.maxConnections;
    if (full && !this.#dropExpendable(({ served }) => served)) return { refuse: 'EMFILE' };
    return { clientPid: this.#host.nextClientPid(), connection: ++this.#lastConnection };
  }

  serve(connection: Connection): ServiceHandle {
    this.#served++;
    if (this.#held) connection.hold(true);
    const handle = this.#service.open(connection);
    return {
      get pid() {
        return handle.pid;
      },
      request: (frame) => {
        this.#host.onRequest();
        handle.request(frame);
      },
      close: () => {
        this.#served--;
        handle.close();
      },
    };
  }

  onBytesWaiting(connection: Connection, bytes: number): void {
    this.#host.onBytesWaiting(connection, bytes);
  }

  onClosed(connection: Connection): void {
    this.#connections.delete(connection);
    this.#host.onClosed(connection);
  }

  #closeListener(): Promise<void> | undefined {
    const closing = this.#listener?.close();
    this.#listener = undefined;
    return closing;
  }

  /** Makes room for a client: the oldest one that has not shown that it may be here goes. False when there is none. */
  #dropExpendable(counts: (connection: Connection) => boolean): boolean {
    const chosen = [...this.#connections].find((one) => counts(one) && one.expendable);
    chosen?.drop('it does not use its rings, and others need its place');
    return chosen !== undefined;
  }

  #newService(lastSeq: bigint): CpgService {
    return new CpgService(this, { nodeId: this.nodeId, seq: lastSeq + SEQ_OF_FIRST_RING }, this.#host.strict);
  }
}
