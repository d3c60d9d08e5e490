/**
 * Private, real corosync daemons for tests.
 *
 * Every node lives in a network and a mount namespace of its own, so nothing of it can be seen from the machine that runs
 * the tests, and nothing of that machine (a production corosync, say) can be seen or touched by it:
 *
 *      test process (root namespaces)
 *        |-- switch    network namespace: br0, br1, ... one bridge for each side of a partition
 *        |-- holder 1  network + mount namespace of node 1: lo, eth0 = 10.77.0.1, private /run, /tmp and /etc
 *        |     `-- corosync, and whatever node.spawn() starts
 *        |-- holder 2  ...
 *
 * The namespaces have no names. Each is held open by a `cat` that reads a pipe from this process, and every daemon carries
 * a parent-death signal; so when the test process dies, even by SIGKILL, the kernel takes all of it away.
 *
 * `sockets: 'filesystem'` (the default) makes libqb put its sockets in a directory both sides can see, so that the test
 * process itself can connect although abstract sockets stop at the border of a network namespace. With `'abstract'` the
 * daemon behaves as it does out of the box, and only what `node.spawn()` starts can reach it.
 * /dev/shm is shared in both cases, because that is where the rings are.
 */
import { execFile, spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, relative, resolve, sep } from 'node:path';

export interface CorosyncOptions {
  /** How many nodes, with node ids from 1 on. Default 1. */
  nodes?: number;
  /** Where the daemons listen. Default 'filesystem', which the test process can reach. */
  sockets?: 'filesystem' | 'abstract';
  /** Totem token timeout in milliseconds: a dead node is out after about 2.2 times that. Default 1000. */
  token?: number;
  /** system.qb_ipc_type: 'native' is shm. */
  qbIpcType?: 'native' | 'shm' | 'socket';
  /**
   * As if every daemon ran in a container of a pod: it is pid 1 of a pid namespace of its own, and /dev/shm is
   * private to what node.spawn() and node.container start. It can be killed, but not stopped or paused.
   */
  contained?: boolean;
  /** Users and groups, besides root, that may connect. */
  uidgid?: { uid?: number; gid?: number };
  /** Any other directive of corosync.conf, by section; these win over the defaults. */
  config?: Partial<Record<ConfigSection, Record<string, string | number>>>;
  /** Deadline of every wait for a daemon, in milliseconds. Default 30,000. */
  timeoutMs?: number;
  /** Which corosync. Default: that of the environment (see Installation), else the one in PATH. */
  installation?: Installation;
}

/** A corosync other than the machine's own. */
export interface Installation {
  /**
   * CPG_COROSYNC: either the root of another system, with usr/sbin/corosync and all its libraries, in which the daemon
   * runs chrooted; or the prefix of a build, with sbin/corosync and lib.
   */
  root: string;
  /** CPG_COROSYNC_EMULATOR: a static program that runs the binaries of `root`, such as qemu-s390x-static. */
  emulator?: string | undefined;
}

type ConfigSection = 'totem' | 'quorum' | 'system' | 'logging';

/**
 * Below about 600 ms, two busy test files on a machine with two processors are enough to lose the token now and then, even
 * though the daemons run in real time: the packets between them are moved by ordinary kernel threads.
 */
const DEFAULT_TOKEN_MS = 1000;
const DEFAULT_TIMEOUT_MS = 30_000;
const NODES_MAX = 16;
const LOG_TAIL_LINES = 30;
/** Each release takes keys of this size. */
const KEY_BYTES = 128;

/** libqb's socket directory is fixed when it is built: Debian says /tmp, others /run. Both are covered. */
const SOCKET_DIRECTORIES = ['/run', '/tmp'];

const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

// ---------------------------------------------------------------------------------------------------- availability

let unavailable: { reason: string | undefined } | undefined;

/**
 * Why a private corosync cannot run here, as one sentence for the message of a skipped suite; undefined when it can.
 * Throws instead when CPG_REQUIRE_COROSYNC=1, so that a CI run which should have the daemon cannot skip in silence.
 */
