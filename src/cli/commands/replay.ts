import { connect, type CpgClient } from '../../client';
import { groupText, meansGroup } from '../../codec/groups';
import { monotonicMs, pause } from '../../clock';
import { CpgError } from '../../errors';
import { ReplayPlan, type ReplayMessage } from '../../tap/decode/replay';
import { messagesOf } from '../capture';
import { defineCommand, type Context } from '../command';
import { UsageError } from '../failure';
import { jsonGroup, jsonLine } from '../json';
import { TimeLimit } from '../limit';
import { decimal, flag, group as groupOption, groups as groupsOption } from '../options';
import { counted, groupLabel } from '../text';
import { captureOperand, readOption, streamCount, streamTimeout } from './shared';

/** Own messages in flight. */
const MAX_UNCONFIRMED = 1024;
const NS_PER_MS = 1e6;

export const replay = defineCommand({
  name: 'replay',
  summary: 'send the messages of a capture again',
  description: [
    'Sends the messages that programs sent in a capture again, with the same pauses, to the same groups or to one of your choice. It joins each group, sends, waits until every message has been delivered, and leaves. A capture without requests is replayed from its deliveries.',
  ],
  operands: [captureOperand],
  options: {
    read: readOption,
    group: groupOption('send everything to this group'),
    only: groupsOption('only messages to this group; NULs at the end of the name do not count'),
    speed: decimal('X', 'X times as fast as recorded; default 1'),
    rate: decimal('N', 'N messages per second, regardless of the recorded pauses'),
    fast: flag('as fast as the daemon takes them'),
    count: streamCount('messages'),
    timeout: streamTimeout,
  },
  examples: [
    {
      command: 'cpg replay trace.pcapng --group test',
      meaning: 'The recorded messages again, to the group "test".',
    },
    { command: 'cpg replay trace.pcapng --speed 10', meaning: 'To the recorded groups, ten times as fast.' },
    {
      command: 'cpg replay trace.pcapng --group test --rate 500',
      meaning: 'A steady 500 messages per second.',
    },
  ],
  run: async (context, { address, json, group, only, speed, rate, fast, count, timeout }, { file }) => {
    if ([speed, rate, fast ? true : undefined].filter((way) => way !== undefined).length > 1) {
      throw new UsageError('--speed, --rate and --fast exclude each other');
    }
    const plan = await readPlan(context, file);
    const recorded = sentTo(only, plan.messages);
    const leftOut = leftOutOf(plan, only.length > 0);
    for (const text of leftOut) await context.err.line(`cpg: replay: ${text}`);
    const messages = withTarget(recorded.slice(0, count), group && groupText(group));
    const due = schedule(messages, { speed, rate, fast });
    const limit = new TimeLimit(context.signal, timeout);
    const sender = new Sender({ ...context, signal: limit.signal }, address);
    const started = monotonicMs();
    let sent = 0;
    try {
      for (const [index, message] of messages.entries()) {
        const waitMs = started + due(index) - monotonicMs();
        if (waitMs > 0) await pause(waitMs, undefined, { signal: limit.signal });
        await sender.send(message);
        sent++;
      }
      await sender.delivered();
    } catch (error) {
      throw limit.expired
        ? limit.failure(`replay: ${sent} of ${counted(messages.length, 'message')} sent`)
        : error;
    } finally {
      limit.dispose();
      await sender.close();
    }
    const seconds = (monotonicMs() - started) / 1000;
    if (json)
      await context.out.line(
        jsonLine({
          type: 'replay',
          messages: messages.length,
          seconds,
          groups: sender.groups.map(jsonGroup),
        }),
      );
    else
      await context.out.line(
        `${counted(messages.length, 'message')} to ${sender.groups.map(groupLabel).join(', ')} in ${seconds.toFixed(1)} s`,
      );
    if (leftOut.length > 0) {
      throw new CpgError('CS_ERR_MESSAGE_ERROR', 'replay: not everything that was sent could be sent again', {
        remedy: 'record it from before the first join to the end',
      });
    }
  },
});

/** The messages that cannot be sent again. */
function leftOutOf({ messages, incomplete, missed }: ReplayPlan, selected: boolean): string[] {
  const ofNoGroup = !selected ? 0 : messages.filter(({ group }) => group === undefined).length;
  return [
    ...(incomplete === 0
      ? []
      : [`${counted(incomplete, 'message')} left out: not all of its fragments are there`]),
    ...(ofNoGroup === 0
      ? []
      : [`${counted(ofNoGroup, 'message')} left out: the capture does not tell the group`]),
    ...(missed === 0 ? [] : [`about ${counted(missed, 'frame')} missed when this was recorded`]),
  ];
}

