import { getPriority } from 'node:os';
import { CpgError } from '../../errors';
import { pidsOf } from '../../ring/paths';
import { CaptureWriter } from '../../tap/capture/writer';
import { connectionLabel } from '../../tap/decode/describe';
import { accepts, acceptsConnection, hasPid, type Filter } from '../../tap/decode/filter';
import type { RingName, TapConnection } from '../../tap/connections';
import type { TapFrame } from '../../tap/frames';
import { jsonLine } from '../../tap/decode/json';
import { Conversations } from '../../tap/decode/messages';
import type { TapBatch } from '../../tap/live/backlog';
import { DENIED } from '../../tap/live/discovery';
import { Tap } from '../../tap/live/tap';
import { notifyReady } from '../../native/notify';
import { dataOptions, defineCommand, type Context } from '../command';
import { OutputClosed } from '../failure';
import { TimeLimit } from '../limit';
import { filterOf, filterOptions, hexOption, messageText, missedLine, ServiceCheck } from '../messages';
import { flag, integer, text } from '../options';
import { openOutput, type Output } from '../output';
import { MAX_NICE, setNice } from '../priority';
import { counted, visible } from '../text';
import { streamCount, streamTimeout } from './shared';

/** What may wait for a slow disk, while the rings go on being read. */
const WRITE_AHEAD_BYTES = 64 * 1024 * 1024;

