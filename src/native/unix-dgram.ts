/**
 * Datagram sockets through the package unix-dgram, an optional peer that is compiled when it is installed. It knows paths
 * only, belongs to the main thread, and cuts frames at 65,536 bytes without a sign.
 */
import { chmodSync, unlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { getSystemErrorName } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { nextTick, setImmediate } from '../clock';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import {
  assertFits,
  FILE_MODE,
  type DatagramAddress,
  type DatagramListener,
  type DatagramOptions,
  type DatagramSocket,
} from './datagram';

/** What it receives of a frame; one that is as long may have been longer. */
const MAX_FRAME_BYTES = 65_535;
/** Frames that came while nobody wanted any: it cannot be stopped. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;

/** What is used of it. */
interface UnixDgram {
  createSocket(type: 'unix_dgram'): UnixSocket;
}
interface UnixSocket {
  on(event: 'message', listener: (frame: Buffer) => void): void;
  on(event: 'writable' | 'congestion' | 'listening' | 'connect', listener: () => void): void;
  on(event: 'error', listener: (error: NodeJS.ErrnoException) => void): void;
  bind(path: string): void;
  connect(path: string): void;
  send(frame: Buffer, done: (error?: NodeJS.ErrnoException) => void): void;
  close(): void;
}

let loaded: { module: UnixDgram } | { error: Error } | undefined;

function load(): NonNullable<typeof loaded> {
  try {
    if (!isMainThread) throw new Error('it works in the main thread only');
    return { module: createRequire(__filename)('unix-dgram') as UnixDgram };
  } catch (error) {
    debug('unix-dgram cannot be used: %s', error);
    return { error: error as Error };
  }
}

/** Why it cannot be used, in one line; undefined when it can. */
export function whyNoUnixDgram(): string | undefined {
  loaded ??= load();
  return 'error' in loaded ? loaded.error.message.split('\n')[0] : undefined;
}

/** See openLibcDatagram(). */
export function openUnixDgram({ local, remote, frameBytes }: DatagramOptions): DatagramSocket {
  loaded ??= load();
  if ('error' in loaded) throw loaded.error;
  for (const address of [local, ...(remote === undefined ? [] : [remote])]) assertFits(address);
  const socket = new UnixDgramSocket(loaded.module.createSocket('unix_dgram'), frameBytes);
  try {
    if (remote !== undefined) socket.connect(remote);
    socket.bind(local);
    return socket;
  } catch (error) {
    void socket.close();
    throw error;
  }
}

/** Sends one frame to a path; see notify.ts. */
export function notifyByUnixDgram(remote: DatagramAddress, text: string): void {
  loaded ??= load();
  if ('error' in loaded) throw loaded.error;
  assertFits(remote);
  const socket = new UnixDgramSocket(loaded.module.createSocket('unix_dgram'), text.length);
  try {
    socket.connect(remote);
    socket.send(Buffer.from(text));
  } finally {
    void socket.close();
  }
}

class UnixDgramSocket implements DatagramSocket {
  readonly maxBytes: number;
  readonly #socket: UnixSocket;
  #path: string | undefined;
  #listener: DatagramListener | undefined;
  #paused = true;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** The frame for which the peer has no room yet. */
  #unsent: Buffer | undefined;
  /** The error of a call is emitted while it lasts. */
  #error: NodeJS.ErrnoException | undefined;
  #closed = false;

  constructor(socket: UnixSocket, frameBytes: number) {
    this.#socket = socket;
    this.maxBytes = Math.min(frameBytes, MAX_FRAME_BYTES);
    socket.on('message', (frame) => this.#received(frame));
    socket.on('writable', () => this.#sendAgain());
    socket.on('error', (error) => (this.#error = error));
  }

  get sending(): boolean {
    return this.#unsent !== undefined;
  }

  listen(listener: DatagramListener): void {
    this.#listener = listener;
    this.resume();
  }

  bind({ name }: DatagramAddress): void {
    unlinkQuietly(name);
    this.#checked(() => this.#socket.bind(name), 'bind');
    this.#path = name;
    chmodSync(name, FILE_MODE);
  }

  connect({ name }: DatagramAddress): void {
    this.#checked(() => this.#socket.connect(name), 'connect');
  }

  send(frame: Buffer): void {
    this.#unsent = frame;
    if (!this.#trySend()) this.#unsent = Buffer.from(frame);
  }

  keepAlive(): void {
    // unix-dgram has no such thing: its sockets keep the process alive until they are closed.
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    // Later, like everything that is read.
    if (this.#waiting.length > 0) setImmediate(() => this.#flush());
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#waiting = [];
      this.#unsent = undefined;
      this.#socket.close();
      if (this.#path !== undefined) unlinkQuietly(this.#path);
    }
    return Promise.resolve();
  }

  #received(frame: Buffer): void {
    if (this.#closed) return;
    this.#waiting.push(frame);
    this.#waitingBytes += frame.length;
    if (this.#waitingBytes > MAX_WAITING_BYTES) {
      this.#end(
        new CpgError('CS_ERR_QUEUE_FULL', `${this.#waitingBytes} bytes of frames wait for a reader`, {
          remedy: 'read them: the package unix-dgram cannot make the sender wait; koffi can',
        }),
      );
    } else this.#flush();
  }

  #flush(): void {
    while (!this.#paused && !this.#closed && this.#listener !== undefined) {
      const frame = this.#waiting.shift();
      if (frame === undefined) return;
      this.#waitingBytes -= frame.length;
      this.#paused = !this.#listener.onFrame(frame);
    }
  }

  #sendAgain(): void {
    if (this.sending && !this.#closed && this.#trySend()) this.#listener?.onSent();
  }

  /** False when the peer has no room. */
  #trySend(): boolean {
    let failed: NodeJS.ErrnoException | undefined;
    // It calls back before it returns.
    this.#socket.send(this.#unsent!, (error) => (failed = error));
    // 1 is no errno: 'writable' follows.
    if ((failed?.code as unknown) === 1) return false;
    this.#unsent = undefined;
    const error = failed && named(failed, 'send');
    if (error !== undefined) nextTick(() => this.#end(error));
    return true;
  }

  #end(error: Error): void {
    if (this.#closed) return;
    void this.close();
    this.#listener?.onEnd(error);
  }

  #checked(call: () => void, name: string): void {
    call();
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw named(error, name);
  }
}

/** Its errors have a number where Node's have a name. */
function named(error: NodeJS.ErrnoException, syscall: string): NodeJS.ErrnoException {
  const errno = Number(error.errno);
  const code = errno < 0 ? getSystemErrorName(errno) : 'UNKNOWN';
  return Object.assign(new Error(`${syscall} ${code}`), { errno, code, syscall });
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // There is none any more, or not yet.
  }
}
