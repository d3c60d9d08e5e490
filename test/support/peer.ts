/**
 * Members of a group that use libcpg: builds fixtures/c/peer.c once and drives it. What it prints is described there.
 */
import { spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { CorosyncNode } from './corosync';
import { ROOT } from './root';

const SOURCE = join(ROOT, 'fixtures', 'c', 'peer.c');
const CACHE = join(ROOT, 'node_modules', '.cache', 'corosync-cpg');
const PEER_FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra'];
const DEFAULT_WAIT_MS = 30_000;

export interface PeerOptions {
  /** Send this many numbered messages ... */
  send?: number;
  /** ... of this many bytes (default 64) ... */
  size?: number;
  /** ... once the group has this many members (default 1). */
  members?: number;
  /** End after this many deliveries, own ones included. Without it the peer runs until quit(). */
  expect?: number;
  /** Wait for quit() even when everything expected has come. */
  stay?: boolean;
  /** No line for each delivery, only the digest at the end. */
  digest?: boolean;
  /** Send as fast as libcpg can. */
  flood?: boolean;
  /** Send so many a second, evenly. */
  rate?: number;
  /** The peer gives up after this many seconds (default 60). */
  timeoutSeconds?: number;
}

export interface PeerAddress {
  nodeId: number;
  pid: number;
  reason: number;
}

export interface PeerConfchg {
  members: PeerAddress[];
  left: PeerAddress[];
  joined: PeerAddress[];
}

export interface PeerDelivery {
  nodeId: number;
  pid: number;
  length: number;
  /** The first four bytes as a little-endian number; undefined for shorter messages. */
  first: number | undefined;
  /** FNV-1a 64 of the message, in hex. */
  hash: string;
}

export interface PeerSummary {
  sent: number;
  received: number;
  seconds: number;
  digest: string;
}

let built: { path: string } | { reason: string } | undefined;

/** The path of the compiled peer; throws when it cannot be built, with the reason as the message. */
export function buildPeer(): string {
  built ??= compile();
  if ('reason' in built) throw new Error(built.reason);
  return built.path;
}

/** Why there can be no libcpg peer here, as one sentence; undefined when there is one. Builds it when needed. */
export function peerUnavailable(): string | undefined {
  built ??= compile();
  if (!('reason' in built)) return undefined;
  if (process.env['CPG_REQUIRE_COROSYNC'] === '1') {
    throw new Error(`CPG_REQUIRE_COROSYNC is set, but ${built.reason}`);
  }
  return built.reason;
}

/** Builds the peer with the headers and libraries of the system in `root`; returns why it cannot be. */
export function buildPeerFor(root: string, output: string, compiler: string): string | undefined {
  const asked = spawnSync(compiler, ['-print-multiarch'], { encoding: 'utf8' });
  if (asked.error) return `${compiler} is not installed`;
  // A compiler looks for libc in its own system first, whatever it is told by --sysroot.
  const libraries = join(root, 'usr/lib', asked.stdout.trim());
  const there = [`--sysroot=${root}`, `-B${libraries}/`, `-L${libraries}`];
  const gcc = spawnSync(compiler, [...PEER_FLAGS, ...there, '-o', output, SOURCE, '-lcpg'], {
    encoding: 'utf8',
  });
  return gcc.status === 0 ? undefined : (/.*(error|cannot).*/.exec(gcc.stderr)?.[0] ?? gcc.stderr.trim());
}

function compile(): { path: string } | { reason: string } {
  const version = createHash('sha256').update(readFileSync(SOURCE)).digest('hex').slice(0, 12);
  const path = join(CACHE, `peer-${version}`);
  if (existsSync(path)) return { path };
  mkdirSync(CACHE, { recursive: true });
  // Several test processes may be here at once: each builds its own, and the last rename wins.
  const own = `${path}.${process.pid}`;
  const gcc = spawnSync('gcc', [...PEER_FLAGS, '-o', own, SOURCE, '-lcpg'], { encoding: 'utf8' });
  if (gcc.error) return { reason: 'the C peer needs gcc, which is not installed.' };
  if (gcc.status !== 0) {
    const line = /.*error.*/.exec(gcc.stderr)?.[0] ?? gcc.stderr.trim();
    return { reason: `the C peer cannot be built, is libcpg-dev installed? (${line})` };
  }
  renameSync(own, path);
  return { path };
}

/** A running peer. It prints, this collects. */
export class Peer {
  readonly confchgs: PeerConfchg[] = [];
  readonly deliveries: PeerDelivery[] = [];
  /** Everything it wrote to its standard output and error, for messages. */
  output = '';
  nodeId = 0;
  pid = 0;
  left = false;
  complete = false;
  summary: PeerSummary | undefined;
  readonly #child: ChildProcess;
  readonly #watchers = new Set<() => void>();
  #partialLine = '';
  #ended = false;

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.output += text));
    // A peer that has ended no longer reads its commands; that shows as its end, not as an error of the pipe.
    child.stdin?.on('error', () => undefined);
    child.once('error', (error) => (this.output += String(error)));
    child.once('close', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The latest members it was told, '' before it joined: '1:4711,2:815', node id and pid. */
  get members(): string {
    const members = this.confchgs.at(-1)?.members ?? [];
    return members.map(({ nodeId, pid }) => `${nodeId}:${pid}`).join();
  }

  /** Resolves when the condition holds; it is looked at whenever the peer has printed something. */
  async until(what: string, condition: (peer: this) => boolean, timeoutMs = DEFAULT_WAIT_MS): Promise<void> {
    await new Promise<void>((done, fail) => {
      const finish = (problem?: string): void => {
        clearTimeout(deadline);
        this.#watchers.delete(check);
        if (problem === undefined) done();
        else fail(new Error(`${problem} while waiting for the peer: ${what}\n${this.output.slice(-2000)}`));
      };
      const check = (): void => {
        if (condition(this)) finish();
        else if (this.#ended) finish('it ended');
      };
      const deadline = setTimeout(() => finish('the time ran out'), timeoutMs);
      this.#watchers.add(check);
      check();
    });
  }

  /** Resolves when it sees a group of this many members. */
  async untilMembers(count: number, timeoutMs?: number): Promise<void> {
    await this.until(`${count} members`, () => this.confchgs.at(-1)?.members.length === count, timeoutMs);
  }

  async untilDelivered(count: number, timeoutMs?: number): Promise<void> {
    await this.until(`${count} deliveries`, () => this.deliveries.length >= count, timeoutMs);
  }

  /** Resolves when it has sent what it was to send and received what it was to expect. */
  async untilComplete(timeoutMs?: number): Promise<void> {
    await this.until('everything expected', () => this.complete, timeoutMs);
  }

  send(text: string): void {
    this.#command(`send ${text}`);
  }

  async leave(): Promise<void> {
    this.#command('leave');
    await this.until('its leave', () => this.left);
  }

  /** Lets it leave and end. */
  async quit(): Promise<PeerSummary> {
    this.#command('quit');
    return this.done();
  }

  /** Resolves when it has ended in good order. */
  async done(timeoutMs?: number): Promise<PeerSummary> {
    await this.until('its end', () => this.#ended, timeoutMs);
    if (!this.summary) throw new Error(`the peer failed: ${this.output.slice(-2000)}`);
    return this.summary;
  }

  /** Ends it without a word to its daemon. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.until('its end', () => this.#ended);
  }

  #command(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  #read(text: string): void {
    const lines = (this.#partialLine + text).split('\n');
    this.#partialLine = lines.pop() ?? '';
    for (const line of lines) this.#readLine(line);
    this.#wake();
  }

  #readLine(line: string): void {
    const [kind, ...words] = line.split(' ');
    if (kind === 'deliver') {
      const [nodeId, pid, length, first, hash = ''] = words;
      this.deliveries.push({
        nodeId: Number(nodeId),
        pid: Number(pid),
        length: Number(length),
        first: first === '-' ? undefined : Number(first),
        hash,
      });
      return;
    }
    this.output += `${line}\n`;
    const values = new Map(words.map((word) => word.split('=', 2) as [string, string]));
    if (kind === 'local') [this.nodeId = 0, this.pid = 0] = words.map(Number);
    else if (kind === 'left') this.left = true;
    else if (kind === 'complete') this.complete = true;
    else if (kind === 'confchg') {
      this.confchgs.push({
        members: addresses(values.get('members')),
        left: addresses(values.get('left')),
        joined: addresses(values.get('joined')),
      });
    } else if (kind === 'done') {
      this.summary = {
        sent: Number(values.get('sent')),
        received: Number(values.get('received')),
        seconds: Number(values.get('seconds')),
        digest: values.get('digest') ?? '',
      };
    }
  }
}

/** Starts a peer on a node, in a container of it or in its system, and resolves when it has joined the group. */
export async function startPeer(
  node: Pick<CorosyncNode, 'spawn'>,
  group: string,
  options: PeerOptions = {},
  program = buildPeer(),
): Promise<Peer> {
  const args = [group];
  const add = (flag: string, value: number | undefined): void => {
    if (value !== undefined) args.push(flag, String(value));
  };
  add('--send', options.send);
  add('--size', options.size);
  add('--members', options.members);
  add('--expect', options.expect);
  add('--rate', options.rate);
  add('--timeout', options.timeoutSeconds);
  if (options.stay) args.push('--stay');
  if (options.digest) args.push('--digest');
  if (options.flood) args.push('--flood');
  const peer = new Peer(node.spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] }));
  await peer.until('its join', () => peer.confchgs.length > 0);
  return peer;
}

