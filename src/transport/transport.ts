/** How frames reach a daemon: by shared memory (shm-transport.ts), or by datagrams (datagram-transport.ts). */
import type { CpgError } from '../errors';
import type { Mapped } from '../native/mapping';
import type { FrameHandler } from '../ring/event-reader';

/** What a sender wants to know. No method may throw. */
export interface SendListener {
  /** The reply to the request in flight; the frame is the listener's to keep. */
  onResponse(frame: Buffer): void;
  /** After stage() said false: it is worth trying again. */
  onRoom(): void;
  /** Staged frames were handed to the daemon. */
  onPosted(): void;
  /**
   * Room was made in an event ring that was nearly full. See `wantsWakeUp`; frames that are staged by then, or soon
   * after, do as well as any.
   */
  onRingEmptied(): void;
}

/** All that a transport reports. No method may throw. */
export interface TransportListener extends SendListener {
  /** Events can be read with consumeEvents(). */
  onEvents(): void;
  /** The connection ended; `reason` is absent when close() was called. Nothing follows. */
  onClose(reason?: CpgError): void;
}

/** How frames are to be moved. */
export interface TransportOptions {
  /** Whether rings are mapped into memory. */
  readonly mapped: Mapped;
  /** Frames are lent for the duration of the call: see FrameHandler. */
  readonly lend: boolean;
  /** Microseconds for which the next event is looked for instead of waited for, after anything was sent or came. */
  readonly busyPollUs: number;
  /** Milliseconds for which events may gather while many come and nothing is sent; 0 to be told of each at once. */
  readonly coalesceMs: number;
}

export interface Transport {
  readonly serverPid: number;
  /** Our pid as the daemon sees it: another than process.pid inside a pid namespace. */
  readonly clientPid: number;
  /** Bytes of the largest frame, either way. */
  readonly maxFrameBytes: number;
  /** Bytes of events that the daemon can hand over before it has to queue them itself. */
  readonly eventCapacityBytes: number;
  /** The descriptor of the service socket. */
  readonly fd: number;
  /** Frames staged and not yet handed to the daemon. */
  readonly staged: number;
  /** Events that are known to be there and were not consumed yet. */
  readonly pendingEvents: number;
  /**
   * The daemon may hold events back for which the event ring had no room, and there is room now. It looks again only
   * when something wakes it, up to 50 ms later; any frame does, and none is on its way.
   */
  readonly wantsWakeUp: boolean;

  /** To be called once, before anything else. */
  listen(listener: TransportListener): void;
  /** The daemon's flow control: true while it asks us not to send. */
  flowControl(): boolean;
  /**
   * Takes over one frame made of `head` and `parts`, together `length` bytes; the memory is free again when
   * this returns, and the frame goes out unless the connection ends. False when there is no room now, or
   * flow control holds us: onRoom() follows.
   */
  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean;
  /** Bytes to keep free before a frame that is given to stagePrepared(). */
  readonly headroomBytes: number;
  /**
   * As stage(), for a frame that stands in `memory` behind headroomBytes and is padded to a multiple of 4:
   * it goes out without being copied.
   */
  stagePrepared(memory: Buffer, length: number): boolean;
  /** There is proof that the daemon has taken all that was handed over: it has come back. */
  markConsumed(): void;
  /** A request with a reply was staged: onResponse() follows. At most one at a time. */
  expectResponse(): void;
  /** Hands up to `limit` events to `handler` and returns how many. */
  consumeEvents(limit: number, handler: FrameHandler): number;
  /** Whether the connection keeps the process alive. */
  keepAlive(on: boolean): void;
  /** Ends the connection, for a reason that onClose() gives; resolves when nothing of it is left. Can be called again. */
  close(reason?: CpgError): Promise<void>;
}
