/** One node that serves CPG: corosync's socket without corosync. */
import type { Duplex } from 'node:stream';
import { id, readOptions, type OptionKinds } from '../arguments';
import type { ConnectOptions, CpgClient } from '../client';
import { ADDRESS } from '../transport/address';
import {
  CLUSTER_OPTIONS,
  SimulatedCluster,
  type ClusterNode,
  type ClusterOptions,
  type SettledOptions,
} from './cluster';

/** What startServer() takes. */
export interface ServerOptions extends Pick<
  ClusterOptions,
  'strict' | 'ipc' | 'maxConnections' | 'seed' | 'handleSignals'
> {
  /**
   * Where to listen: '/path' or '@name'.
   *
   * @default a socket in a private directory that close() removes
   */
  address?: string | undefined;
  /**
   * The nodeid by which members know the server's clients, a uint32 above 0.
   *
   * @default 1
   */
  nodeId?: number | undefined;
}

const { strict, ipc, maxConnections, seed, handleSignals } = CLUSTER_OPTIONS;
const SERVER_OPTIONS: OptionKinds<ServerOptions> = {
  strict,
  ipc,
  maxConnections,
  seed,
  handleSignals,
  address: ADDRESS,
  nodeId: id,
};

let createServer: (cluster: SimulatedCluster, node: ClusterNode) => CpgServer;

/** A CPG service of one node. Made by startServer(). */
export class CpgServer {
  readonly #cluster: SimulatedCluster;
  readonly #node: ClusterNode;

  static {
    createServer = (cluster, node) => new CpgServer(cluster, node);
  }

  private constructor(cluster: SimulatedCluster, node: ClusterNode) {
    this.#cluster = cluster;
    this.#node = node;
  }

  /** What to give to connect(). */
  get address(): string {
    return this.#node.address;
  }

  /** The nodeid by which members know its clients. */
  get nodeId(): number {
    return this.#node.nodeId;
  }

  /** The node behind it, for faults. */
  get node(): ClusterNode {
    return this.#node;
  }

  /** Connects a client; see connect(). */
  connect(options?: Omit<ConnectOptions, 'address'>): Promise<CpgClient> {
    return this.#node.connect(options);
  }

  /** Serves a client on a stream that was accepted elsewhere. */
  handle(stream: Duplex): void {
    this.#node.handle(stream);
  }

  /** See SimulatedCluster.settled(). */
  settled(options?: SettledOptions): Promise<void> {
    return this.#cluster.settled(options);
  }

  /** See SimulatedCluster.unref(). */
  unref(): this {
    this.#cluster.unref();
    return this;
  }

  /** Hangs up on all clients when they have had their events, and removes everything. Can be called again. */
  close(): Promise<void> {
    return this.#cluster.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Starts a server; resolves when it listens. Rejects with CpgError: CS_ERR_EXIST when somebody listens at the
 * address, CS_ERR_INVALID_PARAM for bad options, CS_ERR_ACCESS where this user may not write, CS_ERR_LIBRARY for a
 * directory that is not there, and as the system says otherwise.
 */
export async function startServer(options?: ServerOptions): Promise<CpgServer> {
  const { address, nodeId = 1, ...others } = readOptions('startServer', options, SERVER_OPTIONS);
  const cluster = await SimulatedCluster.start({
    ...others,
    nodes: [nodeId],
    ...(address === undefined ? {} : { address: () => address }),
  });
  return createServer(cluster, cluster.node(nodeId));
}
