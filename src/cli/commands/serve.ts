import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { notifyReady } from '../../native/notify';
import { SimulatedCluster, type ClusterNode } from '../../server';
import { defineCommand, type Context } from '../command';
import { failureLine } from '../failure';
import { jsonLine } from '../json';
import { TimeLimit } from '../limit';
import { lines } from '../lines';
import { integer, seconds, text } from '../options';
import { groupLabel, visible } from '../text';

const MAX_NODES = 128;
const MAX_LINE_BYTES = 64 * 1024;

export const serve = defineCommand({
  name: 'serve',
  summary: 'run an embedded server, for trying things out',
  description: [
    'Serves CPG without corosync, in the foreground, until it is interrupted. The first line it prints is the address to connect to; with --nodes it simulates a cluster and prints an address a line, that of node 1 first.',
    "Commands are read from standard input, one a line, and answered on standard error: 'partition 1 / 2,3' cuts the network (a node that is not named is alone), 'heal' joins it again, 'crash N' and 'restart N' do that to node N, 'status' shows nodes, networks and groups, 'help' the commands. When standard input ends the server goes on.",
  ],
  options: {
    address: text(
      'ADDRESS',
      "where to listen: '@name' or '/path'; node N of several listens at ADDRESS-N, the first one at ADDRESS; default $CPG_ADDRESS, else a socket in a private directory. Any user of the machine can connect to an '@name', and only use up places",
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
    {
      command: 'echo partition 1 / 2,3 | cpg serve --nodes 3',
      meaning: 'A cluster whose network is cut from the beginning.',
    },
  ],
  run: async ({ stdin, env, out, err, signal }, { address: given, json, nodes = 1, timeout }) => {
    // An empty variable is as good as none, as for the client.
    const address = given ?? (env['CPG_ADDRESS'] === '' ? undefined : env['CPG_ADDRESS']);
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
      if (out.terminal && !json) await err.write(hint(cluster));
      // Whatever becomes of standard input and error, the server goes on.
      if (mayRead(stdin)) {
        const reading = obey(cluster, stdin, err).catch((error: unknown) =>
          err.line(failureLine(error, 'serve')),
        );
        reading.catch(() => undefined);
      }
      notifyReady(env);
      if (!limit.signal.aborted) await once(limit.signal, 'abort');
    } finally {
      limit.dispose();
      await cluster.stop();
    }
  },
});

type Command = (cluster: SimulatedCluster, words: string) => Promise<string> | string;

interface Described {
  readonly usage: string;
  readonly meaning: string;
  readonly run: Command;
}

const COMMANDS: Record<string, Described> = {
  partition: {
    usage: 'partition 1 / 2,3',
    meaning: 'cut the network; a node that is not named is alone',
    run: (cluster, words) => {
      const sides = words.split('/').map((side) => side.split(',').map((word) => nodeId(cluster, word)));
      cluster.partition(...sides);
      return network(cluster);
    },
  },
  heal: {
    usage: 'heal',
    meaning: 'join the network again',
    run: (cluster, words) => {
      nothingMore(words);
      cluster.heal();
      return network(cluster);
    },
  },
  crash: {
    usage: 'crash N',
    meaning: 'kill node N; its clients lose their connections',
    run: (cluster, word) => {
      const node = cluster.node(nodeId(cluster, word));
      if (!node.running) throw new Mistake(`node ${node.nodeId} does not run`);
      node.crash();
      return `node ${node.nodeId} crashed`;
    },
  },
  restart: {
    usage: 'restart N',
    meaning: 'start node N again; crash it first if it runs',
    run: async (cluster, word) => {
      const node = cluster.node(nodeId(cluster, word));
      await node.restart();
      return `node ${node.nodeId} runs`;
    },
  },
  status: {
    usage: 'status',
    meaning: 'show nodes, networks and groups',
    run: (cluster, words) => {
      nothingMore(words);
      return status(cluster);
    },
  },
  help: {
    usage: 'help',
    meaning: 'show the commands',
    run: () => help(),
  },
};

/** A line that cannot be obeyed. */
class Mistake extends Error {}

