/** The messages of a capture that can be sent again. */
import { check } from '../../arguments';
import { groupText } from '../../codec/groups';
import { FragmentType } from '../../codec/requests';
import { MAX_MESSAGE_BYTES } from '../../codec/limits';
import { CpgError } from '../../errors';
import type { TapConnection } from '../connections';
import { MESSAGE, type TapMessage } from './messages';

/** What a plan may keep in memory. */
export const MAX_REPLAY_BYTES = 512 * 1024 * 1024;

/** A message that can be sent again. */
export interface ReplayMessage {
  /** When it was seen, in nanoseconds since 1970. */
  timeNs: bigint;
  /** Undefined when the capture does not tell: the tap came after the join. */
  group: string | Uint8Array | undefined;
  /** Its bytes, put together where it went in fragments. */
  message: Uint8Array;
}

/** A message that came in part. */
interface Fragments {
  parts: Uint8Array[];
  length: number;
}

/**
 * Collects what was sent. A capture without requests (of events alone, say) is replayed from what was
 * delivered, once for each group although every member saw it.
 */
export class ReplayPlan {
  readonly #sent: ReplayMessage[] = [];
  readonly #delivered = new Map<TapConnection, ReplayMessage[]>();
  readonly #fragments = new Map<TapConnection, Map<string, Fragments>>();
  #bytes = 0;

  /** Takes a message in; messages that were not sent or delivered are passed over. Throws CS_ERR_TOO_BIG. */
  add(given: TapMessage): void {
    const { frame, content, group } = check('ReplayPlan.add', 'message', given, MESSAGE);
    if (content === undefined) return;
    const { connection, timeNs } = frame;
    if (content.type === 'mcast' && 'message' in content) {
      this.#keep(this.#sent, { timeNs, group, message: content.message });
    } else if (content.type === 'partialMcast' && 'fragment' in content) {
      const message = this.#whole(connection, 'sent', content);
      if (message !== undefined) this.#keep(this.#sent, { timeNs, group, message });
    } else if (content.type === 'deliver') {
      this.#keep(this.#deliveredTo(connection), { timeNs, group, message: content.message });
    } else if (content.type === 'partialDeliver') {
      const message = this.#whole(connection, `${content.nodeId}:${content.pid}`, content);
      if (message !== undefined) {
        this.#keep(this.#deliveredTo(connection), { timeNs, group: groupText(content.group), message });
      }
    }
  }

  /** In the order of sending, or of delivery. */
  get messages(): ReplayMessage[] {
    return this.#sent.length > 0 ? this.#sent : this.#mostDelivered();
  }

  #deliveredTo(connection: TapConnection): ReplayMessage[] {
    const list = this.#delivered.get(connection) ?? [];
    this.#delivered.set(connection, list);
    return list;
  }

  /** For each group, the deliveries of the connection that saw most of them. */
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

  /** The message when this was its last fragment; one that is not complete is dropped, as members do. */
  #whole(
    connection: TapConnection,
    sender: string,
    part: { fragmentType: number; messageLength: number; fragment: Uint8Array },
  ): Uint8Array | undefined {
    const unfinished = this.#fragments.get(connection) ?? new Map<string, Fragments>();
    this.#fragments.set(connection, unfinished);
    if (part.fragmentType === FragmentType.FIRST) unfinished.set(sender, { parts: [], length: 0 });
    const entry = unfinished.get(sender);
    if (entry === undefined) return undefined;
    entry.parts.push(part.fragment);
    entry.length += part.fragment.length;
    if (entry.length > MAX_MESSAGE_BYTES) unfinished.delete(sender);
    if (part.fragmentType !== FragmentType.LAST) return undefined;
    unfinished.delete(sender);
    return entry.length === part.messageLength ? Buffer.concat(entry.parts) : undefined;
  }
}