export function corosyncUnavailable(): string | undefined {
  unavailable ??= { reason: findObstacle() };
  if (unavailable.reason !== undefined && process.env['CPG_REQUIRE_COROSYNC'] === '1') {
    throw new Error(`CPG_REQUIRE_COROSYNC is set, but ${unavailable.reason}`);
  }
  return unavailable.reason;
}

/** The corosync that CPG_COROSYNC names, if it names one. */
function installationOfEnvironment(): Installation | undefined {
  const { CPG_COROSYNC: root, CPG_COROSYNC_EMULATOR: emulator } = process.env;
  if (root === undefined || root === '') return undefined;
  return { root: resolve(root), emulator: emulator === '' ? undefined : emulator };
}

/** True for the root of a whole system, false for the prefix of a build. */
function isSystem({ root }: Installation): boolean {
  if (existsSync(join(root, 'usr/sbin/corosync'))) return true;
  if (existsSync(join(root, 'sbin/corosync'))) return false;
  throw new Error(`there is neither usr/sbin/corosync nor sbin/corosync in ${root}`);
}

function findObstacle(): string | undefined {
  if (process.platform !== 'linux') return 'corosync needs Linux.';
  if (process.getuid?.() !== 0) return 'running a private corosync needs root.';
  const corosync = installationOfEnvironment() === undefined ? ['corosync'] : ['chroot'];
  for (const tool of [...corosync, 'ip', 'unshare', 'nsenter', 'setpriv', 'mount']) {
    if (findTool(tool) === undefined) return `the command ${tool} is not installed.`;
  }
  // Root in a container may still be forbidden all this; only doing it tells. The namespaces end with the shell.
  const probe = spawnSync(
    'unshare',
    ['--net', '--mount', '--propagation', 'private', 'sh', '-ec', PROBE_SCRIPT],
    { encoding: 'utf8', timeout: 10_000, env: toolEnv() },
  );
  if (probe.status === 0) return undefined;
  const why = (probe.stderr || String(probe.error ?? '')).trim().split('\n')[0] ?? '';
  return `network or mount namespaces are not permitted here (${why}).`;
}

const PROBE_SCRIPT = `
ip link set lo up
ip link add v0 type veth peer name v1
ip link add b0 type bridge
mount -t tmpfs tmpfs /run
mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
setpriv --pdeathsig KILL true
unshare --pid --fork --mount-proc true
`;

/** Before a command: it becomes pid 1 of a new pid namespace, which ends with it and with the process we see. */
const CONTAINER = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

function findTool(name: string): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), ...SYSTEM_PATH];
  return directories
    .filter((directory) => directory !== '')
    .map((directory) => join(directory, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** The daemons' tools live in sbin, which is not in everybody's PATH. English, because the log is read by this file. */
function toolEnv(): NodeJS.ProcessEnv {
  const path = [process.env['PATH'] ?? '', ...SYSTEM_PATH].filter((part) => part !== '');
  return { ...process.env, PATH: path.join(delimiter), LC_ALL: 'C' };
}

// ------------------------------------------------------------------------------------------------------ namespaces

/** A process that does nothing but keep namespaces alive. It ends when its standard input does. */
class Holder {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = new Promise((done) => child.once('exit', () => done()));
  }

  static async start(flags: string[], script: string, args: string[] = []): Promise<Holder> {
    const command = ['--propagation', 'private', 'sh', '-ec', `${script}\necho ready\nexec cat`];
    const flagsWithMount = flags.includes('--mount') ? flags : [...flags, '--mount'];
    const child = spawn('unshare', [...flagsWithMount, ...command, 'sh', ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: toolEnv(),
      cwd: '/',
    });
    const holder = new Holder(child);
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    await new Promise<void>((ready, fail) => {
      let output = '';
      child.once('error', fail);
      child.once('exit', () => fail(new Error(`cannot set up a namespace: ${errors.trim()}`)));
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        if (output.includes('ready\n')) ready();
      });
    });
    return holder;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get netns(): string {
    return `/proc/${this.pid}/ns/net`;
  }

  /** The words to put before a command so that it runs in these namespaces and does not outlive this process. */
  enter(cwd: string): string[] {
    // The working directory is opened before the namespace is entered: it may be hidden inside.
    return [
      ...['nsenter', `--target=${this.pid}`, '--net', '--mount', `--wd=${cwd}`, '--'],
      ...['setpriv', '--pdeathsig', 'KILL', '--'],
    ];
  }

  /** Runs `ip` commands, one a line, in this network namespace. */
  async ip(lines: string[]): Promise<void> {
    if (lines.length === 0) return;
    await new Promise<void>((done, fail) => {
      const child = execFile(
        'nsenter',
        [`--net=${this.netns}`, 'ip', '-batch', '-'],
        { env: toolEnv() },
        (error, _stdout, stderr) => {
          if (error) fail(new Error(`ip failed: ${stderr.trim() || error.message}`));
          else done();
        },
      );
      child.stdin?.end(`${lines.join('\n')}\n`);
    });
  }

  async stop(): Promise<void> {
    this.#child.stdin?.destroy();
    await this.#exited;
  }
}

