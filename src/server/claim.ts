/**
 * What servers of this thread leave in the file system, and how the next server knows that it may be removed.
 *
 *     <base>/cpg-<tag>/alive-<boot>          a socket that is listened to while the thread lives
 *     <base>/cpg-<tag>/<n>/cpg               sockets of nodes that were given no address
 *     <base>/qb-<pid>-<pid>-<n>-<tag>.XXXXXX/  the rings of a connection (wire/ring-directory.ts)
 *
 * A process that is killed, a worker that is terminated and a Jest test that forgets stop() run no code of ours at their
 * end. What then closes the socket is the kernel. So a socket that refuses connections is the proof that its thread is
 * gone, across pid namespaces and whoever has its pid now; what bears its tag can be removed. Without a proof
 * everything stays: also where several machines share a directory, for the sockets of another one refuse us as well.
 */
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { debugServer as debug } from '../debug';
import { removeOnExit } from './exit';
import { removeQuietly } from './remove';

/** Of the kernel that runs; short, as the path of a socket must be. */
const ALIVE = `alive-${bootId().slice(0, 8)}`;
const CLAIM = /^cpg-([A-Za-z0-9]{6})$/;
const RINGS = /^qb-\d+-\d+-\d+-([A-Za-z0-9]{6})\./;

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1');
  } catch {
    return 'unknown';
  }
}

/** By their base. */
const claims = new Map<string, Claim>();

/** Our place in one directory, while somebody uses it. */
class Claim {
  readonly #base: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #keepOnExit: () => void;
  #users = 0;
  #directories = 0;

  /** Throws the error of the file system. */
  constructor(base: string) {
    this.#base = base;
    this.#directory = mkdtempSync(join(base, 'cpg-'));
    this.#keepOnExit = removeOnExit(() => removeQuietly(this.#directory));
    this.#server = createServer((socket) => socket.destroy()).unref();
    this.#server.on('error', (error) => debug('%s: %s', this.#directory, error.message));
    // Between bind() and listen() it refuses connections, so it gets its name afterwards; both happen in this call.
    const unnamed = join(this.#directory, 'new');
    this.#server.listen({ path: unnamed, exclusive: true });
    if (this.#server.listening) renameSync(unnamed, join(this.#directory, ALIVE));
    claims.set(base, this);
  }

  get tag(): string {
    return this.#directory.slice(-6);
  }

  hold(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users > 0) return;
    claims.delete(this.#base);
    this.#keepOnExit();
    removeQuietly(this.#directory);
    this.#server.close();
  }

  /** A directory of our own in it. */
  makeDirectory(): string {
    const directory = join(this.#directory, `${++this.#directories}`);
    mkdirSync(directory, { mode: 0o700 });
    return directory;
  }
}

/** A share of our claim in `base`. */
export interface Share {
  readonly tag: string;
  readonly makeDirectory: () => string;
  /** To be called once. */
  readonly release: () => void;
}

/** Claims a place in `base`. Throws the error of the file system. */
export function claim(base: string): Share {
  const held = claims.get(base) ?? new Claim(base);
  held.hold();
  return { tag: held.tag, makeDirectory: () => held.makeDirectory(), release: () => held.release() };
}

/** Removes from `base` what dead servers of this user left. */
export async function removeDead(base: string): Promise<void> {
  try {
    for (const name of readdirSync(base)) {
      const tag = CLAIM.exec(name)?.[1];
      const directory = join(base, name);
      if (tag === undefined || !isOurs(directory) || !(await isAbandoned(join(directory, ALIVE)))) continue;
      const rings = readdirSync(base).filter((other) => RINGS.exec(other)?.[1] === tag);
      // The proof goes last.
      for (const path of [...rings.map((other) => join(base, other)).filter(isOurs), directory]) {
        debug('%s was left by a dead server', path);
        removeQuietly(path);
      }
    }
  } catch (error) {
    debug('%s is not cleaned: %s', base, (error as Error).message);
  }
}

function isOurs(path: string): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat?.isDirectory() === true && stat.uid === process.getuid?.();
}

/** True for a socket file that nobody listens at any more. */
export function isAbandoned(path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return Promise.resolve(false);
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}
