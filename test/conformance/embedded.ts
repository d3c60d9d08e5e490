/** The embedded cluster as an environment. */
import { SimulatedCluster, type ClusterOptions } from '../../src/server';
import type { Environment } from './environment';

export async function embeddedEnvironment(
  nodes: number,
  ipc: ClusterOptions['ipc'] = 'shm',
): Promise<Environment> {
  const cluster = await SimulatedCluster.start({ nodes, ipc });
  return {
    nodeIds: cluster.nodes.map(({ nodeId }) => nodeId),
    address: (nodeId) => cluster.node(nodeId).address,
    isRunning: (nodeId) => cluster.node(nodeId).running,
    partition: async (...sides) => cluster.partition(...sides),
    heal: async () => cluster.heal(),
    crash: async (nodeId) => cluster.node(nodeId).crash(),
    shutDown: async (nodeId) => cluster.node(nodeId).stop(),
    restart: (nodeId) => cluster.node(nodeId).restart(),
    hangUpMs: 5,
    close: () => cluster.stop(),
  };
}