/** Where a node has the system of its daemon, and where in it the directory of the node is. */
const SYSTEM = '/mnt';
const INSIDE_SYSTEM = '/mnt';

/**
 * $1 = the node's directory, $2 = 'filesystem' or 'abstract', $3 = 'private' for a /dev/shm of its own, $4 = the root of
 * the daemon's own system or nothing, then the directories to keep visible below /run and /tmp.
 */
const NODE_SCRIPT = `
node=$1; sockets=$2; shm=$3; root=$4; shift 4
ip link set lo up
[ "$shm" = shared ] || mount -t tmpfs tmpfs /dev/shm
if [ -n "$root" ]; then
  mount --bind "$root" ${SYSTEM}
  root=${SYSTEM}
fi
if [ "$sockets" = filesystem ]; then
  mount -t tmpfs tmpfs "$node/etc"
  for system in "" "$root"; do
    # A layer over /etc that is gone with the namespace: the file must not appear on the machine.
    layer=$(mktemp -d "$node/etc/XXXXXX")
    mkdir "$layer/upper" "$layer/work"
    mount -t overlay overlay -o "lowerdir=$system/etc,upperdir=$layer/upper,workdir=$layer/work" "$system/etc"
    mkdir -p "$system/etc/libqb"
    : > "$system/etc/libqb/force-filesystem-sockets"
    [ -n "$root" ] || break
  done
fi
if [ -n "$root" ]; then
  # What a system has not that was only unpacked.
  for name in dev proc sys run tmp var mnt; do mkdir -p "$root/$name"; done
  [ -e "$root/var/run" ] || ln -s /run "$root/var/run"
  for name in lib lib64; do
    [ -e "$root/$name" ] || [ ! -e "$root/usr/$name" ] || ln -s "usr/$name" "$root/$name"
  done
  for name in dev proc sys; do mount --rbind "/$name" "$root/$name"; done
  mount --bind "$node" "$root${INSIDE_SYSTEM}"
  mount --bind "$node/sock" "$root/run"
  mount --bind "$node/sock" "$root/tmp"
fi
# What must stay visible is first bound below the new directory, which then covers the old one as a whole.
while [ $# -gt 0 ]; do
  mkdir -p "$node/sock/$2"
  mount --bind "$1" "$node/sock/$2"
  shift 2
done
mount --rbind "$node/sock" /run
mount --rbind "$node/sock" /tmp
`;

/** Directories that node.spawn() will want and that the private /run and /tmp would hide, each with its place inside. */
function pathsToKeep(clusterDirectory: string): string[] {
  const wanted = [clusterDirectory, process.cwd(), resolve(__dirname, '..', '..'), dirname(process.execPath)];
  const kept: string[] = [];
  const pairs: string[] = [];
  for (const path of wanted) {
    const hiddenBy = SOCKET_DIRECTORIES.find((directory) => path.startsWith(directory + sep));
    if (hiddenBy === undefined) continue;
    if (kept.some((other) => path === other || path.startsWith(other + sep))) continue;
    kept.push(path);
    pairs.push(path, relative(hiddenBy, path));
  }
  return pairs;
}

