import { CpgError } from '../../errors';
import { mermaid } from '../../tap/timeline/mermaid';
import { TimelineBuilder, unseenText } from '../../tap/timeline/model';
import { svg } from '../../tap/timeline/svg';
import { messagesOf } from '../capture';
import { dataOptions, defineCommand } from '../command';
import { jsonLine } from '../json';
import { findGroup } from '../messages';
import { flag, group as groupOption, text } from '../options';
import { openOutput } from '../output';
import { counted } from '../text';
import { captureOperand, readOption } from './shared';

export const timeline = defineCommand({
  name: 'timeline',
  summary: 'draw what happened in a group',
  description: [
    'Draws a sequence chart of a group from a capture: a lane for each member, its messages as arrows, and joins and leaves, with their reasons, as notes across the lanes. Long runs of messages from one sender are folded. The chart combines the events of all members in the capture: an event that several members saw is drawn once, in the order common to all, and after a partition each side has its own arrows and notes. A capture has all members if it was recorded on their common machine, or assembled with mergecap.',
    'The result is a self-contained SVG picture or, with --mermaid, the text of a Mermaid diagram.',
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
    const builder = new TimelineBuilder();
    let failure: unknown;
    try {
      for await (const message of messagesOf(context, file)) builder.add(message);
    } catch (error) {
      failure = error;
    }
    context.signal.throwIfAborted();
    const group = wanted && findGroup(wanted, builder.groups);
    const chart = builder.build(group);
    // Draw the readable part of a damaged capture.
    if (chart === undefined && failure !== undefined) throw failure as Error;
    if (chart === undefined) {
      const known = builder.groups.length === 0 ? '' : `; there are ${builder.groups.join(', ')}`;
      throw new CpgError('CS_ERR_NOT_EXIST', `${file}: it has no events of ${group ?? 'any group'}${known}`, {
        remedy: 'record the events of a member with cpg tap --write',
      });
    }
    if (chart.unseen!.length > 0) await context.err.line(`cpg: timeline: ${unseenText(chart.unseen!)}`);
    if (chart.omitted > 0)
      await context.err.line(`cpg: timeline: ${counted(chart.omitted, 'more step')} not drawn`);
    if (json) {
      await context.out.line(jsonLine({ type: 'timeline', ...chart }));
    } else {
      const picture = asText ? mermaid(chart) : svg(chart);
      if (output === undefined) await context.out.write(picture);
      else {
        const written = await openOutput(context, output);
        await written.write(picture);
        await written.end();
      }
    }
    if (failure !== undefined) throw failure as Error;
  },
});
