import { once } from 'node:events';
import { notifyReady } from '../../native/notify';
import { SimulatedCluster } from '../../server';
import { defineCommand } from '../command';
import { jsonLine } from '../json';
import { TimeLimit } from '../limit';
import { integer, seconds, text } from '../options';

const MAX_NODES = 128;

export const serve = defineCommand({
  name: 'serve',
  summary: 'run an embedded server, for trying things out',
  description: [
    'Serves CPG without corosync, in the foreground, until it is interrupted. The first line it prints is the address to connect to; with --nodes it simulates a cluster and prints an address a line, that of node 1 first.',
  ],
  options: {
    address: text(
      'ADDRESS',
      "where to listen: '@name' or '/path'; node N of several listens at ADDRESS-N, the first one at ADDRESS; default $CPG_ADDRESS, else a socket in a private directory",
      'file',
    ),
    nodes: integer('N', `how many nodes the cluster has; default 1`, { max: MAX_NODES }),
    timeout: seconds('end after this time'),
  },
  examples: [
    {
      command: 'cpg serve --address /tmp/cpg',
      meaning: 'A daemon to play with; CPG_ADDRESS=/tmp/cpg cpg join orders talks to it.',
    },
    { command: 'cpg serve --nodes 3 --json', meaning: 'Three nodes of one cluster.' },
  ],
  run: async ({ env, out, signal }, { address: given, json, nodes = 1, timeout }) => {
    const address = given ?? env['CPG_ADDRESS'];
    const cluster = await SimulatedCluster.start({
      nodes,
      ...(address === undefined
        ? {}
        : { address: (nodeId) => (nodeId === 1 ? address : `${address}-${nodeId}`) }),
    });
    const limit = new TimeLimit(signal, timeout);
    try {
      for (const node of cluster.nodes) {
        await out.line(
          json ? jsonLine({ type: 'serve', nodeId: node.nodeId, address: node.address }) : node.address,
        );
      }
      notifyReady(env);
      if (!limit.signal.aborted) await once(limit.signal, 'abort');
    } finally {
      limit.dispose();
      await cluster.stop();
    }
  },
});
