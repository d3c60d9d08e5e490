/** How frames reach a daemon: by shared memory (shm-transport.ts), or by datagrams (datagram-transport.ts). */
import type { CpgError } from '../errors';
import type { Mapped } from '../native/mapping';
import type { FrameHandler } from '../ring/event-reader';

/** Callbacks for a sender. No method may throw. */
export interface SendListener {
  /** The reply to the request in flight; the listener may keep the frame. */
  onResponse(frame: Buffer): void;
  /** After stage() returned false: try again. */
  onRoom(): void;
  /** Staged frames were posted to the daemon. */
  onPosted(): void;
  /** We freed space in an event ring that was nearly full: see `wantsWakeUp`. */
  onRingEmptied(): void;
}

/** All callbacks of a transport. No method may throw. */
export interface TransportListener extends SendListener {
  /** Events can be read with consumeEvents(). */
  onEvents(): void;
  /** The connection ended; `reason` is absent after close(). No callback follows. */
  onClose(reason?: CpgError): void;
}

/** How to move frames. */
export interface TransportOptions {
  /** Whether to map rings into memory. */
  readonly mapped: Mapped;
  /** Frames are valid only during the call: see FrameHandler. */
  readonly lend: boolean;
  /** Microseconds of polling for the next event after sending or receiving. */
  readonly busyPollUs: number;
  /** Milliseconds for which a busy receive-only member coalesces events; 0 reports each immediately. */
  readonly coalesceMs: number;
}

export interface Transport {
  readonly serverPid: number;
  /** Our pid as the daemon sees it: inside a pid namespace it differs from process.pid. */
  readonly clientPid: number;
  /** Size of the largest frame in either direction. */
  readonly maxFrameBytes: number;
  /** Event bytes that the daemon can deliver before it has to queue them itself. */
  readonly eventCapacityBytes: number;
  /** The descriptor of the service socket. */
  readonly fd: number;
  /** Frames staged but not posted. */
  readonly staged: number;
  /** Events known to be available and not consumed. */
  readonly pendingEvents: number;
  /**
   * The daemon may hold back events for which the ring had no room, and there is room now. It retries when something
   * wakes it, or up to 50 ms later. Any frame wakes it, and none is staged.
   */
  readonly wantsWakeUp: boolean;

  /** Call this once, before anything else. */
  listen(listener: TransportListener): void;
  /** The daemon's flow control: true while it asks us not to send. */
  flowControl(): boolean;
  /**
   * Takes one frame of `head` and `parts`, together `length` bytes. The caller may reuse the memory afterwards, and the
   * frame is sent unless the connection ends. False when there is no room, or under flow control: onRoom() follows.
   */
  stage(head: Buffer, parts: readonly Uint8Array[], length: number): boolean;
  /** Bytes to reserve before a frame for stagePrepared(). */
  readonly headroomBytes: number;
  /**
   * Like stage() but without a copy, for a frame in `memory` after headroomBytes, padded to a multiple of 4.
   */
  stagePrepared(memory: Buffer, length: number): boolean;
  /** The daemon is known to have consumed everything posted, because it was delivered back. */
  markConsumed(): void;
  /** A request with a reply was staged: onResponse() follows. At most one at a time. */
  expectResponse(): void;
  /** Passes up to `limit` events to `handler` and returns how many. */
  consumeEvents(limit: number, handler: FrameHandler): number;
  /** Whether the connection keeps the process alive. */
  keepAlive(on: boolean): void;
  /** Ends the connection with `reason` for onClose(); resolves when everything is released. Idempotent. */
  close(reason?: CpgError): Promise<void>;
}
