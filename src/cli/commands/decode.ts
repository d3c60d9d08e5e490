import { accepts } from '../../tap/decode/filter';
import type { TapMessage } from '../../tap/decode/messages';
import { messagesOf } from '../capture';
import { dataOptions, defineCommand } from '../command';
import { TimeLimit } from '../limit';
import { filterOf, filterOptions, hexOption, messageText, ServiceCheck } from '../messages';
import { counted } from '../text';
import { captureOperand, readOption, streamCount, streamTimeout } from './shared';

export const decode = defineCommand({
  name: 'decode',
  summary: 'print a capture',
  description: [
    'Prints the messages of a pcapng file written by "cpg tap --write", or rewritten by Wireshark, editcap or mergecap. A damaged file is printed up to the damage; the command then fails.',
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
    { command: 'cpg decode trace.pcapng', meaning: 'All messages, one per line.' },
    {
      command: 'cpg decode trace.pcapng --message mcast --group orders --hex',
      meaning: 'Messages sent to a group, with their bytes.',
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
    const limit = new TimeLimit(context.signal, timeout);
    let printed = 0;
    let ofNoGroup = 0;
    try {
      for await (const message of messagesOf(context, file, limit.signal)) {
        services.see(message.frame.connection.service);
        if (filter.groups.length > 0 && message.group === undefined && isSent(message)) ofNoGroup++;
        if (!accepts(filter, message)) continue;
        await context.out.write(messageText(message, context.out, { json, hex }), 1);
        if (++printed === count) return;
      }
    } catch (error) {
      if (!limit.expired) throw error;
      if (count !== undefined) throw limit.failure(`decode: ${printed} of ${counted(count, 'message')}`);
    } finally {
      limit.dispose();
      // The filter drops them, though the user may have meant them.
      if (ofNoGroup > 0 && !context.signal.aborted) {
        const text = `cpg: decode: ${counted(ofNoGroup, 'message')} left out: the capture does not tell the group`;
        await context.err.line(`${text} (recording began after the join)`);
      }
    }
    const missing = services.failure('decode');
    if (missing !== undefined) throw missing;
  },
});

function isSent({ content }: TapMessage): boolean {
  return content?.type === 'mcast' || content?.type === 'partialMcast';
}