export const tap = defineCommand({
  name: 'tap',
  summary: 'follow live connections without disturbing them',
  description: [
    'Follows the connections of all programs on this machine to corosync, or to any other service made with libqb, by reading their rings in /dev/shm. It only ever reads: no proxy, no restart, and no program notices. It needs permission to read the rings: that is the user of the program, or root.',
    'Each message is printed with the processes at both ends; messages of CPG in full, those of other services by name. A reply says which request it answers and how much later it was seen; timestamps are when the tap saw the message, up to some milliseconds late. Messages that were overwritten before they could be read are counted and reported.',
    'It takes a quarter of one CPU at most, on average. Of a connection with more than some 30,000 messages per second it reads samples only.',
    'With --write the messages go to a pcapng file instead, which "cpg decode" and Wireshark read (see "cpg dissector"). A new file is readable by you alone. When you end it (Ctrl-C), the capture is complete.',
  ],
  options: {
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
  common: dataOptions,
  run: async (context, { json, hex, write, count, timeout, nice, history, ...values }) => {
    if (nice !== undefined) setNice(Math.max(nice, getPriority()));
    const filter = filterOf(values);
    const toFile = write !== undefined && write !== '-';
    const out = toFile ? await openOutput(context, write, WRITE_AHEAD_BYTES) : context.out;
    const sink =
      write === undefined ? new TextSink(out, { json, hex, filter }) : new CaptureSink(out, filter);
    const limit = new TimeLimit(AbortSignal.any([context.signal, out.closed]), timeout);
    const session = new TapSession(context, sink, filter, { history, count, records: write !== undefined });
    try {
      await sink.begin();
      await session.run(limit.signal);
    } finally {
      limit.dispose();
      await sink.end();
      await (toFile ? out.end().catch(() => undefined) : out.flushed());
      await session.summarize(out);
    }
    out.closed.throwIfAborted();
    if (limit.passed && count !== undefined) {
      throw new CpgError('CS_ERR_TIMEOUT', `tap: ${session.seen} of ${count} messages`, {
        remedy: 'give more time, or see whether the filters let anything through',
      });
    }
    session.checkServices();
    // A capture that the user ends is complete, unless more was asked for.
    return count === undefined || session.seen >= count ? 'complete' : undefined;
  },
});

/** Where messages go. */
interface Sink {
  begin(): Promise<void>;
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
  readonly #services: ServiceCheck;
  #missed = 0;
  /** Connections that cannot be followed, and those of them that this user may not read. */
  #refused = 0;
  #denied = 0;
  #toldDenied = false;
  #connections = 0;
  #ran = false;
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
    this.#services = new ServiceCheck(filter);
  }

  async run(signal: AbortSignal): Promise<void> {
    const accept = (connection: TapConnection): boolean => {
      this.#services.see(connection.service);
      return acceptsConnection(this.#filter, connection);
    };
    const tap = new Tap({ signal, accept });
    let ready = false;
    for await (const batch of tap.batches()) {
      await this.#batch(batch);
      // From here on nothing that begins is missed: a script may wait for this line.
      if (!ready) await this.#ready(tap.connections.length);
      ready = true;
      if (this.seen >= this.#count) return;
    }
  }

  /** What there was, when all that could be written is. */
  async summarize({ unwritten, closed }: Output): Promise<void> {
    if (!this.#ran) return;
    const broken = closed.aborted && !(closed.reason instanceof OutputClosed);
    const gaps = [
      ...(this.#missed > 0 ? [`about ${this.#missed} missed`] : []),
      ...(this.#refused > 0 ? [`${counted(this.#refused, 'connection')} not followed`] : []),
      ...(broken ? [`${unwritten} not written`] : []),
    ];
    const all = `${counted(this.seen, 'message')} of ${counted(this.#connections, 'connection')}`;
    await this.#context.err.line(`cpg: tap: ${all}, ${gaps.length === 0 ? 'none missed' : gaps.join(', ')}`);
  }

  /** Throws when a service that was asked for never appeared, and may be mistyped. */
  checkServices(): void {
    const missing = this.#services.failure('tap');
    if (missing !== undefined) throw missing;
  }

  async #ready(connections: number): Promise<void> {
    const { err } = this.#context;
    if (connections === 0 && this.#denied > 0) {
      const none = `tap: ${counted(this.#denied, 'connection')}, none of which can be followed: ${DENIED}`;
      throw new CpgError('CS_ERR_ACCESS', none, {
        remedy: 'run it as the user of these programs, or as root',
      });
    }
    this.#ran = true;
    await this.#tellDenied();
    await err.line(`cpg: tap: following ${counted(connections, 'connection')}`);
    if (this.#records) notifyReady(this.#context.env);
    const missing = this.#services.failure('tap');
    if (missing !== undefined) await err.line(`cpg: ${missing.what} yet: ${missing.remedy}`);
  }

  async #batch({ opened, closed, frames, refused, remarks, unreportedMissed }: TapBatch): Promise<void> {
    const { err } = this.#context;
    for (const connection of opened) {
      this.#connections++;
      if (err.terminal) await err.line(err.paint('dim', `-- following ${connectionLabel(connection)} --`));
    }
    for (const { directory, reason } of refused) {
      if (!this.#concerns(directory)) continue;
      this.#refused++;
      if (reason === DENIED) this.#denied++;
      else await err.line(`cpg: tap: ${visible(directory)} cannot be followed: ${visible(reason)}`);
    }
    for (const { directory, text } of remarks)
      if (this.#concerns(directory)) await err.line(`cpg: tap: ${visible(directory)}: ${visible(text)}`);
    if (this.#ran) await this.#tellDenied();
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

  /** Once: it is the same for all. */
  async #tellDenied(): Promise<void> {
    if (this.#denied === 0 || this.#toldDenied) return;
    this.#toldDenied = true;
    const which = counted(this.#denied, 'connection');
    await this.#context.err.line(`cpg: tap: ${which} cannot be followed: ${DENIED}`);
  }

  /** A directory's name begins with the two pids: whoever asked for others need not hear of it. */
  #concerns(directory: string): boolean {
    const { pids } = this.#filter;
    const { serverPid = 0, clientPid = 0 } = pidsOf(directory) ?? {};
    return pids.length === 0 || clientPid === 0 || pids.includes(serverPid) || pids.includes(clientPid);
  }
}

/** What cannot be written ends the session by `closed`, and is reported as a whole. */
async function handOver(out: Output, data: string | Uint8Array, messages = 0): Promise<void> {
  await out.write(data, messages).catch(() => undefined);
}

class TextSink implements Sink {
  readonly #out: Output;
  readonly #how: { json: boolean; hex: boolean; filter: Filter };

  constructor(out: Output, how: { json: boolean; hex: boolean; filter: Filter }) {
    this.#out = out;
    this.#how = how;
  }

  async begin(): Promise<void> {
    // Text has no head.
  }

  async write(frames: readonly TapFrame[], conversations: Conversations, room: number): Promise<number> {
    const lines: string[] = [];
    let shown = 0;
    for (const frame of frames) {
      if (shown >= room) break;
      const message = conversations.add(frame);
      if (accepts(this.#how.filter, message)) {
        lines.push(messageText(message, this.#out, this.#how));
        shown++;
      } else if (frame.missed > 0) lines.push(...this.#missed(frame));
    }
    if (lines.length > 0) await handOver(this.#out, lines.join(''), shown);
    return shown;
  }

  async end(): Promise<void> {
    // Nor an end.
  }

  /** A gap is told even if the message behind it is not wanted: what is missing might have been. */
  #missed({ missed, connection, ring }: TapFrame): string[] {
    if (!this.#how.json) return [`${missedLine(missed, this.#out)}\n`];
    return [
      `${jsonLine({ type: 'missed', messages: missed, direction: ring, connection: connection.id })}\n`,
    ];
  }
}

class CaptureSink implements Sink {
  readonly #writer = new CaptureWriter();
  /** Gaps before messages that were not wanted: the next one that is tells of them. */
  readonly #gaps = new WeakMap<TapConnection, Record<RingName, number>>();
  readonly #out: Output;
  readonly #filter: Filter;

  constructor(out: Output, filter: Filter) {
    this.#out = out;
    this.#filter = filter;
  }

  begin(): Promise<void> {
    return handOver(this.#out, this.#writer.begin());
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
    if (wanted.length > 0) await handOver(this.#out, this.#writer.frames(wanted), wanted.length);
    return wanted.length;
  }

  end(): Promise<void> {
    return handOver(this.#out, this.#writer.end());
  }

  /** What a frame means is found out only when a filter asks for it: that is most of the work. */
  #wanted(frame: TapFrame, conversations: Conversations): boolean {
    const { names, groups, nodes, rings } = this.#filter;
    if (names.length + groups.length + nodes.length > 0 || !hasPid(this.#filter, frame.connection))
      return accepts(this.#filter, conversations.add(frame));
    return rings.length === 0 || rings.includes(frame.ring);
  }
}

function split<T>(list: readonly T[], test: (item: T) => boolean): [yes: T[], no: T[]] {
  const yes: T[] = [];
  const no: T[] = [];
  for (const item of list) (test(item) ? yes : no).push(item);
  return [yes, no];
}