/** A process in the background that reads from its terminal would be stopped. */
function mayRead(stdin: Context['stdin']): boolean {
  if (stdin.isTTY !== true) return true;
  try {
    // After the name, which may hold anything: state, parent, process group, session, terminal, its foreground group.
    const [, , group, , , foreground] = readFileSync('/proc/self/stat', 'latin1')
      .split(') ')
      .at(-1)!
      .split(' ');
    return group === foreground;
  } catch {
    return true;
  }
}

/** Obeys each line until standard input ends. */
async function obey(cluster: SimulatedCluster, stdin: Context['stdin'], err: Context['err']): Promise<void> {
  for await (const bytes of lines(stdin, MAX_LINE_BYTES)) {
    const line = bytes.toString().trim();
    if (line === '') continue;
    await err.line(await answer(cluster, line));
  }
}

async function answer(cluster: SimulatedCluster, line: string): Promise<string> {
  const [name = '', ...rest] = line.split(/\s+/);
  const known = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (known === undefined) {
    return `cpg: '${visible(name)}' is not a command: ${Object.keys(COMMANDS).join(', ')}`;
  }
  try {
    return await known.run(cluster, rest.join(' '));
  } catch (error) {
    if (error instanceof Mistake) return `cpg: ${visible(error.message)}; try: ${known.usage}`;
    return failureLine(error, 'serve');
  }
}

function nodeId(cluster: SimulatedCluster, word: string): number {
  const known = cluster.nodes.map((node) => node.nodeId);
  const text = word.trim();
  const id = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!known.includes(id)) {
    throw new Mistake(
      text === '' ? 'a node is missing' : `'${text}' is none of the nodes ${known.join(', ')}`,
    );
  }
  return id;
}

function nothingMore(words: string): void {
  if (words !== '') throw new Mistake(`'${words}' is too much`);
}

/** The nodes that see each other, as `2,3`, with one of them. */
function sides(cluster: SimulatedCluster): [side: string, node: ClusterNode][] {
  const running = cluster.nodes.filter((node) => node.running);
  return [...new Map(running.map((node) => [node.ring.members.join(','), node]))];
}

function network(cluster: SimulatedCluster): string {
  const names = sides(cluster).map(([side]) => side);
  return `network: ${names.length === 0 ? 'no node runs' : names.join(' / ')}`;
}

function status(cluster: SimulatedCluster): string {
  const nodes = cluster.nodes.map((node) => {
    const what = node.running
      ? `${node.clients} ${node.clients === 1 ? 'client' : 'clients'}`
      : 'does not run';
    return `node ${node.nodeId}: ${what}, ${node.address}`;
  });
  const groups = sides(cluster).flatMap(([side, { members }], _, all) => {
    const names = new Map<string, string[]>();
    for (const { group, nodeId, pid } of members) {
      const label = groupLabel(group);
      names.set(label, [...(names.get(label) ?? []), `${nodeId}.${pid}`]);
    }
    const where = all.length > 1 ? ` on ${side}` : '';
    return [...names].map(([group, processes]) => `group ${group}${where}: ${processes.join(' ')}`);
  });
  return [...nodes, network(cluster), ...(groups.length > 0 ? groups : ['no groups'])].join('\n');
}

function help(): string {
  const width = Math.max(...Object.values(COMMANDS).map(({ usage }) => usage.length));
  return Object.values(COMMANDS)
    .map(({ usage, meaning }) => `${usage.padEnd(width)}  ${meaning}`)
    .join('\n');
}

/** What to try next. */
function hint(cluster: SimulatedCluster): string {
  const [first, second = first] = cluster.nodes;
  const several = cluster.nodes.length > 1;
  return [
    '',
    'Try in other terminals:',
    `  cpg join orders --address ${first!.address}`,
    `  cpg join orders --address ${second!.address}`,
    `Then here: ${several ? "'partition 1 / 2', 'heal', 'crash 2', 'restart 2', " : "'crash 1', 'restart 1', "}'status', 'help'. Ctrl-C ends it.`,
    '',
  ].join('\n');
}
