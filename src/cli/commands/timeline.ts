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
    'Makes a sequence chart of a group from a capture: a lane for each member, its messages as arrows, and who joined and left, and why, as notes across the lanes. Long rows of messages of one sender are folded. All members whose events are in the capture tell it together: what several saw is drawn once, in the order in which all of them saw it, and after a partition each side has arrows and notes of its own. A capture has all members when it was recorded where they all run, or put together by mergecap.',
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
    // What could be read of a damaged capture is drawn.
    if (chart === undefined && failure !== undefined) throw failure as Error;
    if (chart === undefined) {
      const known = builder.groups.length === 0 ? '' : `; there are ${builder.groups.join(', ')}`;
      throw new CpgError('CS_ERR_NOT_EXIST', `${file}: no events of ${group ?? 'any group'} in it${known}`, {
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
