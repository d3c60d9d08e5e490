/** Shared by `tap` and `decode`: the filters, and the printing of a message. */
import { nearest } from '../arguments';
import { meansGroup, parseGroup } from '../codec/groups';
import { CpgError } from '../errors';
import { describeMessage, jsonOf } from '../tap/decode/describe';
import type { Filter } from '../tap/decode/filter';
import { hexLines } from '../tap/decode/hex';
import { jsonLine } from '../tap/decode/json';
import type { TapMessage } from '../tap/decode/messages';
import { isMessageName, MESSAGE_NAMES, SERVICE_NAMES } from '../tap/decode/services';
import { UsageError } from './failure';
import { didYouMean, flag, groups, integers, several, someOf, type Values } from './options';
import type { Colour, Output } from './output';
import { counted, groupLabel } from './text';

export const filterOptions = {
  pid: integers('PID', 'only this process, at either end; 0 where the daemon sees none'),
  service: several('NAME', 'only this service: cpg, cmap, quorum, ...', SERVICE_NAMES),
  direction: someOf('WHICH', ['request', 'response', 'event'] as const, 'only requests, responses or events'),
  message: several('NAME', 'only messages with this name: mcast, deliver, confchg, join, ...', [
    'mcast',
    'deliver',
    'confchg',
    'join',
    'leave',
    'totemConfchg',
  ]),
  group: groups('only messages about this group; NULs at the end of the name do not count'),
  node: integers('NODEID', 'only messages about this node'),
};

/** The known name that the given one means; the given one if there is none. */
export function findGroup(wanted: Uint8Array, labels: readonly string[]): string {
  const label = groupLabel(wanted);
  if (labels.includes(label)) return label;
  return labels.find((known) => meansGroup(wanted, parseGroup(known))) ?? label;
}

/** Requested services whose names may be mistyped. Any libqb service may exist, so the traffic shows which do. */
export class ServiceCheck {
  readonly #wanted: readonly string[];
  readonly #seen = new Set<string>();

  constructor({ services }: Filter) {
    this.#wanted = services.filter((name) => !SERVICE_NAMES.includes(name));
  }

  see(service: string): void {
    if (this.#wanted.length > 0) this.#seen.add(service);
  }

  /** The error if one of them never appeared. */
  failure(command: string): CpgError | undefined {
    const missing = this.#wanted.find((name) => !this.#seen.has(name));
    if (missing === undefined) return undefined;
    const near = nearest(missing, [...SERVICE_NAMES, ...this.#seen]);
    const seen =
      this.#seen.size === 0 ? 'there is none of any service' : `there are ${[...this.#seen].join(', ')}`;
    return new CpgError('CS_ERR_NOT_EXIST', `${command}: no connection of a service '${missing}'`, {
      remedy: near === undefined ? seen : `did you mean '${near}'? ${seen}`,
    });
  }
}

export const hexOption = flag('also show the bytes, field by field');

/** Throws UsageError for a name that no service uses: it would never match. */
export function filterOf(values: Values<typeof filterOptions>): Filter {
  const wrong = values.message.find((name) => !isMessageName(name));
  if (wrong !== undefined) {
    const question = didYouMean(nearest(wrong, MESSAGE_NAMES));
    throw new UsageError(`option --message: no message is called '${wrong}'${question}`);
  }
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
  return out.paint(
    'red',
    `-- about ${counted(missed, 'message')} of this ring ${missed === 1 ? 'was' : 'were'} missed here --`,
  );
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
