/** What users write, in the syntax of the lowest TypeScript. */
import { once } from 'node:events';
import type { EventEmitter } from 'node:events';
import { connect, CpgError, isCpgError, Reason } from 'corosync-cpg';
import type {
  ConnectOptions,
  CpgAddress,
  CpgClient,
  CpgEvent,
  CpgEventLoop,
  DeliverEvent,
} from 'corosync-cpg';
import { decodeEvent, decodeRequest, encodeRequest } from 'corosync-cpg/codec';
import { SimulatedCluster, startServer } from 'corosync-cpg/server';
import type { CpgServer } from 'corosync-cpg/server';
import { Conversations, describeMessage, Tap } from 'corosync-cpg/tap';

const options: ConnectOptions = { address: '@cpg', timeoutMs: 100, signal: new AbortController().signal };

export async function use(): Promise<number> {
  const client: CpgClient = await connect(options);
  const emitter: EventEmitter = client;
  client.on('deliver', ({ group, nodeId, pid, own, message }) => {
    const all: [string | Uint8Array, number, number, boolean, Buffer] = [group, nodeId, pid, own, message];
    emitter.emit('mine', all);
  });
  client.once('confchg', ({ joined }) => joined.filter(({ reason }: CpgAddress) => reason === Reason.JOIN));
  client
    .prependListener('totemConfchg', ({ ringId }) => ringId.seq > BigInt(1))
    .off('drain', () => undefined);
  client.on('close', (reason?: CpgError) => reason?.code === 'CS_ERR_LIBRARY');
  // @ts-expect-error there is no such event
  client.on('nonsense', () => undefined);
  // @ts-expect-error a deliver has no such field
  client.on('deliver', ({ nonsense }) => nonsense);
  await client.join('g', { initialTotemConfchg: true });
  await client.mcast([Buffer.from('x'), new Uint8Array(2)], { confirm: true, guarantee: 'AGREED' });
  while (!client.tryMcast(new DataView(new ArrayBuffer(1)))) await once(client, 'drain');
  const loop: CpgEventLoop = client.events({ signal: AbortSignal.timeout(5) });
  const first = await loop.next();
  if (first.done !== true) console.log(first.value.type);
  for await (const event of client) {
    const one: CpgEvent = event;
    if (one.type === 'deliver') return (one as DeliverEvent).message.length;
  }
  for await (const { group, pid } of client.groups({ namesOnly: true })) console.log(group, pid);
  const members: CpgAddress[] = await client.membership();
  return members.length;
}

export async function serve(): Promise<string> {
  const server: CpgServer = await startServer({ nodeId: 7 });
  const cluster = await SimulatedCluster.start({ nodes: 3, clock: 'manual', seed: 1 });
  cluster.partition([1], [2, 3]);
  cluster.node(2).inject({ delayMs: [1, 5], refuse: 'EACCES' });
  await cluster.stop();
  await server.close();
  return server.address;
}

export async function tap(): Promise<void> {
  const conversations = new Conversations();
  for await (const { frames } of new Tap({ signal: AbortSignal.timeout(5) }).batches())
    for (const frame of frames) console.log(describeMessage(conversations.add(frame)).what);
}

export function code(error: unknown): string {
  const event = decodeEvent(new Uint8Array(8));
  if (event.type === 'deliver') return event.message.toString();
  if (error instanceof CpgError) return error.remedy;
  return isCpgError(error) ? error.code : decodeRequest(encodeRequest({ type: 'localGet' })).type;
}
