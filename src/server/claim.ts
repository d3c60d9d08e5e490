/**
 * Files of this thread's servers, and the proof by which the next server knows that it may remove them.
 *
 *     <base>/cpg-<tag>/alive-<boot>          a socket that listens while the thread lives
 *     <base>/cpg-<tag>/<n>/cpg               sockets of nodes without a given address
 *     <base>/qb-<pid>-<pid>-<n>-<tag>.XXXXXX/  the rings of a connection (wire/ring-directory.ts)
 *
 * A killed process, a terminated worker and a Jest test that forgets stop() run none of our code at their end. The
 * kernel closes their socket. So a socket that refuses connections proves that its thread is gone, even across pid
 * namespaces and after its pid was reused. Then everything with its tag can be removed. Without proof everything stays. The
 * name has the kernel's boot id, because the sockets of another machine that shares the directory refuse connections, too.
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

/** Our claim on one directory, while somebody uses it. */
class Claim {
  readonly #base: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #keepOnExit: () => void;
  #users = 0;
  #directories = 0;

  /** Throws the file system error. */
  constructor(base: string) {
    this.#base = base;
    this.#directory = mkdtempSync(join(base, 'cpg-'));
    this.#keepOnExit = removeOnExit(() => removeQuietly(this.#directory));
    this.#server = createServer((socket) => socket.destroy()).unref();
    this.#server.on('error', (error) => debug('%s: %s', this.#directory, error.message));
    // Between bind() and listen() it refuses connections. Both happen in this call; it gets its name afterwards.
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

  /** A new directory of our own inside. */
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
  /** Call it once. */
  readonly release: () => void;
}

/** Claims a directory in `base`. Throws the file system error. */
export function claim(base: string): Share {
  const held = claims.get(base) ?? new Claim(base);
  held.hold();
  return { tag: held.tag, makeDirectory: () => held.makeDirectory(), release: () => held.release() };
}

/** Removes the leftovers of this user's dead servers from `base`. */
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

/** True for a socket file without a listener. */
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
