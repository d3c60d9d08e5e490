/**
 * Datagram sockets of the AF_UNIX family, of which Node has none.
 *
 * The C library opens them, binds and connects them. After that they are Node's: a net.Socket reads and writes any
 * descriptor, and with a datagram socket each read() is one frame and each write() is one. Only, it takes no descriptor
 * that it does not know by its type. So it gets one of a stream socket, behind which dup3(2) then puts the datagram
 * socket, before the event loop has seen either.
 */
import { chmodSync, closeSync, unlinkSync } from 'node:fs';
import { Socket } from 'node:net';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { libcError, type Libc } from './libc';

// sys/socket.h and fcntl.h of Linux
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const MSG_NOSIGNAL = 0x4000;
const NONBLOCK = 0o4000;
const CLOEXEC = 0o2000000;

/** sizeof(struct sockaddr_un), all of which is the name of an abstract socket of libqb. */
const ADDRESS_BYTES = 110;
/** sun_family, and the NUL before an abstract name or behind a path. */
const MAX_NAME_BYTES = ADDRESS_BYTES - 3;
/** Frames that are taken at one waking of the event loop, which would read one. */
const FRAMES_PER_TURN = 32;
/** What the kernel wants of SO_SNDBUF beside the frame. */
const OVERHEAD_BYTES = 32;
const FAMILY_BYTES = 2;
const INT_BYTES = 4;
/** The files of sockets are for their owner alone. */
export const FILE_MODE = 0o600;

/** Where a datagram socket is: a name of its own, or one in the file system. */
export interface DatagramAddress {
  readonly name: string;
  readonly kind: 'abstract' | 'path';
}

export interface DatagramListener {
  /** A frame came; it is valid during the call. False: no more of them before resume(). */
  onFrame(frame: Buffer): boolean;
  /** What send() took and could not get rid of at once is sent. */
  onSent(): void;
  /** Nothing comes any more. */
  onEnd(error?: Error): void;
}

/** A datagram socket that is bound. */
export interface DatagramSocket {
  /** Bytes of the largest frame that it can send. */
  readonly maxBytes: number;
  /** A frame waits until the peer has room. */
  readonly sending: boolean;
  /** Nothing is read before. */
  listen(listener: DatagramListener): void;
  /** Names the peer, if that was not done when it was opened. Throws the error of the system while there is none. */
  connect(remote: DatagramAddress): void;
  /** Sends a frame, whose memory is free again when this returns. Not while another one waits. */
  send(frame: Buffer): void;
  resume(): void;
  /** Whether it keeps the process alive. */
  keepAlive(on: boolean): void;
  /** Closes it and removes its name. Can be called again. */
  close(): Promise<void>;
}

export interface DatagramOptions {
  readonly local: DatagramAddress;
  /** With it, from the first moment on nobody else can send to us. */
  readonly remote?: DatagramAddress;
  /** Frames of this size should be possible. */
  readonly frameBytes: number;
}

/** CS_ERR_NAME_TOO_LONG when the name has no room in a socket address: the kernel would see another one. */
export function assertFits({ name, kind }: DatagramAddress): void {
  const bytes = Buffer.byteLength(name);
  if (bytes <= MAX_NAME_BYTES && !name.includes('\0')) return;
  throw new CpgError(
    'CS_ERR_NAME_TOO_LONG',
    `the ${kind === 'path' ? 'path' : 'name'} of a datagram socket has ${bytes} bytes`,
    { remedy: `a socket address has room for ${MAX_NAME_BYTES}` },
  );
}

function socketAddress(address: DatagramAddress): Buffer {
  assertFits(address);
  const bytes = Buffer.alloc(ADDRESS_BYTES);
  bytes.writeUInt16LE(AF_UNIX, 0);
  bytes.write(address.name, address.kind === 'abstract' ? 3 : 2);
  return bytes;
}

/** Opens, connects and binds a socket. Throws CpgError for a name, and the error of the system; nothing is left then. */
export function openLibcDatagram(libc: Libc, { local, remote, frameBytes }: DatagramOptions): DatagramSocket {
  const localAddress = socketAddress(local);
  const remoteAddress = remote && socketAddress(remote);
  const { functions } = libc;
  const checked = (call: keyof typeof functions, result: number | bigint): number => {
    if (Number(result) >= 0) return Number(result);
    throw libcError(libc, call);
  };
  const open = (type: number): number =>
    checked('socket', functions.socket(AF_UNIX, type | NONBLOCK | CLOEXEC, 0));
  const connect = (fd: number, address: Buffer): void =>
    void checked('connect', functions.connect(fd, address, ADDRESS_BYTES));

  const fd = open(SOCK_DGRAM);
  try {
    const maxBytes = enlarge(libc, fd, frameBytes) - OVERHEAD_BYTES;
    // In this order: between a bind and a connect, strangers could put frames into our queue.
    if (remoteAddress !== undefined) connect(fd, remoteAddress);
    if (local.kind === 'path') quietly(() => unlinkSync(local.name));
    checked('bind', functions.bind(fd, localAddress, ADDRESS_BYTES));
    if (local.kind === 'path') chmodSync(local.name, FILE_MODE);
    const streamFd = open(SOCK_STREAM);
    return new StreamedDatagrams(streamFd, local, maxBytes, frameBytes, {
      replace: () => void checked('dup3', functions.dup3(fd, streamFd, CLOEXEC)),
      connect: (peer) => connect(streamFd, socketAddress(peer)),
      send: (frame) => {
        if (functions.send(streamFd, frame, BigInt(frame.length), MSG_NOSIGNAL) >= 0) return true;
        const error = libcError(libc, 'send');
        if (error.code === 'EAGAIN' || error.code === 'ENOBUFS') return false;
        throw error;
      },
      receive: (memory) => Number(functions.recv(streamFd, memory, BigInt(memory.length), MSG_NOSIGNAL)),
    });
  } catch (error) {
    if (local.kind === 'path') quietly(() => unlinkSync(local.name));
    throw error;
  } finally {
    // What is left is the copy behind the other descriptor.
    closeSync(fd);
  }
}