// ------------------------------------------------------------------------------------------------------------ nodes

export class CorosyncNode {
  readonly nodeId: number;
  /** What a client connects to: a socket file, or '@cpg' (inside the node's network namespace only). */
  readonly address: string;
  readonly #cluster: ClusterContext;
  readonly #holder: Holder;
  readonly #directory: string;
  readonly #watchers = new Set<() => void>();
  readonly #pids: number[] = [];
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #paused = false;
  #log = '';
  #partialLine = '';
  #ring = '';
  #members: readonly number[] = [];
  #synchronized = false;

  /** How the daemon ended, the last time it did. */
  #end = '';

  /** @internal */
  constructor(nodeId: number, holder: Holder, directory: string, cluster: ClusterContext) {
    this.nodeId = nodeId;
    this.#holder = holder;
    this.#directory = directory;
    this.#cluster = cluster;
    this.address = cluster.sockets === 'abstract' ? '@cpg' : join(directory, 'sock', 'cpg');
  }

  /** A path that `nsenter --net=` takes. */
  get netns(): string {
    return this.#holder.netns;
  }

  /** Its corosync.conf. The daemon reads uidgid.d beside it too, which in real life is /etc/corosync/uidgid.d. */
  get configFile(): string {
    return join(this.#directory, 'corosync.conf');
  }

  /** The process id of the daemon, as everybody outside sees it too; of the last one when it is not running. */
  get pid(): number {
    return this.#pids.at(-1) ?? -1;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** The members of the last completed membership, as this node logged them. */
  get members(): readonly number[] {
    return this.#synchronized ? this.#members : [];
  }

  /** The ring id of the last completed membership; nodes that agree on it are in the same one. */
  get ring(): string {
    return this.#synchronized ? this.#ring : '';
  }

  /** Everything this node's daemons have logged so far, over restarts. */
  log(): string {
    return this.#log + this.#partialLine;
  }

  /** Resolves when what was logged after `from` (an earlier log().length) matches. */
  async waitForLog(pattern: RegExp, from = 0): Promise<void> {
    const wanted = new RegExp(pattern.source, pattern.flags.replace('g', ''));
    await this.#cluster.waitUntil(
      `node ${this.nodeId} to log ${pattern}`,
      () => wanted.test(this.log().slice(from)),
      [this],
    );
  }

  /** Starts the daemon and waits until it and its neighbours agree on the membership. */
  async start(): Promise<void> {
    this.launch();
    await this.#cluster.settled();
  }

  /** @internal Starts the daemon without waiting. */
  launch(): void {
    if (this.#child) throw new Error(`node ${this.nodeId} is running already`);
    this.#synchronized = false;
    this.#members = [];
    // A killed daemon leaves its socket files, and clients should meet "not there" rather than "refused" until it is back.
    rmSync(join(this.#directory, 'sock', 'cpg'), { force: true });
    const place = this.#cluster.contained ? this.container : this;
    const { command, environment, seenAs } = daemonOf(this.#cluster.installation, this.#directory);
    const [first, ...rest] = [...command, '-f', '-c', join(seenAs, 'corosync.conf')];
    const child = place.spawn(first, rest, {
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: '/',
      env: environment,
    });
    this.#child = child;
    this.#paused = false;
    if (child.pid !== undefined) this.#pids.push(child.pid);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#exited = new Promise((done) => {
      const finish = (): void => {
        if (this.#child !== child) return;
        this.#child = undefined;
        this.#paused = false;
        this.#synchronized = false;
        this.#wake();
        done();
      };
      child.once('close', (code, signal) => {
        this.#end = signal ?? `status ${code}`;
        finish();
      });
      child.once('error', (error) => {
        this.#end = error.message;
        finish();
      });
    });
  }

  /** @internal How the daemon ended, the last time it did. */
  get end(): string {
    return this.#end;
  }

  /** SIGKILL, and wait for the end. Ring files stay behind in /dev/shm, as they do in real life. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#exited;
  }

  /** An orderly end (SIGTERM): the daemon tells the others that it leaves. Takes about a second. */
  async stop(): Promise<void> {
    if (this.#paused) this.resume();
    this.#child?.kill('SIGTERM');
    await this.#exited;
  }

  /** Freezes the daemon (SIGSTOP); for longer than the token timeout, the others will drop it. */
  pause(): void {
    if (this.#child?.kill('SIGSTOP')) this.#paused = true;
  }

  resume(): void {
    if (this.#child?.kill('SIGCONT')) this.#paused = false;
  }

  /**
   * Runs a command in the node's namespaces, where libcpg and the corosync tools find this node's daemon.
   * The child is the caller's to end; it also ends when the test process does.
   */
  spawn(command: string, args: string[] = [], options: SpawnOptions = {}): ChildProcess {
    const cwd = options.cwd === undefined ? process.cwd() : String(options.cwd);
    const [first = '', ...rest] = this.#holder.enter(cwd);
    const env = { ...toolEnv(), ...options.env };
    return spawn(first, [...rest, command, ...args], { ...options, cwd: '/', env });
  }

  /** Its spawn() runs a command as pid 1 of a pid namespace of its own, like a container of the node's pod. */
  readonly container: Pick<CorosyncNode, 'spawn'> = {
    spawn: (command, args, options) => {
      const [first = '', ...rest] = CONTAINER;
      return this.spawn(first, [...rest, command, ...(args ?? [])], options);
    },
  };

  /** Its spawn() runs a program of the daemon's own system, where one was given as installation. */
  readonly system: Pick<CorosyncNode, 'spawn'> = {
    spawn: (command, args, options) => {
      const { command: daemon } = daemonOf(this.#cluster.installation, this.#directory);
      const [first = command, ...rest] = [...daemon.slice(0, -1), command, ...(args ?? [])];
      return this.spawn(first, rest, options);
    },
  };

  /** Runs a command as spawn() does, to its end; rejects when it fails. */
  async run(command: string, args: string[] = []): Promise<{ stdout: string; stderr: string }> {
    const child = this.spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const status = await new Promise<number | string | null>((done, fail) => {
      child.once('error', fail);
      child.once('close', (code, signal) => done(code ?? signal));
    });
    if (status !== 0) {
      throw new Error(`${command} ended with ${String(status)}: ${(stderr || stdout).trim()}`);
    }
    return { stdout, stderr };
  }

  /** Sets a key of the daemon's run-time configuration, such as ('uidgid.uid.65534', 'u8', 1). */
  async cmap(key: string, type: string, value: string | number): Promise<void> {
    await this.run('corosync-cmapctl', ['-s', key, type, String(value)]);
  }

  /** @internal */
  async dispose(): Promise<void> {
    await this.kill();
    await this.#holder.stop();
    this.removeLeftovers();
  }

  /** @internal What SIGKILLed daemons of this node left in /dev/shm; also called while the process exits. */
  removeLeftovers(): void {
    for (const pid of this.#pids) {
      // The number may have been given to somebody else since then.
      if (!hasEnded(pid)) continue;
      const own = new RegExp(`^qb-(corosync-)?${pid}-`);
      for (const name of readdirSync('/dev/shm').filter((entry) => own.test(entry))) {
        rmSync(join('/dev/shm', name), { recursive: true, force: true });
      }
    }
  }

  /** @internal */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  #read(text: string): void {
    const lines = (this.#partialLine + text).split('\n');
    this.#partialLine = lines.pop() ?? '';
    for (const line of lines) {
      this.#log += `${line}\n`;
      const ring = /\[TOTEM ?\] A new membership \(([^)]+)\)/.exec(line)?.[1];
      if (ring !== undefined) {
        this.#synchronized = false;
        this.#ring = ring;
      }
      // Before 3.1 there is only the second form; later ones say both.
      const members = /\[QUORUM\] (?:Sync m|M)embers\[\d+\]: ([\d ]+)/.exec(line)?.[1];
      if (members !== undefined) this.#members = members.trim().split(/ +/).map(Number);
      if (line.includes('Completed service synchronization')) this.#synchronized = true;
    }
    this.#wake();
  }
}

// --------------------------------------------------------------------------------------------------------- clusters

/** What a node needs of its cluster. */
interface ClusterContext {
  readonly sockets: 'filesystem' | 'abstract';
  readonly contained: boolean;
  readonly installation: Installation | undefined;
  waitUntil(what: string, condition: () => boolean, nodes: readonly CorosyncNode[]): Promise<void>;
  settled(): Promise<void>;
}

export class CorosyncCluster implements ClusterContext {
  readonly sockets: 'filesystem' | 'abstract';
  readonly contained: boolean;
  /** @internal */
  readonly installation: Installation | undefined;
  /** nodes[0] has node id 1. */
  readonly nodes: readonly CorosyncNode[] = [];
  readonly #directory: string;
  readonly #timeoutMs: number;
  readonly #onProcessExit = (): void => this.#abandon();
  #switch: Holder | undefined;
  #bridges = 1;
  /** The number of the bridge of each node, in the order of `nodes`. */
  #sides: number[] = [];
  #stopping: Promise<void> | undefined;

  private constructor(options: CorosyncOptions) {
    this.sockets = options.sockets ?? 'filesystem';
    this.contained = options.contained ?? false;
    this.installation = options.installation ?? installationOfEnvironment();
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#directory = mkdtempSync(join(tmpdir(), 'corosync-cpg-'));
    // Clients under other users go through here.
    chmodSync(this.#directory, 0o755);
    process.once('exit', this.#onProcessExit);
  }

  static async start(options: CorosyncOptions): Promise<CorosyncCluster> {
    const count = options.nodes ?? 1;
    if (!Number.isInteger(count) || count < 1 || count > NODES_MAX) {
      throw new RangeError(`a cluster has 1 to ${NODES_MAX} nodes, not ${count}`);
    }
    const cluster = new CorosyncCluster(options);
    try {
      await cluster.#build(count, options);
      for (const node of cluster.nodes) node.launch();
      await cluster.settled();
      cluster.#checkSockets();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** The node with this node id. */
  node(nodeId: number): CorosyncNode {
    const node = this.nodes[nodeId - 1];
    if (!node) throw new RangeError(`there is no node ${nodeId}`);
    return node;
  }

  /** Cuts the network into these groups of node ids (who is not named stays alone) and waits until each has re-formed. */
  async partition(...groups: number[][]): Promise<void> {
    const sides = this.nodes.map((node) => groups.findIndex((ids) => ids.includes(node.nodeId)));
    let next = groups.length;
    await this.#plug(sides.map((side) => (side === -1 ? next++ : side)));
  }

  /** Joins the network again and waits until all running nodes are one cluster. */
  async heal(): Promise<void> {
    await this.#plug(this.nodes.map(() => 0));
  }

  /** Resolves when on each side of the network all running nodes are in one and the same membership. */
  async settled(): Promise<void> {
    const live = this.nodes.filter((node) => node.running && !node.paused);
    const settled = (): boolean => live.every((node) => node.running) && this.#isSettled();
    await this.waitUntil('the cluster to settle', settled, live);
  }

  /** Ends and removes everything. Can be called any number of times. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** @internal Resolves when the condition holds, which is looked at whenever one of the nodes has logged something. */
  async waitUntil(what: string, condition: () => boolean, nodes: readonly CorosyncNode[]): Promise<void> {
    await new Promise<void>((done, fail) => {
      const unwatch: (() => void)[] = [];
      const finish = (error?: Error): void => {
        clearTimeout(deadline);
        for (const off of unwatch) off();
        if (error) fail(error);
        else done();
      };
      const describe = (problem: string): Error =>
        new Error(`${problem} while waiting for ${what}\n${nodes.map(tail).join('\n')}`);
      const check = (): void => {
        const ended = nodes.find((node) => !node.running);
        if (condition()) finish();
        else if (ended) finish(describe(`node ${ended.nodeId} ended (${ended.end})`));
      };
      const deadline = setTimeout(() => finish(describe('the time ran out')), this.#timeoutMs);
      for (const node of nodes) unwatch.push(node.watch(check));
      check();
    });
  }

  async #build(count: number, options: CorosyncOptions): Promise<void> {
    const indexes = Array.from({ length: count }, (_, index) => index);
    const key = randomBytes(KEY_BYTES);
    const { installation } = this;
    const system = installation !== undefined && isSystem(installation) ? installation.root : '';
    const holders = await Promise.all(
      indexes.map(async (index) => {
        const directory = join(this.#directory, `n${index + 1}`);
        for (const name of ['', 'sock', 'state', 'etc']) mkdirSync(join(directory, name));
        const { seenAs } = daemonOf(installation, directory);
        writeFileSync(join(directory, 'corosync.conf'), configuration(count, seenAs, options));
        writeFileSync(join(directory, 'authkey'), key, { mode: 0o400 });
        if (installation?.emulator !== undefined) {
          copyFileSync(installation.emulator, join(directory, 'emulator'));
        }
        const shm = this.contained ? 'private' : 'shared';
        const args = [directory, this.sockets, shm, system, ...pathsToKeep(this.#directory)];
        const holder = await Holder.start(['--net', '--mount'], NODE_SCRIPT, args);
        return { holder, directory };
      }),
    );
    const nodes = this.nodes as CorosyncNode[];
    holders.forEach(({ holder, directory }, index) => {
      nodes.push(new CorosyncNode(index + 1, holder, directory, this));
    });
    this.#sides = indexes.map(() => 0);
    if (count === 1) return;

    this.#switch = await Holder.start(['--net'], '');
    await this.#switch.ip([
      bridgeCommand(0),
      'link set br0 up',
      ...holders.flatMap(({ holder }, index) => [
        `link add port${index + 1} type veth peer name eth0 netns ${holder.pid}`,
        `link set port${index + 1} master br0 up`,
      ]),
    ]);
    await Promise.all(
      holders.map(({ holder }, index) =>
        holder.ip([`addr add ${nodeIp(index)}/24 dev eth0`, 'link set eth0 up']),
      ),
    );
  }

  async #plug(sides: number[]): Promise<void> {
    const lines: string[] = [];
    for (const side of sides) {
      if (side < this.#bridges) continue;
      this.#bridges = side + 1;
      lines.push(bridgeCommand(side), `link set br${side} up`);
    }
    sides.forEach((side, index) => {
      if (side !== this.#sides[index]) lines.push(`link set port${index + 1} master br${side}`);
    });
    this.#sides = sides;
    if (this.#switch) await this.#switch.ip(lines);
    await this.settled();
  }

  #isSettled(): boolean {
    const live = this.nodes.filter((node) => node.running && !node.paused);
    const sideOf = (node: CorosyncNode): number => this.#sides[node.nodeId - 1] ?? 0;
    return live.every((node) => {
      const neighbours = live.filter((other) => sideOf(other) === sideOf(node));
      const expected = neighbours.map((other) => other.nodeId).join();
      return node.members.join() === expected && neighbours.every(({ ring }) => ring === node.ring);
    });
  }

  /** The one thing that depends on how libqb was built; better said here than by a client that cannot connect. */
  #checkSockets(): void {
    if (this.sockets === 'abstract') return;
    for (const node of this.nodes) {
      if (existsSync(node.address)) continue;
      const table = readFileSync(`/proc/${node.pid}/net/unix`, 'utf8');
      const where = /\S*[/@]cpg(?=@*$)/m.exec(table)?.[0] ?? 'nowhere';
      throw new Error(`this libqb listens at ${where}, not in ${SOCKET_DIRECTORIES.join(' or ')}`);
    }
  }

  async #stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.dispose()));
    await this.#switch?.stop();
    rmSync(this.#directory, { recursive: true, force: true });
    process.removeListener('exit', this.#onProcessExit);
  }

  /** The process exits without stop(): namespaces and daemons end by themselves, files do not. */
  #abandon(): void {
    for (const node of this.nodes) {
      const { pid } = node;
      if (node.running) void node.kill();
      // An exiting process gets no events any more, so this is the one place that looks instead of waiting to be told.
      const until = Date.now() + 1000;
      while (!hasEnded(pid) && Date.now() < until);
      node.removeLeftovers();
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** How a daemon is started, and where it sees the directory of its node. */
function daemonOf(
  installation: Installation | undefined,
  directory: string,
): { command: string[]; environment: NodeJS.ProcessEnv; seenAs: string } {
  if (installation === undefined) return { command: ['corosync'], environment: {}, seenAs: directory };
  const { root, emulator } = installation;
  const prefix = (before: string): string[] => (emulator === undefined ? [] : [join(before, 'emulator')]);
  if (isSystem(installation)) {
    const command = ['chroot', SYSTEM, ...prefix(INSIDE_SYSTEM), '/usr/sbin/corosync'];
    return { command, environment: {}, seenAs: INSIDE_SYSTEM };
  }
  return {
    command: [...prefix(directory), join(root, 'sbin/corosync')],
    environment: { LD_LIBRARY_PATH: join(root, 'lib') },
    seenAs: directory,
  };
}

/** Starts a cluster and resolves when it is ready. */
export function startCorosync(options: CorosyncOptions = {}): Promise<CorosyncCluster> {
  return CorosyncCluster.start(options);
}

function hasEnded(pid: number): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return true;
  }
}

function tail(node: CorosyncNode): string {
  const lines = node.log().trimEnd().split('\n').slice(-LOG_TAIL_LINES);
  return [`node ${node.nodeId}:`, ...lines.map((line) => `    ${line}`)].join('\n');
}

function nodeIp(index: number): string {
  return `10.77.0.${index + 1}`;
}

function bridgeCommand(side: number): string {
  // No spanning tree and no forward delay: a bridge has to pass frames from the first moment on.
  return `link add br${side} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`;
}

/** corosync.conf, the same for every node but for the directory, as the daemon sees it. */
function configuration(count: number, directory: string, options: CorosyncOptions): string {
  const { uid, gid } = options.uidgid ?? {};
  const token = options.token ?? DEFAULT_TOKEN_MS;
  const sections: [string, Record<string, string | number>][] = [
    [
      'totem',
      {
        version: 2,
        cluster_name: 'test',
        transport: 'knet',
        // Not every release takes 'none' for a cipher.
        crypto_cipher: 'aes256',
        crypto_hash: 'sha256',
        keyfile: join(directory, 'authkey'),
        token,
        // By default every node beyond the second adds 650 ms to the token timeout.
        token_coefficient: 0,
        ...options.config?.totem,
      },
    ],
    ['quorum', { provider: 'corosync_votequorum', ...options.config?.quorum }],
    [
      'system',
      {
        state_dir: join(directory, 'state'),
        qb_ipc_type: options.qbIpcType ?? 'native',
        // Its other default: leave the control group of the tests and enter that of the machine.
        move_to_root_cgroup: 'no',
        ...options.config?.system,
      },
    ],
    ['logging', { to_stderr: 'yes', to_syslog: 'no', timestamp: 'hires', ...options.config?.logging }],
    ['uidgid', { ...(uid === undefined ? {} : { uid }), ...(gid === undefined ? {} : { gid }) }],
  ];
  const nodeList = Array.from({ length: count }, (_, index) => {
    const address = count === 1 ? '127.0.0.1' : nodeIp(index);
    const id = index + 1;
    return `  node {\n    ring0_addr: ${address}\n    name: n${id}\n    nodeid: ${id}\n  }\n`;
  });
  // knet would derive these from the token timeout and take a second longer to find out that a link works.
  const link = `  interface {\n    linknumber: 0\n    knet_ping_interval: 100\n    knet_ping_timeout: ${token}\n    knet_pong_count: 1\n  }\n`;
  const text = sections
    .filter(([, values]) => Object.keys(values).length > 0)
    .map(([name, values]) => {
      const lines = Object.entries(values).map(([key, value]) => `  ${key}: ${value}\n`);
      return `${name} {\n${lines.join('')}${name === 'totem' ? link : ''}}\n`;
    });
  return `${text.join('')}nodelist {\n${nodeList.join('')}}\n`;
}
