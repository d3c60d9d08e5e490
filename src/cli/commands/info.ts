import { MAX_MESSAGE_BYTES } from '../../codec/limits';
import { CpgError, isCpgError } from '../../errors';
import { providerStates, type ProviderState } from '../../native';
import { openTransport } from '../../session/connect';
import { Deadline } from '../../session/deadline';
import { Session } from '../../session/session';
import { DEFAULT_ADDRESS, describeAddress, resolveAddress } from '../../transport/address';
import { SHM_REMEDY } from '../../transport/causes';
import { DatagramTransport } from '../../transport/datagram-transport';
import { defineCommand, type Context } from '../command';
import { diagnose, type Asked } from '../doctor';
import { jsonLine } from '../json';
import { SHM_DIRECTORY } from '../../ring/paths';
import { Discovery } from '../../tap/live/discovery';
import { shmSpace, type Space } from '../surroundings';
import { counted, visible } from '../text';
import { requestTimeout } from './shared';

const DEFAULT_TIMEOUT_MS = 5000;
/** What the three rings of a connection take, in six files of a directory. */
const CONNECTION_MB = 3.2;
const CONNECTION_FILES = 7;

export const info = defineCommand({
  name: 'info',
  summary: 'is a daemon reachable, and if not, why',
  description: [
    'Connects to the daemon and prints where it listens, its pid, the local node id, and limits. If that fails it looks for the cause, tries where else a daemon may listen, and says what was found and what to do; docs/troubleshooting.md has all causes. Where it finds none it says so and shows the facts.',
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
    const asked = whereTo(given, context.env['CPG_ADDRESS']);
    const { address } = asked;
    try {
      const facts = await learn(address, timeout ?? DEFAULT_TIMEOUT_MS, context.signal);
      await (json ? context.out.line(jsonLine(facts)) : printFacts(context, facts));
    } catch (error) {
      if (context.signal.aborted || !isCpgError(error) || error.reason === 'bad-argument') throw error;
      const { cause, remedy, findings: found } = await diagnose(error, asked, context.signal);
      // A daemon that crashed left its rings.
      const findings = [...found, ...oddTexts(ringsInShm())];
      if (json) {
        await context.out.line(jsonLine({ type: 'info', address, reachable: false, cause, findings }));
      }
      for (const finding of findings) await context.err.line(finding);
      throw new CpgError(error.code, error.what, { cause: error, reason: error.reason, remedy });
    }
  },
});

/** As connect() decides it. */
function whereTo(given: string | undefined, environment: string | undefined): Asked {
  if (given !== undefined) return { address: given, from: 'option', environment };
  // An empty variable is an unset one.
  if (environment === undefined || environment === '') {
    return { address: DEFAULT_ADDRESS, from: 'default', environment };
  }
  return { address: environment, from: 'environment', environment };
}

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
  shm: Space | null;
  rings: Rings | null;
}

/** Connections of all services of this machine, and directories that are none, or whose processes are gone. */
type Rings = ReturnType<Discovery['survey']>;

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
      shm: shmSpace() ?? null,
      rings: ringsInShm(),
    };
    await session.close();
    return facts;
  } finally {
    limit.dispose();
  }
}

function ringsInShm(): Rings | null {
  try {
    return new Discovery(SHM_DIRECTORY).survey();
  } catch {
    return null;
  }
}

function ringsText({ connections, unreadable }: Rings): string {
  const others = unreadable === 0 ? '' : `, ${unreadable} more that may not be read`;
  return `${counted(connections, 'connection')} in ${SHM_DIRECTORY}${others}`;
}

/** What is left over, half made or not ours, each with what is wrong with it. */
function oddTexts(rings: Rings | null): string[] {
  return (rings?.odd ?? []).map(({ directory, text }) => `${visible(directory)}: ${visible(text)}`);
}

async function printFacts({ out }: Context, facts: Facts): Promise<void> {
  const { shm, rings } = facts;
  const rows = [
    ['address', describeAddress(resolveAddress(facts.address))],
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
    ['rings', rings === null ? 'cannot be looked at' : ringsText(rings)],
    ...oddTexts(rings).map((text) => ['', text] as const),
  ] as const;
  for (const [name, value] of rows) await out.line(`${out.paint('bold', name.padEnd(12))}  ${value}`);
}

function spaceText({ freeBytes, totalBytes, freeFiles, totalFiles }: Space): string {
  // A tmpfs without a limit says 0 of 0.
  const limits = [
    ...(totalBytes === 0 ? [] : [`${megabytes(freeBytes)} MB free of ${megabytes(totalBytes)}`]),
    ...(totalFiles === 0 || freeFiles >= CONNECTION_FILES
      ? []
      : [`${freeFiles} files free of ${totalFiles}`]),
  ];
  const room = limits.length === 0 ? 'without a limit' : limits.join(', ');
  const tooLittle =
    (totalBytes > 0 && freeBytes < CONNECTION_MB * 1e6) || (totalFiles > 0 && freeFiles < CONNECTION_FILES);
  return tooLittle
    ? `${room}, too little for another connection: ${SHM_REMEDY}`
    : `${room} (a connection takes ${CONNECTION_MB})`;
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
