/**
 * Memory that events are read into. It is used only during a call, so the process keeps one piece per nesting level of
 * calls (a listener may dispatch another client) instead of one per connection.
 */
import { MessageChannel, receiveMessageOnPort, type MessagePort } from 'node:worker_threads';

/** The size of one read: many small chunks, but small enough to stay in the CPU cache until they are used. */
export const WINDOW_BYTES = 128 * 1024;

const MAX_SPARE_WINDOWS = 2;
const spareWindows: Buffer[] = [];

export function takeWindow(): Buffer {
  return spareWindows.pop() ?? Buffer.allocUnsafeSlow(WINDOW_BYTES);
}

export function giveBackWindow(window: Buffer): void {
  if (spareWindows.length < MAX_SPARE_WINDOWS) spareWindows.push(window);
}

/**
 * Memory that listeners borrow and that is detached afterwards: a buffer that a listener kept becomes empty instead of
 * changing silently when the memory is reused.
 */
export class BorrowedBuffer {
  #spare: Buffer | undefined;

  /** Memory for one large frame, until giveBack(). */
  take(length: number): Buffer {
    if (this.#spare === undefined || this.#spare.length < length)
      this.#spare = Buffer.allocUnsafeSlow(length);
    return this.#spare.subarray(0, length);
  }

  giveBack(): void {
    if (this.#spare !== undefined) this.#spare = detach(this.#spare);
  }
}

let channel: { from: MessagePort; to: MessagePort } | undefined;

/** Moves the memory to a new ArrayBuffer; all views of the old one then have length 0. */
export function detach(memory: Buffer): Buffer {
  // ArrayBuffer.prototype.transfer() needs Node 21; this is several times faster than structuredClone().
  if (channel === undefined) {
    const { port1, port2 } = new MessageChannel();
    channel = { from: port1, to: port2 };
  }
  const buffer = memory.buffer as ArrayBuffer;
  channel.from.postMessage(buffer, [buffer]);
  const received = receiveMessageOnPort(channel.to) as { message: ArrayBuffer };
  return Buffer.from(received.message);
}