function addresses(text = ''): PeerAddress[] {
  if (text === '') return [];
  return text.split(',').map((part) => {
    const [nodeId = 0, pid = 0, reason = 0] = part.split(':').map(Number);
    return { nodeId, pid, reason };
  });
}

/**
 * FNV-1a with 64 bits, as the peer computes it. The number is kept in two halves, because a BigInt for each byte would be
 * some fifty times slower.
 */
export class Fnv1a64 {
  #high = 0xcbf29ce4;
  #low = 0x84222325;

  update(bytes: Uint8Array): this {
    let high = this.#high;
    let low = this.#low;
    for (const byte of bytes) {
      low = (low ^ byte) >>> 0;
      // times 2^40 + 0x1b3
      const product = low * 0x1b3;
      high = (high * 0x1b3 + Math.floor(product / 0x1_0000_0000) + ((low << 8) >>> 0)) >>> 0;
      low = product >>> 0;
    }
    this.#high = high;
    this.#low = low;
    return this;
  }

  /** In the form the peer prints. */
  hex(): string {
    return [this.#high, this.#low].map((half) => half.toString(16).padStart(8, '0')).join('');
  }
}

/** The peer's digest of everything delivered, for the deliveries of another implementation. */
export class DeliveryDigest {
  count = 0;
  readonly #hash = new Fnv1a64();
  readonly #head = Buffer.alloc(12);

  add(nodeId: number, pid: number, message: Uint8Array): void {
    this.#head.writeUInt32LE(nodeId, 0);
    this.#head.writeUInt32LE(pid, 4);
    this.#head.writeUInt32LE(message.length, 8);
    this.#hash.update(this.#head).update(message);
    this.count++;
  }

  hex(): string {
    return this.#hash.hex();
  }
}

/** The message the peer sends under this number. */
export function numberedMessage(number: number, nodeId: number, pid: number, size: number): Buffer {
  const message = Buffer.alloc(Math.max(size, 12));
  message.writeUInt32LE(number, 0);
  message.writeUInt32LE(nodeId, 4);
  message.writeUInt32LE(pid, 8);
  for (let i = 12; i < size; i++) message[i] = (i + number) & 0xff;
  return message.subarray(0, size);
}
