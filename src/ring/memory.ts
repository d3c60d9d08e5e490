/**
 * Memory that events are read into. It is needed for the time of one call, so the process keeps a piece for
 * each nesting of calls (a listener may dispatch another client), not one for each connection.
 */
import { MessageChannel, receiveMessageOnPort, type MessagePort } from 'node:worker_threads';

/** Read at once: many small chunks, and little enough to stay in the processor's cache until they are used. */
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
 * Memory that listeners borrow and that is detached afterwards. A piece of it that was kept is empty then: it must not
 * change silently when the memory is used again.
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

/** The same memory in a new ArrayBuffer; all views of the old one have length 0 from now on. */
export function detach(memory: Buffer): Buffer {
  // ArrayBuffer.prototype.transfer, which Node has from version 21 on: this way is several times faster than
  // structuredClone(), the other one there is.
  if (channel === undefined) {
    const { port1, port2 } = new MessageChannel();
    channel = { from: port1, to: port2 };
  }
  const buffer = memory.buffer as ArrayBuffer;
  channel.from.postMessage(buffer, [buffer]);
  const received = receiveMessageOnPort(channel.to) as { message: ArrayBuffer };
  return Buffer.from(received.message);
}
