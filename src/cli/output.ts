/** Standard output and error: colours where they are wanted, a closed pipe, a slow reader. */
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { OutputClosed } from './failure';

export type Colour = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

const CODES: Record<Colour, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };

export class Output {
  readonly #stream: Writable;
  /** People read this: colour, alignment, escaped names. */
  readonly terminal: boolean;
  readonly #coloured: boolean;
  readonly #closed = new AbortController();

  constructor(stream: Writable & { isTTY?: boolean }, env: NodeJS.ProcessEnv) {
    this.#stream = stream;
    this.terminal = stream.isTTY === true;
    // See no-color.org: any value but the empty one counts.
    this.#coloured = this.terminal && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
    stream.on('error', (error: NodeJS.ErrnoException) => {
      this.#closed.abort(error.code === 'EPIPE' ? new OutputClosed() : error);
    });
  }

  /** Aborts when nobody reads any more. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  paint(colour: Colour, text: string): string {
    return this.#coloured ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;
  }

  /** Writes a line; resolves when the reader has kept up. Rejects with OutputClosed. */
  line(text: string): Promise<void> {
    return this.write(`${text}\n`);
  }

  async write(data: string | Uint8Array): Promise<void> {
    this.#closed.signal.throwIfAborted();
    if (this.#stream.write(data)) return;
    try {
      await once(this.#stream, 'drain', { signal: this.#closed.signal });
    } catch (error) {
      this.#closed.signal.throwIfAborted();
      throw error;
    }
  }

  /** Resolves when everything was handed over, or nobody takes it. */
  async flushed(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    await new Promise<void>((resolve) => {
      this.#closed.signal.addEventListener('abort', () => resolve(), { once: true });
      this.#stream.write('', () => resolve());
    });
  }
}