/** A descriptor that sends to a peer whose abstract name ends where it ends, unlike libqb's. */
export function connectedDatagram(libc: Libc, remote: DatagramAddress): number {
  const address = socketAddress(remote);
  const bytes = FAMILY_BYTES + 1 + Buffer.byteLength(remote.name);
  const fd = libc.functions.socket(AF_UNIX, SOCK_DGRAM | NONBLOCK | CLOEXEC, 0) as number;
  if (fd < 0) throw libcError(libc, 'socket');
  if (libc.functions.connect(fd, address, bytes) === 0) return fd;
  const error = libcError(libc, 'connect');
  closeSync(fd);
  throw error;
}

/** Makes room for frames of this size, as far as the system lets us. Returns SO_SNDBUF. */
function enlarge(libc: Libc, fd: number, frameBytes: number): number {
  const { getsockopt, setsockopt } = libc.functions;
  const value = Buffer.alloc(INT_BYTES);
  const length = Buffer.alloc(INT_BYTES);
  const get = (option: number): number => {
    length.writeInt32LE(INT_BYTES, 0);
    if (getsockopt(fd, SOL_SOCKET, option, value, length) !== 0) throw libcError(libc, 'getsockopt');
    return value.readInt32LE(0);
  };
  for (const option of [SO_SNDBUF, SO_RCVBUF]) {
    if (get(option) >= frameBytes + OVERHEAD_BYTES) continue;
    value.writeInt32LE(frameBytes + OVERHEAD_BYTES, 0);
    setsockopt(fd, SOL_SOCKET, option, value, INT_BYTES);
  }
  return get(SO_SNDBUF);
}

function quietly(action: () => void): void {
  try {
    action();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') debug('%s', (error as Error).message);
  }
}

/** What frames are read into: sockets take turns, so those of one size share it. */
let readMemory = Buffer.alloc(0);

/** Calls for the one descriptor. */
interface System {
  replace(): void;
  connect(peer: DatagramAddress): void;
  /** False while there is no room. Throws the error of the system. */
  send(frame: Buffer): boolean;
  /** How many bytes came; not above 0 when nothing is there, or is wrong: the event loop finds out. */
  receive(memory: Buffer): number;
}

class StreamedDatagrams implements DatagramSocket {
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  readonly #system: System;
  readonly #local: DatagramAddress;
  #listener: DatagramListener | undefined;
  #error: Error | undefined;

  constructor(
    fd: number,
    local: DatagramAddress,
    readonly maxBytes: number,
    frameBytes: number,
    system: System,
  ) {
    this.#local = local;
    this.#system = system;
    // One byte more, so that a frame that is too long shows.
    if (readMemory.length <= frameBytes) readMemory = Buffer.allocUnsafeSlow(frameBytes + 1);
    const buffer = readMemory;
    const callback = (bytes: number): boolean => {
      // The first frame may come before anybody listens; it is not lost, because nothing was read yet then.
      let goesOn = this.#listener?.onFrame(buffer.subarray(0, bytes)) ?? false;
      for (let frames = 1; goesOn && frames < FRAMES_PER_TURN && !this.#socket.destroyed; frames++) {
        const more = system.receive(buffer);
        if (more <= 0) break;
        goesOn = this.#listener!.onFrame(buffer.subarray(0, more));
      }
      return goesOn;
    };
    try {
      // Any frame is too much to take another one before it is sent.
      const options = { fd, onread: { buffer, callback }, writableHighWaterMark: 1 };
      this.#socket = new Socket(options);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#closed = new Promise((resolve) => this.#socket.once('close', resolve));
    this.#socket.on('error', (error) => (this.#error = error));
    this.#socket.once('close', () => this.#listener?.onEnd(this.#error));
    this.#socket.on('drain', () => this.#listener?.onSent());
    try {
      system.replace();
    } catch (error) {
      void this.close();
      throw error;
    }
    this.#socket.pause();
  }

  get sending(): boolean {
    return this.#socket.writableLength > 0;
  }

  listen(listener: DatagramListener): void {
    this.#listener = listener;
    this.#socket.resume();
  }

  connect(remote: DatagramAddress): void {
    this.#system.connect(remote);
  }

  send(frame: Buffer): void {
    if (this.#socket.destroyed) return;
    try {
      if (!this.#system.send(frame)) this.#socket.write(Buffer.from(frame));
    } catch (error) {
      this.#socket.destroy(error as Error);
    }
  }

  keepAlive(on: boolean): void {
    if (on) this.#socket.ref();
    else this.#socket.unref();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): Promise<void> {
    this.#socket.destroy();
    if (this.#local.kind === 'path') quietly(() => unlinkSync(this.#local.name));
    return this.#closed;
  }
}
