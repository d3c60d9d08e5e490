import { writeFile } from 'node:fs/promises';
import { CpgError } from '../../errors';
import { readCapture } from '../../tap/capture/reader';
import { Conversations } from '../../tap/decode/messages';
import { mermaid } from '../../tap/timeline/mermaid';
import { TimelineBuilder } from '../../tap/timeline/model';
import { svg } from '../../tap/timeline/svg';
import { defineCommand } from '../command';
import { jsonLine } from '../json';
import { flag, text } from '../options';
import { openCapture } from './decode';
import { captureOperand, unusedAddress } from './shared';

export const timeline = defineCommand({
  name: 'timeline',
  summary: 'draw what happened in a group',
  description: [
    'Makes a sequence chart of a group from a capture: a lane for each member, its messages as arrows, and who joined and left, and why, as notes across the lanes. Long rows of messages of one sender are folded. The chart shows the order in which one member saw it all, which is the order in which every member did.',
    'The result is an SVG picture that needs nothing else, or with --mermaid the text of a Mermaid diagram.',
  ],
  operands: [captureOperand],
  options: {
    address: unusedAddress,
    group: text('GROUP', 'the group; default the one with most events'),
    mermaid: flag('Mermaid text instead of SVG'),
    output: text('FILE', 'write to a file instead of standard output', 'file'),
  },
  examples: [
    { command: 'cpg timeline trace.pcapng --output trace.svg', meaning: 'A picture for the browser.' },
    { command: 'cpg timeline trace.pcapng --group orders --mermaid', meaning: 'Text for a Markdown page.' },
  ],
  run: async (context, { json, group, mermaid: asText, output }, { file }) => {
    const conversations = new Conversations();
    const builder = new TimelineBuilder();
    for await (const frame of readCapture(openCapture(context, file))) {
      context.signal.throwIfAborted();
      builder.add(conversations.add(frame));
    }
    const chart = builder.build(group);
    if (chart === undefined) {
      const known = builder.groups.length === 0 ? '' : `; there are ${builder.groups.join(', ')}`;
      throw new CpgError('CS_ERR_NOT_EXIST', `${file}: no events of ${group ?? 'any group'} in it${known}`, {
        remedy: 'record the events of a member with cpg tap --write',
      });
    }
    if (json) {
      await context.out.line(jsonLine({ type: 'timeline', ...chart }));
      return;
    }
    const picture = asText ? mermaid(chart) : svg(chart);
    await (output === undefined ? context.out.write(picture) : writeFile(output, picture));
  },
});