type Targeted = ReplayMessage & { group: string | Uint8Array };

async function readPlan(context: Context, file: string): Promise<ReplayPlan> {
  const plan = new ReplayPlan();
  for await (const message of messagesOf(context, file)) plan.add(message);
  return plan;
}

/** The messages to one of these groups; all messages if no group is given. */
function sentTo(groups: readonly Uint8Array[], messages: readonly ReplayMessage[]): readonly ReplayMessage[] {
  if (groups.length === 0) return messages;
  const sent = messages.filter(
    ({ group }) => group !== undefined && groups.some((wanted) => meansGroup(wanted, group)),
  );
  if (sent.length > 0 || messages.length === 0) return sent;
  const known = new Set(messages.flatMap(({ group }) => (group === undefined ? [] : [groupLabel(group)])));
  throw new CpgError(
    'CS_ERR_NOT_EXIST',
    `replay: no message was sent to ${groups.map(groupLabel).join(', ')}`,
    {
      remedy:
        known.size === 0
          ? 'the capture does not tell any group'
          : `there are messages to ${[...known].join(', ')}`,
    },
  );
}

function withTarget(messages: readonly ReplayMessage[], group: string | Uint8Array | undefined): Targeted[] {
  if (messages.length === 0) {
    throw new CpgError('CS_ERR_NOT_EXIST', 'replay: there are no messages in this capture', {
      remedy: 'record some with cpg tap --write, without filters that leave out mcast and deliver',
    });
  }
  return messages.map((message) => {
    const target = group ?? message.group;
    if (target === undefined) {
      throw new CpgError(
        'CS_ERR_INVALID_PARAM',
        'replay: the capture does not tell which group a message was for',
        {
          remedy: 'give --group',
        },
      );
    }
    return { ...message, group: target };
  });
}

/** The due time of a message, in milliseconds from the beginning. */
function schedule(
  messages: readonly ReplayMessage[],
  { speed = 1, rate, fast }: { speed: number | undefined; rate: number | undefined; fast: boolean },
): (index: number) => number {
  if (fast) return () => 0;
  if (rate !== undefined) return (index) => (index * 1000) / rate;
  const first = messages[0]!.timeNs;
  return (index) => Number(messages[index]!.timeNs - first) / NS_PER_MS / speed;
}

/** One client per group: CPG allows a handle only one group. */
class Sender {
  readonly #context: Context;
  readonly #address: string | undefined;
  readonly #clients = new Map<string, { client: CpgClient; group: string | Uint8Array }>();
  readonly #unconfirmed = new Set<Promise<void>>();
  #failure: unknown;

  constructor(context: Context, address: string | undefined) {
    this.#context = context;
    this.#address = address;
  }

  get groups(): (string | Uint8Array)[] {
    return [...this.#clients.values()].map(({ group }) => group);
  }

  /** Resolves when there is room for more. */
  async send({ group, message }: Targeted): Promise<void> {
    const client = await this.#member(group);
    const sending = client.mcast(message, { confirm: true, signal: this.#context.signal });
    this.#unconfirmed.add(sending);
    sending.then(
      () => this.#unconfirmed.delete(sending),
      (error: unknown) => {
        this.#failure ??= error;
        this.#unconfirmed.delete(sending);
      },
    );
    if (this.#unconfirmed.size >= MAX_UNCONFIRMED) await Promise.race([...this.#unconfirmed].map(quietly));
    this.#check();
  }

  async delivered(): Promise<void> {
    await Promise.all([...this.#unconfirmed].map(quietly));
    this.#check();
  }

  async close(): Promise<void> {
    for (const { client } of this.#clients.values()) {
      if (client.state === 'joined') await client.leave().catch(() => undefined);
      await client.close();
    }
  }

  #check(): void {
    this.#context.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure as Error;
  }

  async #member(group: string | Uint8Array): Promise<CpgClient> {
    const key = groupLabel(group);
    const known = this.#clients.get(key);
    if (known !== undefined) return known.client;
    const { signal } = this.#context;
    const client = await connect({
      signal,
      ...(this.#address === undefined ? {} : { address: this.#address }),
    });
    this.#clients.set(key, { client, group });
    await client.join(group, { signal });
    return client;
  }
}

function quietly(sending: Promise<void>): Promise<void> {
  return sending.catch(() => undefined);
}
