import { createReadStream } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import { accepts } from '../../tap/decode/filter';
import { Conversations } from '../../tap/decode/messages';
import { readCapture } from '../../tap/capture/reader';
import { defineCommand, type Context } from '../command';
import { TimeLimit } from '../limit';
import { filterOf, filterOptions, hexOption, messageText } from '../messages';
import { captureOperand, streamCount, streamTimeout, unusedAddress } from './shared';

export const decode = defineCommand({
  name: 'decode',
  summary: 'print a capture',
  description: [
    'Prints the messages of a pcapng file written by "cpg tap --write", also after Wireshark, editcap or mergecap have written it again. A damaged file is printed up to the damage, and is a failure.',
  ],
  operands: [captureOperand],
  options: {
    address: unusedAddress,
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
  run: async (context, { json, hex, count, timeout, ...values }, { file }) => {
    const filter = filterOf(values);
    const conversations = new Conversations();
    const limit = new TimeLimit(context.signal, timeout);
    let printed = 0;
    try {
      for await (const frame of readCapture(openCapture(context, file, limit.signal))) {
        limit.signal.throwIfAborted();
        const message = conversations.add(frame);
        if (!accepts(filter, message)) continue;
        await context.out.write(messageText(message, context.out, { json, hex }));
        if (++printed === count) return;
      }
    } catch (error) {
      if (!limit.passed) throw error;
      if (count !== undefined) throw limit.failure(`decode: ${printed} of ${count} messages`);
    } finally {
      limit.dispose();
    }
  },
});

/** The bytes of a file, or of standard input for '-'; a source that says nothing does not keep us from ending. */
export function openCapture(
  { stdin, signal }: Context,
  file: string,
  until: AbortSignal = signal,
): AsyncIterable<Uint8Array> {
  return addAbortSignal(until, file === '-' ? stdin : createReadStream(file));
}
