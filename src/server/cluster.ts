/** Several nodes in one process, and everything that can happen to them. */
import type { Duplex } from 'node:stream';
import {
  abortSignal,
  boolean,
  callback,
  check,
  id,
  invalid,
  isFunction,
  kind,
  listOf,
  number,
  oneOf,
  readOptions,
  whole,
  type OptionKinds,
} from '../arguments';
import { groupText } from '../codec/groups';
import { connect, CONNECT_OPTIONS, type ConnectOptions, type CpgClient } from '../client';
import { monotonicMs, pause, turn } from '../clock';
import { CpgError } from '../errors';
import { ADDRESS } from '../transport/address';
import { Congestion } from './congestion';
import { IPC_TYPES, type IpcType } from './connection';
import { removeOnSignals } from './exit';
import { FaultState, type Faults } from './faults';
import { groupBytesOf } from './groups';
import { privateAddress, removeLeftovers } from './listener';
import { Node, type NodeHost } from './node';
import { Random } from './random';
import { TotalOrder, type ClockMode } from './total-order';
import { findServerDatagrams } from './wire/datagram-link';

/** What SimulatedCluster.start() takes. */
export interface ClusterOptions {
  /**
   * How many nodes, up to 128, with nodeids from 1 on, or their nodeids.
   *
   * @default 1
   */
  nodes?: number | readonly number[] | undefined;
  /**
   * Where a node listens: '/path' or '@name'.
   *
   * @default sockets in a private directory that stop() removes
   */
  address?: ((nodeId: number) => string) | undefined;
  /**
   * 'manual': joins, leaves and messages are not ordered until step() or run(), and `seed` decides in which
   * order.
   *
   * @default 'real'
   */
  clock?: ClockMode | undefined;
  /**
   * For everything left to chance: whose message is next with the manual clock, faults. A whole number.
   *
   * @default 1
   */
  seed?: number | undefined;
  /**
   * False softens what surprises in the real daemon; see docs/testing-your-cluster-code.md.
   *
   * @default true
   */
  strict?: boolean | undefined;
  /**
   * How frames travel: through rings in shared memory, or by datagrams, as with `qb_ipc_type: socket` of a daemon. That
   * needs the package koffi or node:ffi; with unix-dgram it works for clients of this package.
   *
   * @default 'shm'
   */
  ipc?: IpcType | undefined;
  /**
   * Clients that one node serves at a time; others are refused with CS_ERR_NO_RESOURCES.
   *
   * @default 1000
   */
  maxConnections?: number | undefined;
  /**
   * Whether to listen to SIGHUP, SIGINT and SIGTERM of this process until it is stopped: a signal that nothing else
   * listens to then removes sockets and rings of all servers of the process before it ends it. Without it they are
   * removed when the process exits by itself, and stay behind when a signal ends it.
   *
   * @default false
   */
  handleSignals?: boolean | undefined;
}

/** What settled() takes. */
export interface SettledOptions {
  /**
   * Milliseconds after which it rejects with CS_ERR_TIMEOUT.
   *
   * @default 10000
   */
  timeoutMs?: number | undefined;
  /**
   * Ends the waiting; it rejects with the signal's reason.
   *
   * @default none
   */
  signal?: AbortSignal | undefined;
}

const DEFAULT_MAX_CONNECTIONS = 1000;
const SETTLED_TIMEOUT_MS = 10_000;
/** When it stops, it reads what clients have sent for no longer than this. */
const STOP_QUIET_MS = 1000;
/**
 * What may wait on a node before its clients are held. They find out by real time when they may go on, which
 * the manual clock should not depend on; with it, messages wait because nobody has stepped.
 */
const HOLD_BYTES: Record<ClockMode, number> = { real: 1024 * 1024, manual: 32 * 1024 * 1024 };
const MAX_NODES = 128;
const NODE_COUNT = whole(1, MAX_NODES);
const NODE_IDS = listOf('nodeids', id);

