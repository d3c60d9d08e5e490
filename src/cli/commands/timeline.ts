import { CpgError } from '../../errors';
import { readCapture } from '../../tap/capture/reader';
import { Conversations } from '../../tap/decode/messages';
import { mermaid } from '../../tap/timeline/mermaid';
import { TimelineBuilder } from '../../tap/timeline/model';
import { svg } from '../../tap/timeline/svg';
import { dataOptions, defineCommand } from '../command';
import { jsonLine } from '../json';
import { flag, group as groupOption, text } from '../options';
import { openOutput } from '../output';
import { findGroup } from '../messages';
import { openCapture } from './decode';
import { captureOperand, readOption } from './shared';

export const timeline = defineCommand({
  name: 'timeline',
  summary: 'draw what happened in a group',
  description: [
    'Makes a sequence chart of a group from a capture: a lane for each member, its messages as arrows, and who joined and left, and why, as notes across the lanes. Long rows of messages of one sender are folded. The chart shows the order in which one member saw it all, which is the order in which every member did.',
    'The result is an SVG picture that needs nothing else, or with --mermaid the text of a Mermaid diagram.',
  ],
  operands: [captureOperand],
  options: {
    read: readOption,
    group: groupOption('the group; default the one with most events'),
    mermaid: flag('Mermaid text instead of SVG'),
    output: text('FILE', 'write to a file instead of standard output', 'file'),
  },
  examples: [
    { command: 'cpg timeline trace.pcapng --output trace.svg', meaning: 'A picture for the browser.' },
    { command: 'cpg timeline trace.pcapng --group orders --mermaid', meaning: 'Text for a Markdown page.' },
  ],
  common: dataOptions,
  run: async (context, { json, group: wanted, mermaid: asText, output }, { file }) => {
    const conversations = new Conversations();
    const builder = new TimelineBuilder();
    for await (const frame of readCapture(openCapture(context, file))) {
      context.signal.throwIfAborted();
      builder.add(conversations.add(frame));
    }
    const group = wanted && findGroup(wanted, builder.groups);
    const chart = builder.build(group);
    if (chart === undefined) {
      const known = builder.groups.length === 0 ? '' : `; there are ${builder.groups.join(', ')}`;
      throw new CpgError('CS_ERR_NOT_EXIST', `${file}: no events of ${group ?? 'any group'} in it${known}`, {
        remedy: 'record the events of a member with cpg tap --write',
      });
    }
    if (json) {
      return context.out.line(jsonLine({ type: 'timeline', ...chart }));
    }
    const picture = asText ? mermaid(chart) : svg(chart);
    if (output === undefined) return context.out.write(picture);
    const written = await openOutput(context, output);
    await written.write(picture);
    await written.end();
  },
});
