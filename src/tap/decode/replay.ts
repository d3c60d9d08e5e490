import { check } from '../../arguments';
import { groupText } from '../../codec/groups';
import { FragmentType } from '../../codec/requests';
import { MAX_MESSAGE_BYTES } from '../../codec/limits';
import { CpgError } from '../../errors';
import type { TapConnection } from '../connections';
import { MESSAGE, type TapMessage } from './messages';

/** Memory limit of a plan. */
export const MAX_REPLAY_BYTES = 512 * 1024 * 1024;

/** A message that can be sent again. */
export interface ReplayMessage {
  /** Time of capture, in nanoseconds since 1970. */
  timeNs: bigint;
  /** Undefined if the capture began after the join. */
  group: string | Uint8Array | undefined;
  /** Its bytes, reassembled from fragments. */
  message: Uint8Array;
}

/** A partial message. */
interface Fragments {
  /** Undefined if it cannot become complete. */
  parts: Uint8Array[] | undefined;
  length: number;
}

/**
 * Collects sent messages. A capture without requests (only events, say) is replayed from its deliveries, once per group
 * although every member saw them.
 */
export class ReplayPlan {
  readonly #sent: ReplayMessage[] = [];
  readonly #delivered = new Map<TapConnection, ReplayMessage[]>();
  readonly #fragments = new Map<TapConnection, Map<string, Fragments>>();
  #bytes = 0;
  #missed = { request: 0, event: 0 };
  #incomplete = { request: 0, event: 0 };

  /** Adds a message; ignores all but sent and delivered ones. Throws CS_ERR_TOO_BIG. */
  add(given: TapMessage): void {
    const { frame, content, group } = check('ReplayPlan.add', 'message', given, MESSAGE);
    const { connection, ring, timeNs, missed } = frame;
    if (ring !== 'response') this.#missed[ring] += missed;
    if (content === undefined) return;
    if (content.type === 'mcast' && 'message' in content) {
      this.#keep(this.#sent, { timeNs, group, message: content.message });
    } else if (content.type === 'partialMcast' && 'fragment' in content) {
      const message = this.#whole(connection, 'request', 'sent', content);
      if (message !== undefined) this.#keep(this.#sent, { timeNs, group, message });
    } else if (content.type === 'deliver') {
      this.#keep(this.#deliveredTo(connection), { timeNs, group, message: content.message });
    } else if (content.type === 'partialDeliver') {
      const message = this.#whole(connection, 'event', `${content.nodeId}:${content.pid}`, content);
      if (message !== undefined) {
        this.#keep(this.#deliveredTo(connection), { timeNs, group: groupText(content.group), message });
      }
    }
  }

  /** In the order of sending, or of delivery. */
  get messages(): ReplayMessage[] {
    return this.#sent.length > 0 ? this.#sent : this.#mostDelivered();
  }

  /** Number of messages left out because fragments are missing. */
  get incomplete(): number {
    let begun = 0;
    for (const unfinished of this.#fragments.values())
      for (const sender of unfinished.keys())
        if ((sender === 'sent') === (this.#source === 'request')) begun++;
    return this.#incomplete[this.#source] + begun;
  }

  /** Estimated number of frames missed in the recording, which might have been messages. */
  get missed(): number {
    return this.#missed[this.#source];
  }

  get #source(): 'request' | 'event' {
    return this.#sent.length > 0 ? 'request' : 'event';
  }

  #deliveredTo(connection: TapConnection): ReplayMessage[] {
    const list = this.#delivered.get(connection) ?? [];
    this.#delivered.set(connection, list);
    return list;
  }

  /** Per group, the deliveries of the connection that saw most of them. */
  #mostDelivered(): ReplayMessage[] {
    const byGroup = new Map<string, ReplayMessage[]>();
    for (const list of this.#delivered.values()) {
      const key = JSON.stringify(list[0]?.group);
      if (list.length > (byGroup.get(key)?.length ?? 0)) byGroup.set(key, list);
    }
    return [...byGroup.values()]
      .flat()
      .sort((a, b) => (a.timeNs < b.timeNs ? -1 : a.timeNs > b.timeNs ? 1 : 0));
  }

  #keep(list: ReplayMessage[], message: ReplayMessage): void {
    this.#charge(message.message.length);
    list.push(message);
  }

  #charge(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MAX_REPLAY_BYTES) {
      throw new CpgError('CS_ERR_TOO_BIG', `a capture with more than ${MAX_REPLAY_BYTES} bytes of messages`, {
        remedy: 'cut it into pieces with editcap',
      });
    }
  }

  /** Returns the message after its last fragment; drops an incomplete one, as members do. */
  #whole(
    connection: TapConnection,
    ring: 'request' | 'event',
    sender: string,
    part: { fragmentType: number; messageLength: number; fragment: Uint8Array },
  ): Uint8Array | undefined {
    const unfinished = this.#fragments.get(connection) ?? new Map<string, Fragments>();
    this.#fragments.set(connection, unfinished);
    const first = part.fragmentType === FragmentType.FIRST;
    if (first && unfinished.has(sender)) this.#incomplete[ring]++;
    // Remember a message without its beginning, too, so that it is counted once.
    if (first || !unfinished.has(sender))
      unfinished.set(sender, { parts: first ? [] : undefined, length: 0 });
    const entry = unfinished.get(sender)!;
    entry.length += part.fragment.length;
    if (entry.length > MAX_MESSAGE_BYTES) entry.parts = undefined;
    entry.parts?.push(part.fragment);
    if (part.fragmentType !== FragmentType.LAST) return undefined;
    unfinished.delete(sender);
    if (entry.parts !== undefined && entry.length === part.messageLength) return Buffer.concat(entry.parts);
    this.#incomplete[ring]++;
    return undefined;
  }
}