// What each call takes: see arguments.ts.
export const CLUSTER_OPTIONS: OptionKinds<ClusterOptions> = {
  nodes: kind(
    `a number of nodes from 1 to ${MAX_NODES}, or an array of as many different nodeids`,
    (nodes) =>
      Array.isArray(nodes)
        ? NODE_COUNT.accepts(nodes.length) && NODE_IDS.accepts(nodes) && areDistinct(nodes)
        : NODE_COUNT.accepts(nodes),
  ),
  address: callback,
  clock: oneOf('real', 'manual'),
  seed: whole(Number.MIN_SAFE_INTEGER),
  strict: boolean,
  ipc: oneOf(...IPC_TYPES),
  maxConnections: whole(1),
  handleSignals: boolean,
};
// eslint-disable-next-line @typescript-eslint/no-unused-vars -- a node has its own
const { address: _, ...NODE_CONNECT_OPTIONS } = CONNECT_OPTIONS;
const STREAM = kind<Duplex>(
  'a Duplex stream',
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    ['on', 'write', 'end', 'destroy'].every((method) => isFunction(value, method)),
);
const SIDES = kind<readonly (readonly number[])[]>(
  'an array of nodeids for each side, each node on one side',
  (sides) => Array.isArray(sides) && sides.every(Array.isArray) && areDistinct(sides.flat()),
);
const MS = number(0, Number.MAX_SAFE_INTEGER, 'milliseconds');
const SETTLED_OPTIONS: OptionKinds<SettledOptions> = { timeoutMs: MS, signal: abortSignal };
/** Numbers of clients begin here: easy to tell from nodeids, and from counts. */
const FIRST_CLIENT_PID = 1001;
/** Turns of the event loop without a request after which clients in this process have said all they had to. */
const QUIET_TURNS = 4;

type State = 'stopped' | 'starting' | 'running';

let createNode: (node: Node, control: NodeControl) => ClusterNode;

/** One node of a simulated cluster: `cluster.node(1)`, `server.node`. */
export class ClusterNode {
  /** The nodeid by which members know it. */
  readonly nodeId: number;
  /** Where clients connect; the same after a restart. */
  readonly address: string;
  readonly #node: Node;
  readonly #control: NodeControl;

  static {
    createNode = (node, control) => new ClusterNode(node, control);
  }

  private constructor(node: Node, control: NodeControl) {
    this.#node = node;
    this.#control = control;
    this.nodeId = node.nodeId;
    this.address = node.address;
  }

  /** False after crash() or stop(), until restart() resolves. */
  get running(): boolean {
    return this.#control.isRunning(this.#node);
  }

  /** Connected clients. */
  get clients(): number {
    return this.#node.clients;
  }

  /** The ring this node is in, and its nodes. */
  get ring(): { nodeId: number; seq: bigint; members: readonly number[] } {
    return { ...this.#node.ringId, members: this.#node.members };
  }

  /** The members of all groups, as this node knows them, in the order of nodeids and pids. */
  get members(): { group: string | Uint8Array; nodeId: number; pid: number }[] {
    return this.#node.processes().map(({ group, nodeId, pid }) => {
      return { group: groupText(groupBytesOf(group)), nodeId, pid };
    });
  }

  /** Connects a client to this node; see connect(). */
  async connect(options?: Omit<ConnectOptions, 'address'>): Promise<CpgClient> {
    const read = readOptions('connect', options, NODE_CONNECT_OPTIONS);
    const client = await connect({ ...read, address: this.address });
    if (this.#control.isUnrefed()) client.unref();
    return client;
  }

  /** Serves a client on a stream that was accepted elsewhere. */
  handle(stream: Duplex): void {
    this.#node.handle(check('handle', 'stream', stream, STREAM));
  }

  /** Replaces the faults of this node; none without an argument. */
  inject(faults?: Faults): void {
    this.#node.setFaults(faults);
  }

  /**
   * Hangs up on all clients, or on those that members know by this pid (before the join it is the one in the names
   * of the rings); returns how many there were.
   */
  disconnect(pid?: number): number {
    if (pid !== undefined) check('disconnect', 'pid', pid, id);
    return this.#node.disconnect(pid);
  }

  /** As by SIGKILL: its clients lose their connections, the other nodes lose its processes (reason 3). */
  crash(): void {
    this.#control.crash(this.#node);
  }

  /** As by SIGTERM: its processes leave (reason 5) before the node does. */
  stop(): void {
    this.#control.shutDown(this.#node);
  }

  /** Starts it again after crash() or stop(), empty and with its old address; or crashes it first. */
  restart(): Promise<void> {
    return this.#control.restart(this.#node);
  }
}

