/** One node: a socket, its connections, and their CPG service. */
import type { Duplex } from 'node:stream';
import type { RingId } from '../codec/events';
import { debugServer as debug } from '../debug';
import { CpgService, type RingChange, type ServiceHandle } from './cpg-service';
import { Connection, type ConnectionHost, type IpcType } from './connection';
import type { FaultState, Faults } from './faults';
import { listen, type Listener } from './listener';
import type { TotemMessage } from './ordered';
import type { Process } from './process-list';
import type { OrderedNode } from './total-order';
import type { Refusal } from './wire/handshake';

/** Accepted connections per client slot, including those not served yet. */
const CONNECTIONS_PER_CLIENT = 2;

/** A starting node continues from the number of its last ring, as totem does. */
const SEQ_OF_FIRST_RING = 5n;

/** The cluster's side of a node. */
export interface NodeHost {
  readonly ipc: IpcType;
  readonly strict: boolean;
  readonly maxConnections: number;
  /** Clients wait while more than this waits to be ordered, until a quarter of it is left. */
  readonly holdBytes: number;
  /** Whether all senders must wait. */
  isCongested(): boolean;
  readonly faults: FaultState;
  /** Returns a number for a new connection, unique in the cluster. */
  nextClientPid(): number;
  submit(node: Node, message: TotemMessage): void;
  /** Sets the number of bytes that wait for this client. */
  onBytesWaiting(connection: Connection, bytes: number): void;
  onClosed(connection: Connection): void;
  /** A request arrived. */
  onRequest(): void;
}

export class Node implements OrderedNode, ConnectionHost {
  readonly #host: NodeHost;
  readonly #connections = new Set<Connection>();
  /** Connections with a complete handshake. */
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

  // ---- for the cluster --------------------------------------------------------------------------------------

  get ipc(): IpcType {
    return this.#host.ipc;
  }

  get faults(): FaultState {
    return this.#host.faults;
  }

  setFaults(faults: Faults | undefined): void {
    this.faults.set(faults);
  }

  /** Number of clients with a complete handshake. */
  get clients(): number {
    return this.#served;
  }

  /** Starts listening. Rejects like listen(). */
  async listen(): Promise<void> {
    this.#listener = await listen(this.address, (stream) => this.handle(stream));
    if (this.#unrefed) this.#listener.unref();
  }

  /** Serves a client on any stream. */
  handle(stream: Duplex): void {
    if (this.#listener === undefined) {
      debug('node %d does not run', this.nodeId);
      stream.destroy();
      return;
    }
    // Connections that never finish their handshake take descriptors, too.
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

  /** Disconnects all clients, or those with this pid. Returns their number. */
  disconnect(pid?: number): number {
    const chosen = [...this.#connections].filter((connection) => pid === undefined || connection.pid === pid);
    for (const connection of chosen) connection.drop('disconnected on request');
    return chosen.length;
  }

  /** Reads all posted requests of clients, including those not yet announced by the event loop. */
  readPosted(): void {
    for (const connection of this.#connections) connection.readPosted();
  }

  /** A client with something in flight, from it or to it. */
  get busyClient(): Connection | undefined {
    return [...this.#connections].find(({ busy }) => busy);
  }

  /** Lets the process end. */
  unref(): void {
    this.#unrefed = true;
    this.#listener?.unref();
    for (const connection of this.#connections) connection.unref();
  }

  /** Ends all service; resolves when the address is free. */
  async close(): Promise<void> {
    const closing = this.#closeListener();
    this.disconnect();
    await closing;
  }

  /** The same, after clients have received their events. */
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

  deliver(message: TotemMessage): void {
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

  submit(message: TotemMessage): void {
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

  /** Makes room for a client: drops the oldest one that has not proved its right. False if there is none. */
  #dropExpendable(counts: (connection: Connection) => boolean): boolean {
    const chosen = [...this.#connections].find((one) => counts(one) && one.expendable);
    chosen?.drop('it does not use its rings, and another client needs its slot');
    return chosen !== undefined;
  }

  #newService(lastSeq: bigint): CpgService {
    return new CpgService(this, { nodeId: this.nodeId, seq: lastSeq + SEQ_OF_FIRST_RING }, this.#host.strict);
  }
}
