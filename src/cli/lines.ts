/** Lines of a stream, as bytes: what is between two newlines is passed on exactly. */
import type { Readable } from 'node:stream';
import { CpgError } from '../errors';

const NEWLINE = 0x0a;

/** Yields each line without its newline; a last one without newline counts. At most `maxBytes` each. */
export async function* lines(stream: Readable, maxBytes: number): AsyncGenerator<Buffer, void> {
  let pieces: Buffer[] = [];
  let length = 0;
  const take = (piece: Buffer): void => {
    length += piece.length;
    if (length > maxBytes) {
      throw new CpgError('CS_ERR_TOO_BIG', `a line of more than ${maxBytes} bytes`, {
        remedy: 'send shorter lines',
      });
    }
    pieces.push(piece);
  };
  for await (const chunk of stream) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : (chunk as Buffer);
    let start = 0;
    for (let end = bytes.indexOf(NEWLINE); end !== -1; end = bytes.indexOf(NEWLINE, start)) {
      take(bytes.subarray(start, end));
      yield Buffer.concat(pieces);
      pieces = [];
      length = 0;
      start = end + 1;
    }
    if (start < bytes.length) take(bytes.subarray(start));
  }
  if (length > 0) yield Buffer.concat(pieces);
}
