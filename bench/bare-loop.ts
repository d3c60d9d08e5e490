/**
 * Shows how close a Node program can get to libcpg: a flood on mapped rings in one loop, without an event loop and
 * without the other work of a client. It copies messages into the ring and out of it, and counts them.
 *
 *     bare-loop GROUP SIZE COUNT WARMUP own|reused     separate memory for each message, or one buffer for all
 *
 * Prints one line of JSON, as libcpg.c does.
 */
import { readSync, writeSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { putNumber } from '../src/bench/member';
import { DELIVER } from '../src/codec/events';
import { groupBytes } from '../src/codec/groups';
import { encodeRequest, Guarantee, MCAST_HEADER_BYTES, renewMcastHeader } from '../src/codec/requests';
import { CHUNK_HEADER_BYTES, CHUNK_HEADER_WORDS, chunkWords, WORD_BYTES } from '../src/ring/layout';
import { mappedStorage } from '../src/ring/mapped-storage';
import { RequestWriter } from '../src/ring/request-writer';
import { ResponseReader } from '../src/ring/response-reader';
import type { Ring } from '../src/ring/ring';
import { resolveAddress } from '../src/transport/address';
import { openConnectionFiles } from '../src/transport/connection-files';
import { ServiceSocket } from '../src/transport/service-socket';

const CONNECT_TIMEOUT_MS = 5000;
/** Time for what the daemon sends unasked: the flow control of a new connection, the confchg of a join. */
const SETTLE_MS = 100;
/** Consumed space is returned when it exceeds this fraction of the event ring. */
const RECLAIM_FRACTION = 8;
const MIN_IN_FLIGHT = 2;
const POST_EVERY = 4;
/** Wake-up bytes that may wait on the socket. */
const MAX_UNREAD_BYTES = 8;

class BareLoop {
  readonly #fd: number;
  readonly #requests: RequestWriter;
  readonly #events: Ring;
  readonly #size: number;
  readonly #own: boolean;
  readonly #message: Buffer;
  readonly #head = Buffer.alloc(MCAST_HEADER_BYTES);
  readonly #chunkHeader = Buffer.alloc(CHUNK_HEADER_BYTES);
  readonly #buffer: Buffer;
  readonly #bytes = Buffer.alloc(64 * 1024);
  #pointer: number;
  #unreclaimedWords = 0;
  #unreadBytes = 0;
  received = 0;
  wrong = 0;

  constructor(fd: number, requests: RequestWriter, events: Ring, size: number, own: boolean) {
    this.#fd = fd;
    this.#requests = requests;
    this.#events = events;
    this.#size = size;
    this.#own = own;
    this.#message = Buffer.alloc(size);
    this.#buffer = Buffer.allocUnsafeSlow(events.wordSize * WORD_BYTES);
    this.#pointer = events.readPointer;
  }

  flood(count: number): void {
    const ringBytes = this.#events.wordSize * WORD_BYTES;
    const frameBytes = CHUNK_HEADER_BYTES + DELIVER.headerBytes + this.#size;
    const maxInFlight = Math.max(MIN_IN_FLIGHT, Math.floor(ringBytes / frameBytes));
    this.received = 0;
    this.wrong = 0;
    for (let sent = 0; this.received < count;) {
      while (sent < count && sent - this.received < maxInFlight) {
        putNumber(this.#message, sent);
        renewMcastHeader(this.#head, 0, Guarantee.AGREED, this.#size);
        if (!this.#requests.stage(this.#head, [this.#message], MCAST_HEADER_BYTES + this.#size)) break;
        if (++sent % POST_EVERY === 0) this.post();
      }
      this.post();
      this.take();
    }
    while (this.#unreadBytes > 0) this.#readBytes();
  }

  post(): void {
    if (this.#requests.stagedChunks === 0 || this.#requests.submitState() !== 'ready') return;
    writeSync(this.#fd, this.#bytes, 0, this.#requests.post());
  }

  take(): void {
    this.#events.readPointers();
    while (this.#pointer !== this.#events.writePointer) {
      this.#events.read(this.#pointer, this.#chunkHeader);
      const length = this.#chunkHeader.readUInt32LE(0);
      const frame = this.#own ? Buffer.allocUnsafeSlow(length) : this.#buffer;
      this.#events.read(this.#events.advance(this.#pointer, CHUNK_HEADER_WORDS), frame, length);
      if (length === DELIVER.headerBytes + this.#size) {
        if (frame.readUInt32LE(DELIVER.headerBytes) !== this.received) this.wrong++;
        this.received++;
      }
      this.#pointer = this.#events.advance(this.#pointer, chunkWords(length));
      this.#unreadBytes++;
      this.#unreclaimedWords += chunkWords(length);
      if (this.#unreclaimedWords > this.#events.wordSize / RECLAIM_FRACTION) this.#reclaim();
    }
    if (this.#unreclaimedWords > 0) this.#reclaim();
    if (this.#unreadBytes > MAX_UNREAD_BYTES) this.#readBytes();
  }

  #reclaim(): void {
    this.#events.setSemaphore(0);
    this.#events.publishReadPointer(this.#pointer);
    this.#unreclaimedWords = 0;
  }

  #readBytes(): void {
    try {
      this.#unreadBytes -= readSync(this.#fd, this.#bytes, 0, this.#unreadBytes, null);
    } catch (error) {
      // The daemon writes the byte after the chunk.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

async function main([group = '', size = '', count = '', warmup = '', memory = '']: string[]): Promise<void> {
  const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS);
  const { service, answer } = await ServiceSocket.open(resolveAddress(undefined), signal);
  const { rings } = openConnectionFiles(answer, mappedStorage());
  service.socket.pause();
  await pause(SETTLE_MS);
  const requests = new RequestWriter(rings.request);
  const responses = new ResponseReader(rings.response);
  const loop = new BareLoop(service.fd, requests, rings.event, Number(size), memory === 'own');
  const join = encodeRequest({ type: 'join', group: groupBytes(group), pid: process.pid, flags: 0 });
  requests.stage(join, [], join.length);
  loop.post();
  while (responses.take() === undefined) await pause(1);
  await pause(SETTLE_MS);
  loop.take();

  loop.flood(Number(warmup));
  const begin = performance.now();
  loop.flood(Number(count));
  const messagesPerSecond = Number(count) / ((performance.now() - begin) / 1000);
  process.stdout.write(
    `${JSON.stringify({ received: loop.received, wrong: loop.wrong, messagesPerSecond })}\n`,
  );
  service.socket.destroy();
  for (const ring of Object.values(rings)) ring.close();
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`bare-loop: ${String(error)}\n`);
  process.exitCode = 1;
});
