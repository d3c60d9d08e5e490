/** Reading a capture for a command: what was passed over in it is reported, and what is lost is a failure. */
import { createReadStream } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import { CaptureReader } from '../tap/capture/reader';
import { Conversations, type TapMessage } from '../tap/decode/messages';
import { CpgError, isCpgError } from '../errors';
import type { Context } from './command';
import { isSystemError, systemFailure } from './failure';
import { counted, visible } from './text';

/**
 * The messages of a file, or of standard input for '-'. After the last one it says on standard error what was passed
 * over, and throws CS_ERR_MESSAGE_ERROR when something of the capture was lost or makes no sense.
 */
export async function* messagesOf(
  context: Context,
  file: string,
  until = context.signal,
): AsyncGenerator<TapMessage, void> {
  const reader = new CaptureReader();
  const conversations = new Conversations();
  const malformed = { count: 0, first: '' };
  let failure: unknown;
  try {
    for await (const chunk of openCapture(context, file, until)) {
      for (const frame of reader.push(chunk)) {
        until.throwIfAborted();
        const message = conversations.add(frame);
        if (message.problem !== undefined && malformed.count++ === 0)
          malformed.first = `#${message.number}, ${message.problem}`;
        yield message;
      }
    }
    reader.end();
    if (malformed.count > 0) {
      throw new CpgError('CS_ERR_MESSAGE_ERROR', malformedText(malformed), {
        remedy: 'see them with cpg decode --hex; everything else was read',
      });
    }
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    // What the failure tells is not said twice.
    const told = isCpgError(failure) ? failure.what : '';
    const texts = reader.findings.map(({ text }) => text);
    if (malformed.count > 0) texts.push(malformedText(malformed));
    if (reader.frames === 0 && failure === undefined) texts.push('there are no frames in it');
    for (const text of texts)
      if (!until.aborted && !told.includes(text))
        await context.err.line(`cpg: ${visible(file)}: ${visible(text)}`);
  }
}

function malformedText({ count, first }: { count: number; first: string }): string {
  return `${counted(count, 'frame')} of the capture cannot be decoded (first: ${first})`;
}

/** A source that says nothing does not keep us from ending. */
async function* openCapture(
  { stdin }: Context,
  file: string,
  until: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  const [stream, name] = file === '-' ? [stdin, 'standard input'] : [createReadStream(file), file];
  try {
    yield* addAbortSignal(until, stream) as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw isSystemError(error) ? systemFailure(error, name) : error;
  }
}
