/** What `tap` and `decode` have in common: the filters, and how a message is printed. */
import { describeMessage, jsonOf } from '../tap/decode/describe';
import type { Filter } from '../tap/decode/filter';
import { hexLines } from '../tap/decode/hex';
import { jsonLine } from '../tap/decode/json';
import type { TapMessage } from '../tap/decode/messages';
import { isMessageName, SERVICE_NAMES } from '../tap/decode/services';
import { UsageError } from './failure';
import { flag, integers, several, someOf, type Values } from './options';
import type { Colour, Output } from './output';
import { visible } from './text';

export const filterOptions = {
  pid: integers('PID', 'only this process, at either end; 0 where the daemon sees none'),
  service: several('NAME', 'only this service: cpg, cmap, quorum, ...', SERVICE_NAMES),
  direction: someOf('WHICH', ['request', 'response', 'event'] as const, 'only requests, responses or events'),
  message: several('NAME', 'only messages of this name: mcast, deliver, confchg, join, ...', [
    'mcast',
    'deliver',
    'confchg',
    'join',
    'leave',
    'totemConfchg',
  ]),
  group: several('GROUP', 'only what is about this group'),
  node: integers('NODEID', 'only what is about this node'),
};

export const hexOption = flag('show the bytes as well, each field marked');

/** Throws UsageError for a message that no service has: nothing would ever be shown. */
export function filterOf(values: Values<typeof filterOptions>): Filter {
  const wrong = values.message.find((name) => !isMessageName(name));
  if (wrong !== undefined) throw new UsageError(`option --message: no message is called '${visible(wrong)}'`);
  return {
    pids: values.pid,
    services: values.service,
    rings: values.direction,
    names: values.message,
    groups: values.group,
    nodes: values.node,
  };
}

const COLOURS: Record<TapMessage['frame']['ring'], Colour> = {
  request: 'green',
  response: 'yellow',
  event: 'cyan',
};

export function missedLine(missed: number, out: Output): string {
  return out.paint('red', `-- about ${missed} messages of this ring were missed here --`);
}

/** One or more lines, each with its newline. */
export function messageText(
  message: TapMessage,
  out: Output,
  { json, hex }: { json: boolean; hex: boolean },
): string {
  const { frame, number } = message;
  if (json) {
    const bytesHex = hex ? { hex: Buffer.from(frame.bytes).toString('hex') } : {};
    return `${jsonLine({ ...jsonOf(message), ...bytesHex })}\n`;
  }
  const { time, ends, what } = describeMessage(message);
  const colour = message.problem === undefined ? COLOURS[frame.ring] : 'red';
  const lines = [
    ...(frame.missed > 0 ? [missedLine(frame.missed, out)] : []),
    `${out.paint('dim', `#${number} ${time}`)} ${ends} ${out.paint(colour, what)}`,
    ...(hex ? hexLines(message) : []),
  ];
  return `${lines.join('\n')}\n`;
}
