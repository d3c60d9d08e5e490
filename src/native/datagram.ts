/**
 * AF_UNIX datagram sockets, which Node does not offer.
 *
 * The C library opens, binds and connects them. Then a net.Socket reads and writes them: each read() and each write() is
 * one frame. But net.Socket rejects descriptors of an unknown type. So we give it the descriptor of a stream socket,
 * and dup3(2) replaces that by the datagram socket before the event loop has seen either.
 */
import { chmodSync, closeSync, unlinkSync } from 'node:fs';
import { Socket } from 'node:net';
import { debugTransport as debug } from '../debug';
import { CpgError } from '../errors';
import { libcError, type Libc } from './libc';

// Linux sys/socket.h and fcntl.h
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const MSG_NOSIGNAL = 0x4000;
const NONBLOCK = 0o4000;
const CLOEXEC = 0o2000000;

/** sizeof(struct sockaddr_un); libqb's abstract names use all of it. */
const ADDRESS_BYTES = 110;
/** Without sun_family, and the NUL before an abstract name or after a path. */
const MAX_NAME_BYTES = ADDRESS_BYTES - 3;
/** Frames read per wake-up of the event loop, which by itself would read one. */
const FRAMES_PER_TURN = 32;
/** The kernel's overhead per frame in SO_SNDBUF. */
const OVERHEAD_BYTES = 32;
const FAMILY_BYTES = 2;
const INT_BYTES = 4;
/** Socket files are only for their owner. */
export const FILE_MODE = 0o600;

/** The address of a datagram socket: an abstract name or a path. */
export interface DatagramAddress {
  readonly name: string;
  readonly kind: 'abstract' | 'path';
}

export interface DatagramListener {
  /** A frame was received; it is valid only during the call. False pauses the reading until resume(). */
  onFrame(frame: Buffer): boolean;
  /** The frame that send() kept waiting was sent. */
  onSent(): void;
  /** The socket is closed. */
  onEnd(error?: Error): void;
}

/** A bound datagram socket. */
export interface DatagramSocket {
  /** Size of the largest frame it can send. */
  readonly maxBytes: number;
  /** A frame waits until the peer has room. */
  readonly sending: boolean;
  /** Starts reading. */
  listen(listener: DatagramListener): void;
  /** Sets the peer, if `remote` was not given. Throws the system error while the peer does not exist. */
  connect(remote: DatagramAddress): void;
  /** Sends a frame; the caller may then reuse its memory. Do not call this while `sending`. */
  send(frame: Buffer): void;
  resume(): void;
  /** Whether it keeps the process alive. */
  keepAlive(on: boolean): void;
  /** Closes it and removes its file. Idempotent. */
  close(): Promise<void>;
}

export interface DatagramOptions {
  readonly local: DatagramAddress;
  /** If given, no other socket can ever send to us. */
  readonly remote?: DatagramAddress;
  /** The desired frame size. */
  readonly frameBytes: number;
}

/** Throws CS_ERR_NAME_TOO_LONG if the name does not fit a socket address: the kernel would use another one. */
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

/** Opens, connects and binds a socket. On a CpgError for a bad name, or a system error, leaves nothing open. */
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
    // Connect first: between bind and connect, other processes could put frames into our queue.
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
    // The other descriptor keeps the socket open.
    closeSync(fd);
  }
}

/** A descriptor that sends to a peer whose abstract name is not padded, unlike libqb's. */
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

/** Enlarges the buffers for frames of this size, as far as the system allows. Returns SO_SNDBUF. */
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

/** Read buffer shared by all sockets of one frame size, since each read is handled before the next. */
let readMemory = Buffer.alloc(0);

/** System calls for one descriptor. */
interface System {
  replace(): void;
  connect(peer: DatagramAddress): void;
  /** False while there is no room. Throws the system error. */
  send(frame: Buffer): boolean;
  /** The number of bytes received; at most 0 if there is none or on an error, which the event loop reports. */
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
    // One extra byte, to detect a frame that is too long.
    if (readMemory.length <= frameBytes) readMemory = Buffer.allocUnsafeSlow(frameBytes + 1);
    const buffer = readMemory;
    const callback = (bytes: number): boolean => {
      // Without a listener nothing was read yet, so the first frame is not lost.
      let goesOn = this.#listener?.onFrame(buffer.subarray(0, bytes)) ?? false;
      for (let frames = 1; goesOn && frames < FRAMES_PER_TURN && !this.#socket.destroyed; frames++) {
        const more = system.receive(buffer);
        if (more <= 0) break;
        goesOn = this.#listener!.onFrame(buffer.subarray(0, more));
      }
      return goesOn;
    };
    try {
      // A high-water mark of 1: one waiting frame is enough.
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
