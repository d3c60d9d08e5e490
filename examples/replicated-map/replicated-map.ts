/**
 * A map that is equal on all members of a group.
 *
 * Changes are multicast and applied when they come back: everybody applies the same changes in the same order,
 * so everybody has the same map. Two things need care.
 *
 * Who comes later needs the map as it is. After each change of the membership the first member of each side
 * sends a mark; when the mark comes back it sends the map as it is at that moment, and whoever takes it over
 * applies to it what was changed behind the mark meanwhile.
 *
 *     order:   confchg(new)   set a   MARK   set b   STATE{a}   set c
 *     old:                    a              a b                a b c
 *     new:     (knows nothing)               keeps b  a + b     a b c
 *
 * When the network breaks, only one side may go on: the one with more than half of the members there can be.
 * When it heals, that side's map counts. `epoch` tells which one it is: it grows with every membership that
 * has a majority, so a side without one falls behind.
 */
import { randomUUID } from 'node:crypto';
import type { ConfchgEvent, CpgAddress, CpgClient, DeliverEvent } from '../../src';

type Entries = [key: string, value: unknown][];

type Change =
  { type: 'set'; id: string; key: string; value: unknown } | { type: 'delete'; id: string; key: string };

type Packet =
  Change | { type: 'mark'; id: string } | { type: 'state'; mark: string; epoch: number; entries: Entries };

/** An epoch before all others. */
const NONE = -1;

export interface ReplicatedMapOptions {
  /** How many members there can be: changes need more than half of them. */
  size: number;
}

export class ReplicatedMap {
  readonly #client: CpgClient;
  /** Our address. */
  readonly #me: string;
  readonly #size: number;
  #entries = new Map<string, unknown>();
  #epoch = 0;
  /** We had the map once; after a broken network it may be an old one. */
  #hasMap = false;
  #quorate = false;
  /** Members that were there before us and may have the map; only while we do not have it. */
  #elders: string[] | undefined;
  /** Marks since the last change of the membership, each with the changes behind it. */
  readonly #marks = new Map<string, Change[]>();
  /** The epoch of the map we took over since the last change of the membership. */
  #takenEpoch = NONE;
  /** Our own changes on their way. */
  readonly #pending = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  readonly #waiting = new Set<() => void>();

  private constructor(client: CpgClient, nodeId: number, { size }: ReplicatedMapOptions) {
    this.#client = client;
    this.#me = address({ nodeId, pid: client.pid });
    this.#size = size;
    client.on('confchg', (event) => this.#onConfchg(event));
    client.on('deliver', (event) => this.#onDeliver(event));
    client.on('close', () => this.#onClose());
  }

  /** Joins the group on a client that has not joined yet; resolves when the map is ready. */
  static async join(client: CpgClient, group: string, options: ReplicatedMapOptions): Promise<ReplicatedMap> {
    const map = new ReplicatedMap(client, await client.localNodeId(), options);
    await client.join(group);
    await map.until(({ ready }) => ready || client.state === 'closed');
    if (!map.ready) throw new Error('the connection was lost before the map arrived');
    return map;
  }

  /** True when the map is that of all members; false for a moment after each change of the membership. */
  get ready(): boolean {
    return this.#takenEpoch !== NONE;
  }

  /** False on the smaller side of a broken network: the map may be old, and cannot be changed. */
  get quorate(): boolean {
    return this.#quorate;
  }

  get entries(): Record<string, unknown> {
    return Object.fromEntries([...this.#entries].sort(([one], [other]) => (one < other ? -1 : 1)));
  }

  get(key: string): unknown {
    return this.#entries.get(key);
  }

  /** Resolves when all members on this side have the change, or will have it. Rejects without a majority of members. */
  set(key: string, value: unknown): Promise<void> {
    return this.#change({ type: 'set', id: randomUUID(), key, value });
  }

  delete(key: string): Promise<void> {
    return this.#change({ type: 'delete', id: randomUUID(), key });
  }

  /** Resolves when the condition holds; it is looked at whenever something changed. */
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

  #onConfchg({ members, left, joined }: ConfchgEvent): void {
    const me = this.#me;
    const present = members.map(address);
    const newcomers = new Set(joined.map(address));
    const gone = new Set(left.map(address));
    this.#elders = (this.#elders ?? present.filter((member) => member !== me)).filter(
      (member) => !gone.has(member),
    );
    this.#quorate = members.length * 2 > this.#size;
    if (this.#quorate) this.#epoch++;
    // What was under way began with other members; it begins anew.
    this.#marks.clear();
    this.#takenEpoch = NONE;
    const ownSide = present.filter((member) => !newcomers.has(member) || member === me);
    const mayHaveIt = this.#hasMap || this.#elders.length === 0;
    if (mayHaveIt && ownSide[0] === me) this.#send({ type: 'mark', id: `${me} ${randomUUID()}` });
    this.#changed();
  }

  #onDeliver({ nodeId, pid, message }: DeliverEvent): void {
    const packet = JSON.parse(Buffer.from(message).toString('utf8')) as Packet;
    if (packet.type === 'mark') {
      this.#marks.set(packet.id, []);
      if (address({ nodeId, pid }) === this.#me) {
        this.#send({ type: 'state', mark: packet.id, epoch: this.#epoch, entries: [...this.#entries] });
      }
    } else if (packet.type === 'state') {
      this.#takeOver(packet);
    } else {
      this.#apply(packet);
    }
    this.#changed();
  }

  #takeOver({ mark, epoch, entries }: Extract<Packet, { type: 'state' }>): void {
    const changesSince = this.#marks.get(mark);
    this.#marks.delete(mark);
    if (changesSince === undefined || epoch <= this.#takenEpoch) return;
    this.#takenEpoch = epoch;
    this.#epoch = epoch;
    this.#entries = new Map(entries);
    for (const change of changesSince) this.#perform(change);
    this.#hasMap = true;
  }

  #apply(change: Change): void {
    const pending = this.#pending.get(change.id);
    this.#pending.delete(change.id);
    if (!this.#quorate) {
      // All members on this side ignore it, and its sender hears of that.
      pending?.reject(new Error('the majority was lost before this change'));
      return;
    }
    for (const changes of this.#marks.values()) changes.push(change);
    this.#perform(change);
    pending?.resolve();
  }

  #perform(change: Change): void {
    if (change.type === 'set') this.#entries.set(change.key, change.value);
    else this.#entries.delete(change.key);
  }

  #onClose(): void {
    for (const { reject } of this.#pending.values()) reject(new Error('the connection is lost'));
    this.#pending.clear();
    this.#takenEpoch = NONE;
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
