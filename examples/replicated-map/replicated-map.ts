/**
 * A map that is equal on all members of a group.
 *
 * Changes are multicast and applied when they come back. All members apply the same changes in the same order, so all
 * have the same map. Two situations need care.
 *
 * A new member needs the current map, and after a partition has healed there may be two maps. After each
 * configuration change (confchg) the members therefore agree on one map, in three steps:
 *
 *     mark     the first member asks what the others have
 *     have     every member answers with the epoch of its map, or that it has none
 *     state    when all have answered, the first one with the highest epoch sends its map; all members adopt it
 *
 *     order:   confchg   mark   have   have   set a   have   state{}   set b
 *     map:     the old one, it does not change        ...    {} + a    a b
 *
 * Changes that arrive before the state wait for it. Members ignore answers to the mark of an earlier membership,
 * because these may be out of date.
 *
 * In a partition only one side may continue: the one with more than half of all possible members. Each agreement of
 * such a side begins a new epoch. Any two of these sides have a member in common, so the highest epoch among them is
 * that of the last side, and its map has all changes that were ever accepted. A member that restarts has lost its
 * map. The guarantee therefore holds as long as more than half of the members never lose their maps at the same time.
 */
import { randomUUID } from 'node:crypto';
import type { ConfchgEvent, CpgAddress, CpgClient, DeliverEvent } from 'corosync-cpg';

type Entries = [key: string, value: unknown][];

type Change =
  { type: 'set'; id: string; key: string; value: unknown } | { type: 'delete'; id: string; key: string };

type Packet =
  | Change
  | { type: 'mark'; id: string }
  | { type: 'have'; mark: string; epoch: number }
  | { type: 'state'; mark: string; epoch: number; entries: Entries };

/** The epoch of a member without a map; it sorts before all others. */
const NONE = -1;

export interface ReplicatedMapOptions {
  /** The number of possible members. Changes need more than half of them. */
  size: number;
}

export class ReplicatedMap {
  readonly #client: CpgClient;
  readonly #size: number;
  #entries = new Map<string, unknown>();
  #epoch = NONE;
  #present: string[] = [];
  #quorate = false;
  /** The present members have agreed on a map. */
  #ready = false;
  /** Marks since the last membership change, each with the epochs that members reported. */
  readonly #marks = new Map<string, Map<string, number>>();
  /** Changes that wait for the agreement. */
  #waitingChanges: Change[] = [];
  /** Our own changes in flight. */
  readonly #pending = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  readonly #waiting = new Set<() => void>();