/** What a node's handle asks of the cluster. */
interface NodeControl {
  isRunning(node: Node): boolean;
  isUnrefed(): boolean;
  crash(node: Node): void;
  shutDown(node: Node): void;
  restart(node: Node): Promise<void>;
}

interface Place {
  node: Node;
  handle: ClusterNode;
  state: State;
  closed: Promise<void>;
  /** The side of the network it is on. */
  side: number;
}

/**
 * A cluster in this process. Nodes speak to clients as corosync does, over sockets and shared memory, so that
 * clients in any process can use it; among themselves they only pretend.
 */
export class SimulatedCluster {
  readonly #places = new Map<number, Place>();
  readonly #order: TotalOrder;
  readonly #mode: ClockMode;
  readonly #congestion = new Congestion((held) => this.#onCongestion(held));
  readonly #removeDirectory: () => void;
  #ignoreSignals: (() => void) | undefined;
  #congested = false;
  #unrefed = false;
  #lastClientPid = FIRST_CLIENT_PID - 1;
  #requests = 0;
  #stopping: Promise<void> | undefined;

  private constructor(options: ClusterOptions) {
    const { nodes = 1, clock = 'real', seed = 1, strict = true, ipc = 'shm' } = options;
    const { maxConnections = DEFAULT_MAX_CONNECTIONS } = options;
    this.#mode = clock;
    this.#order = new TotalOrder(clock, new Random(seed));
    const nodeIds =
      typeof nodes === 'number' ? Array.from({ length: nodes }, (_, index) => index + 1) : [...nodes];
    let addressOf = options.address;
    if (addressOf === undefined) {
      const { address, remove } = privateAddress('cpg');
      addressOf = (nodeId) => (nodeIds.length === 1 ? address : `${address}-${nodeId}`);
      this.#removeDirectory = remove;
    } else {
      this.#removeDirectory = () => undefined;
    }
    for (const nodeId of nodeIds) {
      const host: NodeHost = {
        strict,
        ipc,
        maxConnections,
        holdBytes: HOLD_BYTES[clock],
        faults: new FaultState(new Random(seed + nodeId)),
        isCongested: () => this.#congested,
        nextClientPid: () => ++this.#lastClientPid,
        submit: (node, message) => this.#order.submit(node, message),
        onBytesWaiting: (connection, bytes) => this.#congestion.update(connection, bytes),
        onClosed: (connection) => this.#congestion.forget(connection),
        onRequest: () => {
          this.#requests++;
        },
      };
      const address = check('SimulatedCluster.start', `address(${nodeId})`, addressOf(nodeId), ADDRESS);
      const node = new Node(nodeId, address, host);
      const handle = createNode(node, this.#control);
      this.#places.set(nodeId, { node, handle, state: 'stopped', closed: Promise.resolve(), side: 0 });
    }
  }

  /** Starts all nodes; resolves when they are one cluster and listen. Rejects as startServer(). */
  static async start(options?: ClusterOptions): Promise<SimulatedCluster> {
    const read = readOptions('SimulatedCluster.start', options, CLUSTER_OPTIONS);
    await removeLeftovers();
    // Better now than with each client.
    if (read.ipc === 'socket') findServerDatagrams();
    const cluster = new SimulatedCluster(read);
    const places = [...cluster.#places.values()];
    try {
      const started = await Promise.allSettled(places.map(({ node }) => node.listen()));
      const failure = started.find((result) => result.status === 'rejected');
      if (failure !== undefined) throw failure.reason;
    } catch (error) {
      await Promise.all(places.map(({ node }) => node.close()));
      cluster.#removeDirectory();
      throw error;
    }
    for (const place of places) {
      place.state = 'running';
      cluster.#order.add(place.node);
    }
    cluster.#form();
    if (read.handleSignals === true) cluster.#ignoreSignals = removeOnSignals();
    return cluster;
  }

  /** All nodes, also those that do not run. */
  get nodes(): ClusterNode[] {
    return [...this.#places.values()].map(({ handle }) => handle);
  }

  /** The node with this nodeid. */
  node(nodeId: number): ClusterNode {
    return this.#place('node', nodeId).handle;
  }

  /**
   * Cuts the network: nodes see those of their own group only; one that is not named sees nobody. Every side
   * forms its ring before this returns.
   */
  partition(...sides: readonly (readonly number[])[]): void {
    check('partition', 'sides', sides, SIDES);
    for (const nodeId of sides.flat()) this.#place('partition', nodeId);
    this.#catchUp();
    let alone = sides.length;
    for (const [nodeId, place] of this.#places) {
      const side = sides.findIndex((members) => members.includes(nodeId));
      place.side = side === -1 ? alone++ : side;
    }
    this.#form();
  }

  /** Joins the network again; all running nodes form one ring before this returns. */
  heal(): void {
    this.#catchUp();
    for (const place of this.#places.values()) place.side = 0;
    this.#form();
  }

  /**
   * Resolves when the cluster is at rest: no node is starting, everything that clients have sent is ordered, and every
   * event of it is in the rings of its clients. Delayed messages are waited for; with the manual clock it orders
   * what waits, as run() does. Clients of this process have had a few turns of the event loop to take their events, and
   * what they send then counts, too. Rejects with CS_ERR_TIMEOUT, which says what is not at rest.
   */
  async settled(options?: SettledOptions): Promise<void> {
    const { timeoutMs = SETTLED_TIMEOUT_MS, signal } = readOptions('settled', options, SETTLED_OPTIONS);
    const untilMs = monotonicMs() + timeoutMs;
    let unrest: string | undefined = 'clients send without a pause';
    const isOver = (): boolean => {
      if (signal?.aborted === true) throw signal.reason;
      return monotonicMs() >= untilMs;
    };
    do {
      if (this.#mode === 'manual') while ((await this.#stepOrAdvance()) && !isOver());
      const before = this.#unrest();
      const quiet = await this.#quiet(isOver);
      unrest = before ?? this.#unrest() ?? unrest;
      if (quiet && before === undefined && this.#unrest() === undefined) return;
      if (before !== undefined) await pause(1);
    } while (!isOver());
    throw new CpgError('CS_ERR_TIMEOUT', `settled: ${unrest}, after ${timeoutMs} ms`, {
      remedy: 'give more time, or see which client keeps it busy or does not read its events',
    });
  }

  /**
   * From now on neither the cluster nor clients that connect() makes keep the process alive, so that a test that
   * forgets stop() can end.
   */
  unref(): this {
    this.#unrefed = true;
    for (const { node } of this.#places.values()) node.unref();
    return this;
  }

  // ---- the manual clock ------------------------------------------------------------------------------------

  /** Milliseconds of the cluster's clock. */
  get nowMs(): number {
    return this.#order.nowMs;
  }

  /** Joins, leaves and messages that wait to be ordered. */
  get waiting(): number {
    return this.#order.waiting;
  }

  /**
   * Manual clock: waits until clients of this process have sent what they had to send, then orders one message
   * (or join, or leave) on all nodes of its ring. False when none may be ordered.
   */
  async step(): Promise<boolean> {
    this.#assertManual('step');
    await this.#quiet();
    return this.#order.step();
  }

  /** Manual clock: makes the time go on, so that delayed messages become due. */
  advance(byMs: number): void {
    this.#assertManual('advance');
    this.#order.advance(check('advance', 'byMs', byMs, MS));
  }

  /** Manual clock: steps and advances until nothing is left to do. Returns the number of messages ordered. */
  async run(): Promise<number> {
    this.#assertManual('run');
    let ordered = 0;
    for (;;) {
      const done = await this.#stepOrAdvance();
      if (done === undefined) return ordered;
      if (done === 'stepped') ordered++;
    }
  }

  async #stepOrAdvance(): Promise<'stepped' | 'advanced' | undefined> {
    if (await this.step()) return 'stepped';
    const waitMs = this.#order.nextDueInMs();
    if (waitMs === undefined) return undefined;
    this.#order.advance(waitMs);
    return 'advanced';
  }

  // ---- the end ---------------------------------------------------------------------------------------------

  /**
   * Hangs up on all clients when they have had their events, and removes everything; a client that does not read
   * is waited for a second. Can be called again.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    const untilMs = monotonicMs() + STOP_QUIET_MS;
    await this.#quiet(() => monotonicMs() >= untilMs);
    this.#catchUp();
    this.#order.close();
    await Promise.all(
      [...this.#places.values()].map(async (place) => {
        place.state = 'stopped';
        await Promise.all([place.node.finish(), place.closed]);
      }),
    );
    this.#congestion.close();
    this.#removeDirectory();
    this.#ignoreSignals?.();
  }

  readonly #control: NodeControl = {
    isRunning: (node) => this.#places.get(node.nodeId)!.state === 'running',
    isUnrefed: () => this.#unrefed,
    crash: (node) => this.#crash(this.#places.get(node.nodeId)!),
    shutDown: (node) => {
      const place = this.#places.get(node.nodeId)!;
      if (place.state !== 'running') return;
      this.#catchUp();
      // With the connections go their processes; the others hear of that while the node is still there.
      node.disconnect();
      this.#order.flush(node);
      this.#crash(place);
    },
    restart: async (node) => {
      const place = this.#places.get(node.nodeId)!;
      this.#crash(place);
      if (place.state === 'starting' || this.#isStopped()) throw stopped(node.nodeId);
      place.state = 'starting';
      try {
        await place.closed;
        await node.listen();
        // Who stopped the cluster meanwhile has closed what there was, and this came later.
        if (this.#isStopped()) throw stopped(node.nodeId);
      } catch (error) {
        place.state = 'stopped';
        await node.close();
        throw this.#isStopped() ? stopped(node.nodeId) : error;
      }
      place.state = 'running';
      node.reset();
      this.#order.add(node);
      this.#form();
    },
  };

  #isStopped(): boolean {
    return this.#stopping !== undefined;
  }

  #crash(place: Place): void {
    if (place.state !== 'running') return;
    this.#catchUp();
    place.state = 'stopped';
    // First out of the order: what its dying connections say reaches nobody.
    this.#order.remove(place.node);
    place.closed = place.node.close();
    this.#form();
  }

  /** What clients have handed over comes before what happens now. */
  #catchUp(): void {
    for (const { node, state } of this.#places.values()) if (state === 'running') node.readPosted();
    this.#order.catchUp();
  }

  /** Rings after any change of nodes or network. */
  #form(): void {
    const sides = new Map<number, Node[]>();
    for (const { node, state, side } of this.#places.values()) {
      if (state === 'running') sides.set(side, [...(sides.get(side) ?? []), node]);
    }
    this.#order.form([...sides.values()]);
  }

  #place(call: string, nodeId: number): Place {
    const place = this.#places.get(nodeId);
    if (place === undefined) {
      const known = [...this.#places.keys()].join(', ');
      throw invalid(call, 'nodeId', nodeId, `a nodeid of this cluster: ${known}`);
    }
    return place;
  }

  #onCongestion(held: boolean): void {
    this.#congested = held;
    for (const { node } of this.#places.values()) node.hold();
  }

  /** What is not at rest. */
  #unrest(): string | undefined {
    if (this.#order.waiting > 0) return `${this.#order.waiting} messages wait to be ordered`;
    for (const [nodeId, { node, state }] of this.#places) {
      if (state === 'starting') return `node ${nodeId} is starting`;
      const { busyClient } = node;
      if (busyClient !== undefined)
        return `client ${busyClient.pid} of node ${nodeId} has not taken all its events`;
    }
    return undefined;
  }

  /** Resolves when the event loop went round a few times and nobody asked anything; with false when `isOver` says so. */
  async #quiet(isOver = (): boolean => false): Promise<boolean> {
    let seen = this.#requests;
    for (let quietTurns = 0; quietTurns < QUIET_TURNS; quietTurns++) {
      if (isOver()) return false;
      await turn();
      if (this.#requests === seen) continue;
      seen = this.#requests;
      quietTurns = -1;
    }
    return true;
  }

  #assertManual(what: string): void {
    if (this.#mode !== 'manual') {
      throw new CpgError('CS_ERR_INVALID_PARAM', `${what} of a cluster with the real clock`, {
        remedy: "start it with { clock: 'manual' }",
      });
    }
  }
}

function areDistinct(list: readonly unknown[]): boolean {
  return new Set(list).size === list.length;
}

function stopped(nodeId: number): CpgError {
  return new CpgError('CS_ERR_BAD_HANDLE', `node ${nodeId} cannot be started now`, {
    remedy: 'it is starting already, or its cluster was stopped',
  });
}
