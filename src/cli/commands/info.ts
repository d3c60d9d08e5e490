import { statfsSync } from 'node:fs';
import { MAX_MESSAGE_BYTES } from '../../codec/limits';
import { CpgError, isCpgError } from '../../errors';
import { providerStates, type ProviderState } from '../../native';
import { openTransport } from '../../session/connect';
import { Deadline } from '../../session/deadline';
import { Session } from '../../session/session';
import { DEFAULT_ADDRESS } from '../../transport/address';
import { DatagramTransport } from '../../transport/datagram-transport';
import { SHM_REMEDY } from '../../transport/service-socket';
import { defineCommand, type Context } from '../command';
import { diagnose, type Diagnosis } from '../doctor';
import { jsonLine } from '../json';
import { requestTimeout } from './shared';

const DEFAULT_TIMEOUT_MS = 5000;
/** What the three rings of a connection take. */
const CONNECTION_MB = 3.2;

export const info = defineCommand({
  name: 'info',
  summary: 'is a daemon reachable, and if not, why',
  description: [
    'Connects to the daemon and prints where it listens, its pid, the local node id, and limits. If that fails it looks for the usual causes: not running, permission, another network namespace, a /dev/shm that is not shared or too small, qb_ipc_type: socket; and says what to do.',
  ],
  options: { timeout: requestTimeout },
  examples: [
    { command: 'cpg info', meaning: 'Look at the daemon of this machine.' },
    { command: 'cpg info --json | jq .localNodeId', meaning: 'The id of this node.' },
    {
      command: 'cpg info --address /run/corosync-test/cpg',
      meaning: 'Look at a daemon with sockets in the file system.',
    },
  ],
  run: async (context, { address: given, json, timeout }) => {
    const address = given ?? context.env['CPG_ADDRESS'] ?? DEFAULT_ADDRESS;
    try {
      const facts = await learn(address, timeout ?? DEFAULT_TIMEOUT_MS, context.signal);
      await (json ? context.out.line(jsonLine(facts)) : printFacts(context, facts));
    } catch (error) {
      if (context.signal.aborted || !isCpgError(error)) throw error;
      const diagnosis = diagnose(error, address);
      if (json) {
        const { cause, findings } = diagnosis;
        await context.out.line(jsonLine({ type: 'info', address, reachable: false, cause, findings }));
      }
      throw await explained(context, error, diagnosis);
    }
  },
});

interface Facts {
  type: 'info';
  address: string;
  reachable: true;
  transport: 'shm' | 'socket';
  daemonPid: number;
  localNodeId: number;
  /** As the daemon sees it; 0 when it cannot. */
  pid: number;
  maxAtomicMessageSize: number;
  maxMessageSize: number;
  flowControl: boolean;
  /** What there is for things that Node cannot do: see src/native/. */
  native: string[];
  shm: { freeBytes: number; totalBytes: number } | null;
}

const nothing = (): void => undefined;

async function learn(address: string, timeoutMs: number, signal: AbortSignal): Promise<Facts> {
  const limit = new Deadline('connect', timeoutMs, signal);
  try {
    const transport = await openTransport(address, limit);
    const session = new Session(transport, { timeoutMs, pid: undefined, onDrain: nothing });
    transport.listen({
      ...session.listener,
      onEvents: nothing,
      onClose: (reason) => session.end(reason),
    });
    await session.open(limit);
    const facts: Facts = {
      type: 'info',
      address,
      reachable: true,
      transport: transport instanceof DatagramTransport ? 'socket' : 'shm',
      daemonPid: transport.serverPid,
      localNodeId: session.nodeId,
      pid: transport.clientPid,
      maxAtomicMessageSize: session.maxAtomicMessageSize,
      maxMessageSize: MAX_MESSAGE_BYTES,
      flowControl: transport.flowControl(),
      native: usableProviders().map(({ name }) => name),
      shm: shmSpace(),
    };
    await session.close();
    return facts;
  } finally {
    limit.dispose();
  }
}

function shmSpace(): Facts['shm'] {
  try {
    const { bsize, bavail, blocks } = statfsSync('/dev/shm');
    return { freeBytes: bsize * bavail, totalBytes: bsize * blocks };
  } catch {
    return null;
  }
}

async function printFacts({ out }: Context, facts: Facts): Promise<void> {
  const { shm } = facts;
  const rows = [
    ['address', facts.address],
    ['daemon', `pid ${facts.daemonPid}`],
    ['transport', facts.transport === 'shm' ? 'shared memory' : 'datagram sockets'],
    ['node id', `${facts.localNodeId}`],
    [
      'our pid',
      facts.pid === 0
        ? 'not seen by the daemon (another pid namespace): a member announces a random one'
        : `${facts.pid}`,
    ],
    ['message', `${facts.maxAtomicMessageSize} bytes in one piece, ${facts.maxMessageSize} in fragments`],
    ['flow control', facts.flowControl ? 'on: the daemon asks to hold' : 'off'],
    ['native', nativeText()],
    ['/dev/shm', shm === null ? 'cannot be looked at' : spaceText(shm)],
  ] as const;
  for (const [name, value] of rows) await out.line(`${out.paint('bold', name.padEnd(12))}  ${value}`);
}

function spaceText({ freeBytes, totalBytes }: NonNullable<Facts['shm']>): string {
  // A tmpfs without a limit says 0 of 0.
  if (totalBytes === 0) return 'without a limit';
  const free = `${megabytes(freeBytes)} MB free of ${megabytes(totalBytes)}`;
  if (freeBytes < CONNECTION_MB * 1e6) return `${free}, too little for another connection: ${SHM_REMEDY}`;
  return `${free} (a connection takes ${CONNECTION_MB})`;
}

function usableProviders(): ProviderState[] {
  return providerStates().filter(({ whyNot }) => whyNot === undefined);
}

/** Which way there is to what Node cannot do itself, and what it brings. */
function nativeText(): string {
  const texts = usableProviders().map(({ name, brings }) => `${name} (${brings})`);
  return texts.join(', ') || 'none of koffi, node:ffi, unix-dgram: rings through files, no datagrams';
}

function megabytes(bytes: number): number {
  return Math.floor(bytes / 1e6);
}

/** What was found goes to standard error; the cause that was found replaces the general advice. */
async function explained(
  { err }: Context,
  error: CpgError,
  { remedy, findings }: Diagnosis,
): Promise<CpgError> {
  for (const finding of findings) await err.line(finding);
  return new CpgError(error.code, error.what, { cause: error, remedy: remedy ?? error.remedy });
}
