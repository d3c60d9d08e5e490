/** Real corosync as an environment. */
import { startCorosync, type CorosyncOptions } from '../support/corosync';
import type { Environment } from './environment';

export async function realEnvironment(
  nodes: number,
  options: Omit<CorosyncOptions, 'nodes'> = {},
): Promise<Environment> {
  const cluster = await startCorosync({ ...options, nodes });
  return {
    nodeIds: cluster.nodes.map(({ nodeId }) => nodeId),
    address: (nodeId) => cluster.node(nodeId).address,
    isRunning: (nodeId) => cluster.node(nodeId).running,
    partition: (...sides) => cluster.partition(...sides),
    heal: () => cluster.heal(),
    crash: async (nodeId) => {
      await cluster.node(nodeId).kill();
      await cluster.settled();
    },
    shutDown: async (nodeId) => {
      await cluster.node(nodeId).stop();
      await cluster.settled();
    },
    restart: (nodeId) => cluster.node(nodeId).start(),
    hangUpMs: 30,
    close: () => cluster.stop(),
  };
}
