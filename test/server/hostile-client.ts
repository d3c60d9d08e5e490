/** A client without manners: it connects properly, and then writes whatever it is told into its rings. */
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import {
  decodeHandshakeResponse,
  encodeHandshakeRequest,
  HANDSHAKE_RESPONSE_BYTES,
  type HandshakeResponse,
} from '../../src/codec/handshake';
import { openRing } from '../../src/ring/files';
import { Magic, WORD_BYTES } from '../../src/ring/layout';
import type { Ring } from '../../src/ring/ring';

export class HostileClient {
  readonly directory: string;
  readonly request: Ring;
  readonly response: Ring;
  readonly event: Ring;
  hungUp = false;
  static readonly #connected = new Set<HostileClient>();

  private constructor(
    readonly socket: Socket,
    readonly answer: HandshakeResponse,
  ) {
    this.directory = dirname(answer.request);
    this.request = openRing(answer.request);
    this.response = openRing(answer.response);
    this.event = openRing(answer.event);
    HostileClient.#connected.add(this);
    socket.once('close', () => {
      HostileClient.#connected.delete(this);
      this.hungUp = true;
      for (const ring of [this.request, this.response, this.event]) ring.close();
    });
  }

  /** The socket is not read after the handshake unless `reading`. */
  static async connect(address: string, reading = true): Promise<HostileClient> {
    const { socket, answer } = await shakeHands(
      address,
      encodeHandshakeRequest({ maxMessageSize: 1024 * 1024 }),
    );
    if (answer === undefined) throw new Error('no answer');
    const client = new HostileClient(socket, decodeHandshakeResponse(answer));
    if (reading) socket.resume();
    else socket.pause();
    return client;
  }

  static destroyAll(): void {
    for (const client of HostileClient.#connected) client.socket.destroy();
  }

  /** One chunk, properly written; `claimed` replaces its length. */
  post(frame: Buffer, claimed = frame.length, magic: number = Magic.COMMITTED): void {
    const words = 2 + Math.ceil(frame.length / WORD_BYTES);
    const chunk = Buffer.alloc(words * WORD_BYTES);
    chunk.writeUInt32LE(claimed, 0);
    chunk.writeUInt32LE(magic, WORD_BYTES);
    frame.copy(chunk, 2 * WORD_BYTES);
    this.request.readPointers();
    this.request.write(this.request.writePointer, chunk);
    this.request.publishWritePointer(this.request.advance(this.request.writePointer, words));
    this.request.setSemaphore(1);
  }

  announce(bytes = 1): void {
    this.socket.write(Buffer.alloc(bytes));
  }

  send(frame: Buffer): void {
    this.post(frame);
    this.announce();
  }
}

/** Sends bytes of any kind as a handshake; `answer` is absent when the server hangs up without one. */
export function shakeHands(
  address: string,
  bytes: Buffer,
): Promise<{ socket: Socket; answer: Buffer | undefined }> {
  return new Promise((resolve) => {
    const socket = connect({ path: address });
    const received: Buffer[] = [];
    let length = 0;
    const onData = (data: Buffer): void => {
      received.push(data);
      length += data.length;
      if (length < HANDSHAKE_RESPONSE_BYTES) return;
      socket.off('data', onData);
      resolve({ socket, answer: Buffer.concat(received) });
    };
    socket.on('data', onData);
    socket.on('error', () => undefined);
    socket.once('close', () => resolve({ socket, answer: undefined }));
    socket.write(bytes);
  });
}
