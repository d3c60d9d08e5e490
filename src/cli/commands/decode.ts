import { createReadStream } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import { accepts } from '../../tap/decode/filter';
import { Conversations } from '../../tap/decode/messages';
import { readCapture } from '../../tap/capture/reader';
import { dataOptions, defineCommand, type Context } from '../command';
import { isSystemError, systemFailure } from '../failure';
import { TimeLimit } from '../limit';
import { filterOf, filterOptions, hexOption, messageText, ServiceCheck } from '../messages';
import { captureOperand, readOption, streamCount, streamTimeout } from './shared';

export const decode = defineCommand({
  name: 'decode',
  summary: 'print a capture',
  description: [
    'Prints the messages of a pcapng file written by "cpg tap --write", also after Wireshark, editcap or mergecap have written it again. A damaged file is printed up to the damage, and is a failure.',
  ],
  operands: [captureOperand],
  options: {
    read: readOption,
    ...filterOptions,
    hex: hexOption,
    count: streamCount('messages'),
    timeout: streamTimeout,
  },
  examples: [
    { command: 'cpg decode trace.pcapng', meaning: 'All messages, a line each.' },
    {
      command: 'cpg decode trace.pcapng --message mcast --group orders --hex',
      meaning: 'What was sent to a group, with its bytes.',
    },
    {
      command: 'cpg decode trace.pcapng --json | jq "select(.afterMs > 100)"',
      meaning: 'Requests that took long.',
    },
  ],
  common: dataOptions,
  run: async (context, { json, hex, count, timeout, ...values }, { file }) => {
    const filter = filterOf(values);
    const services = new ServiceCheck(filter);
    const conversations = new Conversations();
    const limit = new TimeLimit(context.signal, timeout);
    let printed = 0;
    try {
      for await (const frame of readCapture(openCapture(context, file, limit.signal))) {
        limit.signal.throwIfAborted();
        const message = conversations.add(frame);
        services.see(frame.connection.service);
        if (!accepts(filter, message)) continue;
        await context.out.write(messageText(message, context.out, { json, hex }), 1);
        if (++printed === count) return;
      }
    } catch (error) {
      if (!limit.passed) throw error;
      if (count !== undefined) throw limit.failure(`decode: ${printed} of ${count} messages`);
    } finally {
      limit.dispose();
    }
    const missing = services.failure('decode');
    if (missing !== undefined) throw missing;
  },
});

/** The bytes of a file, or of standard input for '-'; a source that says nothing does not keep us from ending. */
export async function* openCapture(
  { stdin, signal }: Context,
  file: string,
  until: AbortSignal = signal,
): AsyncGenerator<Uint8Array, void> {
  const [stream, name] = file === '-' ? [stdin, 'standard input'] : [createReadStream(file), file];
  try {
    yield* addAbortSignal(until, stream) as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw isSystemError(error) ? systemFailure(error, name) : error;
  }
}
