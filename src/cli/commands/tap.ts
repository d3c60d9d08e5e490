import { createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { getPriority } from 'node:os';
import { CpgError } from '../../errors';
import { CaptureWriter } from '../../tap/capture/writer';
import { connectionLabel } from '../../tap/decode/describe';
import { accepts, acceptsConnection, hasPid, type Filter } from '../../tap/decode/filter';
import type { RingName, TapConnection } from '../../tap/connections';
import type { TapFrame } from '../../tap/frames';
import { jsonLine } from '../../tap/decode/json';
import { Conversations } from '../../tap/decode/messages';
import type { TapBatch } from '../../tap/live/backlog';
import { Tap } from '../../tap/live/tap';
import { defineCommand, type Context } from '../command';
import { notifyReady } from '../../native/notify';
import { TimeLimit } from '../limit';
import { filterOf, filterOptions, hexOption, messageText, missedLine } from '../messages';
import { flag, integer, text } from '../options';
import { MAX_NICE, setNice } from '../priority';
import { visible } from '../text';
import { streamCount, streamTimeout, unusedAddress } from './shared';

/** What may wait for a slow disk, while the rings go on being read. */
const WRITE_AHEAD_BYTES = 64 * 1024 * 1024;

export const tap = defineCommand({
  name: 'tap',
  summary: 'follow live connections without disturbing them',
  description: [
    'Follows the connections of all programs on this machine to corosync, or to any other service made with libqb, by reading their rings in /dev/shm. It only ever reads: no proxy, no restart, and no program notices. It needs permission to read the rings: that is the user of the program, or root.',
    'Each message is printed with the processes at both ends; messages of CPG in full, those of other services by name. A reply says which request it answers and how much later it was seen; timestamps are when the tap saw the message, up to some milliseconds late. Messages that were overwritten before they could be read are counted and reported.',
    'It takes a quarter of one CPU at most, on average. Of a connection with more than some 30,000 messages per second it reads samples only.',
    'With --write the messages go to a pcapng file instead, which "cpg decode" and Wireshark read (see "cpg dissector").',
  ],
  options: {
    address: unusedAddress,
    ...filterOptions,
    history: flag('begin with what is still in the rings from before'),
    hex: hexOption,
    write: text('FILE', "write a pcapng capture; '-' is standard output", 'file'),
    count: streamCount('messages'),
    timeout: streamTimeout,
    nice: integer('N', `priority it gives up, 0 to ${MAX_NICE}; default 0`, { min: 0, max: MAX_NICE }),
  },
  examples: [
    { command: 'sudo cpg tap', meaning: 'Everything, as it happens.' },
    { command: 'sudo cpg tap --service cpg --message join,confchg', meaning: 'Who comes and goes.' },
    {
      command: 'sudo cpg tap --pid 4711 --history',
      meaning: 'What this program sends and gets, and what it did just before.',
    },
    { command: 'sudo cpg tap --write trace.pcapng --timeout 60', meaning: 'Record a minute.' },
    { command: 'sudo cpg tap --write - | wireshark -k -i -', meaning: 'Watch in Wireshark.' },
  ],
  run: async (context, { json, hex, write, count, timeout, nice, history, ...values }) => {
    if (nice !== undefined) setNice(Math.max(nice, getPriority()));
    const filter = filterOf(values);
    const limit = new TimeLimit(context.signal, timeout);
    const sink = await openSink(context, write, { json, hex, filter });
    try {
      const session = new TapSession(context, sink, filter, { history, count, records: write !== undefined });
      await session.run(limit.signal);
      if (limit.passed && count !== undefined) {
        throw new CpgError('CS_ERR_TIMEOUT', `tap: ${session.seen} of ${count} messages`, {
          remedy: 'give more time, or see whether the filters let anything through',
        });
      }
    } finally {
      limit.dispose();
      await sink.end();
    }
  },
});

/** Where messages go. */
interface Sink {
  /** Writes those that are wanted, at most `room`, and returns how many. */
  write(frames: readonly TapFrame[], conversations: Conversations, room: number): Promise<number>;
  end(): Promise<void>;
}

class TapSession {
  readonly #context: Context;
  readonly #sink: Sink;
  readonly #filter: Filter;
  readonly #history: boolean;
  readonly #count: number;
  /** With --write it may run as a service. */
  readonly #records: boolean;
  readonly #conversations = new Conversations();
  #missed = 0;
  #connections = 0;
  seen = 0;

  constructor(
    context: Context,
    sink: Sink,
    filter: Filter,
    { history, count, records }: { history: boolean; count: number | undefined; records: boolean },
  ) {
    this.#context = context;
    this.#sink = sink;
    this.#filter = filter;
    this.#history = history;
    this.#count = count ?? Infinity;
    this.#records = records;
  }

  async run(signal: AbortSignal): Promise<void> {
    const tap = new Tap({ signal, accept: (connection) => acceptsConnection(this.#filter, connection) });
    try {
      let ready = false;
      for await (const batch of tap.batches()) {
        await this.#batch(batch);
        // From here on nothing that begins is missed: a script may wait for this line.
        if (!ready)
          await this.#context.err.line(
            `cpg: tap: following ${counted(tap.connections.length, 'connection')}`,
          );
        if (!ready && this.#records) notifyReady(this.#context.env);
        ready = true;
        if (this.seen >= this.#count) return;
      }
    } finally {
      const { err } = this.#context;
      const missed = this.#missed === 0 ? 'none missed' : `about ${this.#missed} missed`;
      const text = `cpg: tap: ${counted(this.seen, 'message')} of ${counted(this.#connections, 'connection')}, ${missed}`;
      await err.line(text).catch(() => undefined);
    }
  }

  async #batch({ opened, closed, frames, refused, unreportedMissed }: TapBatch): Promise<void> {
    const { err } = this.#context;
    for (const connection of opened) {
      this.#connections++;
      if (err.terminal) await err.line(err.paint('dim', `-- following ${connectionLabel(connection)} --`));
    }
    for (const { directory, reason } of refused) {
      if (!this.#concerns(directory)) continue;
      await err.line(`cpg: tap: ${visible(directory)} cannot be followed: ${visible(reason)}`);
    }
    const [before, wanted] = split(frames, ({ old }) => old && !this.#history);
    // What is not shown still tells who is in which group.
    for (const frame of before) this.#conversations.pass(frame);
    for (const { missed } of wanted) this.#missed += missed;
    this.#missed += unreportedMissed;
    this.seen += await this.#sink.write(wanted, this.#conversations, this.#count - this.seen);
    for (const connection of closed) {
      this.#conversations.end(connection);
      if (err.terminal) await err.line(err.paint('dim', `-- ended: ${connectionLabel(connection)} --`));
    }
  }

  /** A directory's name begins with the two pids: whoever asked for others need not hear of it. */
  #concerns(directory: string): boolean {
    const { pids } = this.#filter;
    const [, server, client] = /^qb-(\d+)-(\d+)-/.exec(directory) ?? [];
    return (
      pids.length === 0 || client === '0' || pids.includes(Number(server)) || pids.includes(Number(client))
    );
  }
}

async function openSink(
  context: Context,
  file: string | undefined,
  how: { json: boolean; hex: boolean; filter: Filter },
): Promise<Sink> {
  if (file === undefined) return new TextSink(context, how);
  if (file === '-') return CaptureSink.begin((bytes) => context.out.write(bytes), how.filter);
  const stream = createWriteStream(file, { highWaterMark: WRITE_AHEAD_BYTES });
  await once(stream, 'open');
  const write = async (bytes: Buffer): Promise<void> => {
    if (!stream.write(bytes)) await once(stream, 'drain');
  };
  return CaptureSink.begin(write, how.filter, async () => {
    stream.end();
    await once(stream, 'close');
  });
}

class TextSink implements Sink {
  readonly #context: Context;
  readonly #how: { json: boolean; hex: boolean; filter: Filter };

  constructor(context: Context, how: { json: boolean; hex: boolean; filter: Filter }) {
    this.#context = context;
    this.#how = how;
  }

  async write(frames: readonly TapFrame[], conversations: Conversations, room: number): Promise<number> {
    const { out } = this.#context;
    const lines: string[] = [];
    let shown = 0;
    for (const frame of frames) {
      if (shown >= room) break;
      const message = conversations.add(frame);
      if (accepts(this.#how.filter, message)) {
        lines.push(messageText(message, out, this.#how));
        shown++;
      } else if (frame.missed > 0) lines.push(...this.#missed(frame));
    }
    if (lines.length > 0) await out.write(lines.join(''));
    return shown;
  }

  async end(): Promise<void> {
    // The output belongs to the process.
  }

  /** A gap is told even if the message behind it is not wanted: what is missing might have been. */
  #missed({ missed, connection, ring }: TapFrame): string[] {
    if (!this.#how.json) return [`${missedLine(missed, this.#context.out)}\n`];
    return [
      `${jsonLine({ type: 'missed', messages: missed, direction: ring, connection: connection.id })}\n`,
    ];
  }
}

class CaptureSink implements Sink {
  readonly #writer = new CaptureWriter();
  /** Gaps before messages that were not wanted: the next one that is tells of them. */
  readonly #gaps = new WeakMap<TapConnection, Record<RingName, number>>();
  readonly #put: (bytes: Buffer) => Promise<void>;
  readonly #close: () => Promise<void>;
  readonly #filter: Filter;

  private constructor(put: (bytes: Buffer) => Promise<void>, filter: Filter, close: () => Promise<void>) {
    this.#put = put;
    this.#filter = filter;
    this.#close = close;
  }

  static async begin(
    put: (bytes: Buffer) => Promise<void>,
    filter: Filter,
    close = (): Promise<void> => Promise.resolve(),
  ): Promise<CaptureSink> {
    const sink = new CaptureSink(put, filter, close);
    await put(sink.#writer.begin());
    return sink;
  }

  async write(frames: readonly TapFrame[], conversations: Conversations, room: number): Promise<number> {
    const wanted: TapFrame[] = [];
    for (const frame of frames) {
      if (wanted.length >= room) break;
      const gaps = this.#gaps.get(frame.connection) ?? { request: 0, response: 0, event: 0 };
      const missed = gaps[frame.ring] + frame.missed;
      const isWanted = this.#wanted(frame, conversations);
      if (isWanted) wanted.push(missed === frame.missed ? frame : { ...frame, missed });
      if (missed > 0) this.#gaps.set(frame.connection, { ...gaps, [frame.ring]: isWanted ? 0 : missed });
    }
    if (wanted.length > 0) await this.#put(this.#writer.frames(wanted));
    return wanted.length;
  }

  async end(): Promise<void> {
    // Nobody reads a closed pipe, and that is no failure.
    await this.#put(this.#writer.end()).catch(() => undefined);
    await this.#close();
  }

  /** What a frame means is found out only when a filter asks for it: that is most of the work. */
  #wanted(frame: TapFrame, conversations: Conversations): boolean {
    const { names, groups, nodes, rings } = this.#filter;
    if (names.length + groups.length + nodes.length > 0 || !hasPid(this.#filter, frame.connection))
      return accepts(this.#filter, conversations.add(frame));
    return rings.length === 0 || rings.includes(frame.ring);
  }
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

function split<T>(list: readonly T[], test: (item: T) => boolean): [yes: T[], no: T[]] {
  const yes: T[] = [];
  const no: T[] = [];
  for (const item of list) (test(item) ? yes : no).push(item);
  return [yes, no];
}
