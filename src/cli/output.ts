/** Standard output and error, and files: colours where they are wanted, a closed pipe, a slow reader, no room. */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { counted } from '../text';
import type { Context } from './command';
import { OutputClosed, systemFailure } from './failure';

export type Colour = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

const CODES: Record<Colour, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };

export interface OutputOptions {
  /** How errors call it. */
  name: string;
  /** What cannot be written is dropped: the command goes on without it. */
  mayFail?: boolean;
}

export class Output {
  readonly #stream: Writable;
  readonly #name: string;
  readonly #mayFail: boolean;
  /** People read this: colour, alignment, escaped names. */
  readonly terminal: boolean;
  readonly #coloured: boolean;
  readonly #closed = new AbortController();
  /** Handed over, and not taken yet. */
  #bytes = 0;
  #messages = 0;
  #error: NodeJS.ErrnoException | undefined;

  constructor(
    stream: Writable & { isTTY?: boolean },
    env: NodeJS.ProcessEnv,
    { name, mayFail = false }: OutputOptions,
  ) {
    this.#stream = stream;
    this.#name = name;
    this.#mayFail = mayFail;
    this.terminal = stream.isTTY === true;
    // See no-color.org: any value but the empty one counts.
    this.#coloured = this.terminal && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
    stream.on('error', (error: NodeJS.ErrnoException) => this.#fail(error));
  }

  /** Aborts when nobody reads any more (OutputClosed), or it cannot be written. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** Messages that were given to write() and are not written. */
  get unwritten(): number {
    return this.#messages;
  }

  paint(colour: Colour, text: string): string {
    return this.#coloured ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;
  }

  /** Writes a line; resolves when the reader has kept up. Rejects with the reason of `closed`. */
  line(text: string): Promise<void> {
    return this.write(`${text}\n`);
  }

  /** Writes data that holds so many messages. */
  async write(data: string | Uint8Array, messages = 0): Promise<void> {
    if (this.#closed.signal.aborted) this.#await(data, messages);
    else if (!this.#hand(data, messages)) await this.#drained();
    if (!this.#mayFail) this.#closed.signal.throwIfAborted();
  }

  /** Resolves when everything was taken, or nothing will be any more: then with the reason, and all that was lost. */
  async flushed(): Promise<unknown> {
    if (!this.#closed.signal.aborted && this.#bytes > 0) {
      await new Promise<void>((resolve) => {
        this.#closed.signal.addEventListener('abort', () => resolve(), { once: true });
        this.#stream.write('', () => resolve());
      });
    }
    return this.#error === undefined ? this.#closed.signal.reason : this.#failure(this.#error);
  }

  /** Closes a file. Rejects when not all of it could be written. */
  async end(): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#stream.end();
      await finished(this.#stream).catch((error: unknown) => this.#fail(error as NodeJS.ErrnoException));
    }
    this.#closed.signal.throwIfAborted();
  }

  /** Returns whether there is room for more. */
  #hand(data: string | Uint8Array, messages: number): boolean {
    const bytes = this.#await(data, messages);
    try {
      return this.#stream.write(data, (error) => {
        if (error != null) {
          this.#fail(error);
          return;
        }
        this.#bytes -= bytes;
        this.#messages -= messages;
      });
    } catch (error) {
      // Streams on files write at once, and some let the system's error through.
      this.#fail(error as NodeJS.ErrnoException);
      return true;
    }
  }

  /** Counts what is not written yet, and perhaps never will be; returns its bytes. */
  #await(data: string | Uint8Array, messages: number): number {
    const bytes = typeof data === 'string' ? Buffer.byteLength(data) : data.length;
    this.#bytes += bytes;
    this.#messages += messages;
    return bytes;
  }

  async #drained(): Promise<void> {
    try {
      await once(this.#stream, 'drain', { signal: this.#closed.signal });
    } catch (error) {
      if (!this.#closed.signal.aborted) throw error;
    }
  }

  #fail(error: NodeJS.ErrnoException): void {
    // After its end a stream says of each write only that it has ended.
    if (this.#closed.signal.aborted || error.code === 'ERR_STREAM_DESTROYED') return;
    if (error.code !== 'EPIPE') this.#error = error;
    this.#closed.abort(this.#error === undefined ? new OutputClosed() : this.#failure(error));
  }

  #failure(error: NodeJS.ErrnoException): Error {
    const bytes = counted(this.#bytes, 'byte');
    const lost = this.#messages > 0 ? `${counted(this.#messages, 'message')} (${bytes})` : bytes;
    return systemFailure(error, `${this.#name} cannot be written, ${lost} lost`);
  }
}

/** Read and written by this user alone: what programs tell each other through rings that nobody else may read. */
const PRIVATE = 0o600;

/** A file to write; when it is new, for this user alone. What it loses is reported at the end, like for all outputs. */
export async function openOutput(
  { outputs, signal }: Context,
  path: string,
  aheadBytes?: number,
): Promise<Output> {
  const stream = createWriteStream(path, {
    mode: PRIVATE,
    ...(aheadBytes === undefined ? {} : { highWaterMark: aheadBytes }),
  });
  const opened = once(stream, 'open', { signal });
  const output = new Output(stream, {}, { name: path });
  await opened;
  outputs.push(output);
  return output;
}