  private constructor(client: CpgClient, { size }: ReplicatedMapOptions) {
    this.#client = client;
    this.#size = size;
    client.on('confchg', (event) => this.#onConfchg(event));
    client.on('deliver', (event) => this.#onDeliver(event));
    client.on('close', () => this.#onClose());
  }

  /** Our address; the join may still change the pid. */
  get #me(): string {
    return address(this.#client);
  }

  /** Joins the group on a client that has not joined yet; resolves when the map is ready. */
  static async join(client: CpgClient, group: string, options: ReplicatedMapOptions): Promise<ReplicatedMap> {
    const map = new ReplicatedMap(client, options);
    await client.join(group);
    await map.until(({ ready }) => ready || client.state === 'closed');
    if (!map.ready) throw new Error('the connection was lost before the map arrived');
    return map;
  }

  /** True when the map is that of all members; false for a moment after each membership change. */
  get ready(): boolean {
    return this.#ready;
  }

  /** False on the smaller side of a partition: the map may be out of date, and cannot be changed. */
  get quorate(): boolean {
    return this.#quorate;
  }

  get entries(): Record<string, unknown> {
    return Object.fromEntries([...this.#entries].sort(([one], [other]) => (one < other ? -1 : 1)));
  }

  get(key: string): unknown {
    return this.#entries.get(key);
  }

  /**
   * Resolves when all members on this side have the change, or will have it. Rejects without a majority of members,
   * and when the members change again before they have agreed.
   */
  set(key: string, value: unknown): Promise<void> {
    return this.#change({ type: 'set', id: randomUUID(), key, value });
  }

  delete(key: string): Promise<void> {
    return this.#change({ type: 'delete', id: randomUUID(), key });
  }

  /** Resolves when the condition holds. The map checks it after every change. */
  async until(condition: (map: this) => boolean): Promise<void> {
    while (!condition(this)) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async #change(change: Change): Promise<void> {
    await this.until(({ ready }) => ready || this.#client.state === 'closed');
    if (!this.#quorate) throw new Error('there is no majority to agree');
    await new Promise<void>((resolve, reject) => {
      this.#pending.set(change.id, { resolve, reject });
      this.#send(change, reject);
    });
  }

  #onConfchg({ members }: ConfchgEvent): void {
    this.#present = members.map(address);
    this.#quorate = members.length * 2 > this.#size;
    // An agreement in progress began with other members, so it starts again.
    this.#ready = false;
    this.#marks.clear();
    for (const change of this.#waitingChanges) this.#refuse(change, 'the members changed before this change');
    this.#waitingChanges = [];
    if (this.#present[0] === this.#me) this.#send({ type: 'mark', id: randomUUID() });
    this.#changed();
  }

  #onDeliver({ nodeId, pid, message }: DeliverEvent): void {
    const packet = JSON.parse(message.toString('utf8')) as Packet;
    switch (packet.type) {
      case 'mark':
        this.#marks.set(packet.id, new Map());
        this.#send({ type: 'have', mark: packet.id, epoch: this.#epoch });
        break;
      case 'have':
        this.#onHave(address({ nodeId, pid }), packet);
        break;
      case 'state':
        this.#takeOver(packet);
        break;
      default:
        this.#onChange(packet);
    }
    this.#changed();
  }

  #onHave(member: string, { mark, epoch }: Extract<Packet, { type: 'have' }>): void {
    const epochs = this.#marks.get(mark);
    if (epochs === undefined || this.#ready) return;
    epochs.set(member, epoch);
    if (epochs.size < this.#present.length) return;
    const highest = Math.max(...epochs.values());
    const chosen = this.#present.find((other) => epochs.get(other) === highest);
    if (chosen !== this.#me) return;
    // If no member has a map, it begins empty.
    const agreed = Math.max(highest, 0) + (this.#quorate ? 1 : 0);
    this.#send({ type: 'state', mark, epoch: agreed, entries: [...this.#entries] });
  }

  #takeOver({ mark, epoch, entries }: Extract<Packet, { type: 'state' }>): void {
    if (!this.#marks.has(mark) || this.#ready) return;
    this.#ready = true;
    this.#epoch = epoch;
    this.#entries = new Map(entries);
    const changes = this.#waitingChanges;
    this.#waitingChanges = [];
    for (const change of changes) this.#perform(change);
  }

  #onChange(change: Change): void {
    // All members on this side ignore it, and its sender rejects.
    if (!this.#quorate) this.#refuse(change, 'the majority was lost before this change');
    else if (!this.#ready) this.#waitingChanges.push(change);
    else this.#perform(change);
  }

  #perform(change: Change): void {
    if (change.type === 'set') this.#entries.set(change.key, change.value);
    else this.#entries.delete(change.key);
    this.#pending.get(change.id)?.resolve();
    this.#pending.delete(change.id);
  }

  #refuse(change: Change, why: string): void {
    this.#pending.get(change.id)?.reject(new Error(why));
    this.#pending.delete(change.id);
  }

  #onClose(): void {
    for (const { reject } of this.#pending.values()) reject(new Error('the connection is lost'));
    this.#pending.clear();
    this.#ready = false;
    this.#quorate = false;
    this.#changed();
  }

  #send(packet: Packet, onError: (error: Error) => void = () => undefined): void {
    this.#client.mcast(JSON.stringify(packet)).catch(onError);
  }

  #changed(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

function address({ nodeId, pid }: Pick<CpgAddress, 'nodeId' | 'pid'>): string {
  return `${nodeId}:${pid}`;
}
