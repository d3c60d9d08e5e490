import type { CpgClient } from '../../client';
import { groupText } from '../../codec/groups';
import { clearTimeout, pause, setTimeout } from '../../clock';
import { MAX_MESSAGE_BYTES } from '../../codec/limits';
import { CpgError } from '../../errors';
import { defineCommand, type Context } from '../command';
import { withClient } from '../connect';
import { eventLines } from '../event-text';
import { jsonEvent, jsonLine } from '../json';
import { lines } from '../lines';
import { flag, groupFrom } from '../options';
import { counted } from '../text';
import { groupOperand, streamCount, streamTimeout } from './shared';

/** Own messages in flight: enough to keep the daemon busy, few enough to remember. */
const MAX_UNCONFIRMED = 1024;
/** Time limit of the leave when the command ends. */
const LEAVE_GRACE_MS = 1000;

export const join = defineCommand({
  name: 'join',
  summary: 'join a group: send lines, print events',
  description: [
    'Joins GROUP, sends every line of standard input to it as one message (the bytes between two newlines), and prints everything that happens in the group. At the end of the input it waits until its own messages have been delivered back, leaves the group, and ends.',
    'Without --json a line is "message NODEID:PID" and the bytes of the message, "joined NODEID:PID" or "left NODEID:PID" and the reason, or "members" and the full list. On a terminal, lines are coloured, own messages are marked, and control characters are shown as escapes.',
    'With --count or --stay it continues after the end of the input. When the time limit expires the command fails (CS_ERR_TIMEOUT) if a count or its own messages are still awaited, and succeeds otherwise.',
  ],
  operands: [groupOperand],
  options: {
    count: streamCount('deliveries, own ones included'),
    stay: flag('keep listening after the end of the input'),
    timeout: streamTimeout,
    totem: flag('also print the ring configuration (totemConfchg) on joining'),
  },
  examples: [
    { command: 'cpg join orders', meaning: 'Talk to the group from the keyboard; Ctrl-D leaves.' },
    { command: 'echo hello | cpg join orders', meaning: 'Send one message and know that it was delivered.' },
    {
      command: 'cpg join orders --stay --json </dev/null | jq -r "select(.type == \\"deliver\\").message"',
      meaning: 'Follow the group and print the messages alone.',
    },
    {
      command: 'cpg join orders --count 1 --timeout 5 </dev/null',
      meaning: 'Wait up to 5 seconds for a message.',
    },
  ],
  run: (context, { address, json, count, stay, timeout, totem }, { group: word }) => {
    const group = groupText(groupFrom(word));
    return withClient(context, { address }, async (client) => {
      const member = new Member(context, client, { json, count, stay: stay || count !== undefined });
      await member.join(group, totem, timeout);
    });
  },
});

interface MemberOptions {
  json: boolean;
  count: number | undefined;
  /** Continue after the end of the input. */
  stay: boolean;
}

/** One membership: sending and printing run side by side until one of them ends it. */
class Member {
  readonly #context: Context;
  readonly #client: CpgClient;
  readonly #options: MemberOptions;
  #over: (failure?: Error) => void = () => undefined;
  #inputEnded = false;
  #sent = 0;
  #ownPrinted = 0;
  #delivered = 0;

  constructor(context: Context, client: CpgClient, options: MemberOptions) {
    this.#context = context;
    this.#client = client;
    this.#options = options;
  }

  async join(group: string | Uint8Array, totem: boolean, timeoutMs: number | undefined): Promise<void> {
    const { signal, stdin } = this.#context;
    // The loop exists before the join, so that it misses nothing.
    const events = this.#client.events();
    const over = new Promise<void>((resolve, reject) => {
      this.#over = (failure) => (failure === undefined ? resolve() : reject(failure));
    });
    const onAbort = (): void => this.#over(signal.reason as Error);
    signal.addEventListener('abort', onAbort);
    const limit =
      timeoutMs === undefined ? undefined : setTimeout(() => this.#timeIsUp(timeoutMs), timeoutMs);
    try {
      await this.#client.join(group, { initialTotemConfchg: totem, signal });
      this.#print(events).catch(this.#over);
      this.#send().catch(this.#over);
      await over;
    } finally {
      clearTimeout(limit);
      signal.removeEventListener('abort', onAbort);
      stdin.destroy();
      // Print no later events: the output ends with the last awaited one.
      await events.return?.();
      await this.#leave();
    }
  }

  async #send(): Promise<void> {
    const unconfirmed = new Set<Promise<void>>();
    for await (const line of lines(this.#context.stdin, MAX_MESSAGE_BYTES)) {
      this.#sent++;
      const message = this.#client.mcast(line, { confirm: true });
      unconfirmed.add(message);
      message.then(
        () => unconfirmed.delete(message),
        (error: unknown) => this.#over(error as Error),
      );
      if (unconfirmed.size >= MAX_UNCONFIRMED) await Promise.race(unconfirmed);
    }
    this.#inputEnded = true;
    this.#overIfAllIsSaid();
  }

  async #print(events: ReturnType<CpgClient['events']>): Promise<void> {
    const { out } = this.#context;
    for await (const event of events) {
      const text = this.#options.json
        ? `${jsonLine(jsonEvent(event))}\n`
        : eventLines(event, this.#client, out);
      await out.write(text, event.type === 'deliver' ? 1 : 0);
      if (event.type !== 'deliver') continue;
      this.#delivered++;
      if (event.own) this.#ownPrinted++;
      if (this.#delivered === this.#options.count) {
        this.#over();
        return;
      }
      this.#overIfAllIsSaid();
    }
  }

  get #awaitsOwn(): boolean {
    return this.#ownPrinted < this.#sent;
  }

  #overIfAllIsSaid(): void {
    if (this.#inputEnded && !this.#options.stay && !this.#awaitsOwn) this.#over();
  }

  #timeIsUp(timeoutMs: number): void {
    const { count } = this.#options;
    const missing = [
      ...(count === undefined ? [] : [`${this.#delivered} of ${counted(count, 'delivery', 'deliveries')}`]),
      ...(this.#awaitsOwn ? [`${this.#ownPrinted} of ${counted(this.#sent, 'own message')}`] : []),
    ];
    if (missing.length === 0) {
      this.#over();
      return;
    }
    const what = `join: ${missing.join(' and ')} within ${timeoutMs / 1000} s`;
    this.#over(new CpgError('CS_ERR_TIMEOUT', what, { remedy: 'give more time, or check the senders' }));
  }

  /** Others shall see a leave, not a death; but the wait for it is short. */
  async #leave(): Promise<void> {
    if (this.#client.state !== 'joined') return;
    const grace = new AbortController();
    await Promise.race([
      this.#client.leave(undefined, { signal: grace.signal }).catch(() => undefined),
      pause(LEAVE_GRACE_MS, undefined, { signal: grace.signal }).catch(() => undefined),
    ]);
    grace.abort();
  }
}
