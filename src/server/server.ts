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

/** Options of startServer(). */
export interface ServerOptions extends Pick<
  ClusterOptions,
  'strict' | 'ipc' | 'maxConnections' | 'seed' | 'handleSignals'
> {
  /**
   * The address to listen at: '/path' or '@name'.
   *
   * @default a socket in a private directory that close() removes
   */
  address?: string | undefined;
  /**
   * The nodeid of the server's clients, a uint32 above 0.
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

  /** The address for connect(). */
  get address(): string {
    return this.#node.address;
  }

  /** The nodeid of its clients. */
  get nodeId(): number {
    return this.#node.nodeId;
  }

  /** The underlying node, for faults. */
  get node(): ClusterNode {
    return this.#node;
  }

  /** Connects a client; see connect(). */
  connect(options?: Omit<ConnectOptions, 'address'>): Promise<CpgClient> {
    return this.#node.connect(options);
  }

  /** Serves a client on a stream accepted elsewhere. */
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

  /** Disconnects all clients after they have received their events, and removes everything. Idempotent. */
  close(): Promise<void> {
    return this.#cluster.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Starts a server; resolves when it listens. Rejects with CpgError: CS_ERR_EXIST if another server listens at the address,
 * CS_ERR_INVALID_PARAM for bad options, CS_ERR_ACCESS if this user may not write there, CS_ERR_LIBRARY for a missing
 * directory, and otherwise by the system's error.
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
