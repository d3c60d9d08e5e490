/**
 * The part of totem: one order of messages for all nodes that see each other, and rings, the memberships of such nodes.
 *
 * Every node has a send queue. The token goes from queue to queue; its holder gets one message ordered, and all nodes of
 * the ring deliver that message before the next one. So the nodes of a ring always agree, and a ring change falls between
 * the same two messages for all of them.
 *
 *     submit() -> queue of node 1 --.
 *     submit() -> queue of node 2 ---+-- token --> deliver() on every node of the ring
 *     submit() -> queue of node 3 --'
 *
 * With the real clock the token circulates by itself, and a message that finds all queues empty does not wait for it. With
 * the manual clock only step() and advance() move anything, and the seed decides who is next.
 */
import { clearImmediate, clearTimeout, monotonicMs, setImmediate, setTimeout } from '../clock';
import type { RingId } from '../codec/events';
import { debugServer as debug } from '../debug';
import type { FaultState } from './faults';
import { withOwnMemory, queuedSize, type TotemMessage } from './ordered';
import type { RingChange } from './cpg-service';
import type { Process } from './process-list';
import type { Random } from './random';

/** The order's view of a node. */
export interface OrderedNode {
  readonly nodeId: number;
  readonly ringId: RingId;
  /** The nodes of its present ring. */
  readonly members: readonly number[];
  readonly faults: FaultState;
  localProcesses(): Process[];
  deliver(message: TotemMessage): void;
  changeRing(change: RingChange): void;
  /** Sets the size of its queue. */
  onQueued(bytes: number): void;
}

/** 'real': the clock of this machine. 'manual': only step() and run() order messages. */
export type ClockMode = 'real' | 'manual';

/** Above this a node loses messages, like a daemon whose clients ignore flow control. */
const MAX_QUEUE_BYTES = 64 * 1024 * 1024;
/** Messages ordered in one turn of the event loop. */
const MESSAGES_PER_TURN = 1024;
/** Difference of the sequence numbers of consecutive rings. */
const RING_SEQ_STEP = 4n;

interface QueueEntry {
  readonly message: TotemMessage;
  /** Due time by our clock. */
  readonly dueMs: number;
}

interface NodeQueue {
  readonly node: OrderedNode;
  readonly entries: QueueEntry[];
  queuedBytes: number;
  ring: NodeQueue[];
}

export class TotalOrder {
  readonly #mode: ClockMode;
  readonly #random: Random;
  readonly #queues = new Map<OrderedNode, NodeQueue>();
  #queuedMessages = 0;
  #manualNowMs = 0;
  #lastSender = 0;
  #turn: { atMs: number; cancel: () => void } | undefined;

  constructor(mode: ClockMode, random: Random) {
    this.#mode = mode;
    this.#random = random;
  }

  /** Number of messages that wait to be ordered. */
  get waiting(): number {
    return this.#queuedMessages;
  }

  get nowMs(): number {
    return this.#mode === 'manual' ? this.#manualNowMs : monotonicMs();
  }

  /**
   * Real clock: orders due messages without waiting for the next turn of the event loop. Messages sent before a change of
   * nodes or network come before it.
   */
  catchUp(): void {
    while (this.#mode === 'real' && this.step());
  }

  /** Adds a node, alone in its own ring until form(). */
  add(node: OrderedNode): void {
    const queue: NodeQueue = { node, entries: [], queuedBytes: 0, ring: [] };
    queue.ring = [queue];
    this.#queues.set(node, queue);
  }

  /** Removes a node with its queue; form() informs the others. */
  remove(node: OrderedNode): void {
    const queue = this.#queues.get(node);
    if (queue === undefined) return;
    this.#queuedMessages -= queue.entries.length;
    this.#queues.delete(node);
  }

  /** Orders the queue of a node regardless of delays: the node is about to stop. */
  flush(node: OrderedNode): void {
    const queue = this.#queues.get(node);
    while (queue !== undefined && queue.entries.length > 0) this.#orderNext(queue);
  }

  /**
   * Forms rings: the nodes of each side see only each other. A side that is already a ring stays as it is. The sides must
   * list all present nodes.
   */
  form(sides: readonly (readonly OrderedNode[])[]): void {
    for (const side of sides) {
      const queues = side
        .map((node) => this.#queues.get(node)!)
        .sort((one, other) => one.node.nodeId - other.node.nodeId);
      const members = queues.map(({ node }) => node.nodeId);
      if (queues.every(({ node }) => node.members.join() === members.join() && sameRing(queues, node)))
        continue;
      this.#formRing(queues, members);
    }
  }

  submit(node: OrderedNode, message: TotemMessage): void {
    const queue = this.#queues.get(node);
    if (queue === undefined) return;
    const { faults } = node;
    const multicast = message.kind === 'message' || message.kind === 'fragment';
    if (multicast && this.#queuedMessages === 0 && this.#mode === 'real' && faults.none) {
      for (const { node: receiver } of queue.ring) receiver.deliver(message);
      return;
    }
    if (faults.loses(message)) {
      debug('node %d: a message is lost by an injected fault', node.nodeId);
      return;
    }
    if (message.kind === 'message' && queue.queuedBytes > MAX_QUEUE_BYTES) {
      debug('node %d: a message is lost, the queue is full', node.nodeId);
      return;
    }
    const dueMs = this.nowMs + faults.delayMs();
    queue.entries.push({ message: withOwnMemory(message), dueMs });
    queue.queuedBytes += queuedSize(message);
    this.#queuedMessages++;
    node.onQueued(queue.queuedBytes);
    if (this.#turn !== undefined && dueMs < this.#turn.atMs) {
      this.#turn.cancel();
      this.#turn = undefined;
    }
    this.#scheduleTurn();
  }

  /** Orders one message; false if none is due. */
  step(): boolean {
    const now = this.nowMs;
    const ready = [...this.#queues.values()].filter(
      ({ entries }) => entries.length > 0 && entries[0]!.dueMs <= now,
    );
    if (ready.length === 0) return false;
    const next =
      this.#mode === 'manual'
        ? this.#random.pick(ready)
        : (ready.find(({ node }) => node.nodeId > this.#lastSender) ?? ready[0]!);
    this.#lastSender = next.node.nodeId;
    this.#orderNext(next);
    return true;
  }

  /** Manual clock: advances by this many milliseconds. */
  advance(byMs: number): void {
    this.#manualNowMs += byMs;
  }

  /** Milliseconds until a message is due; undefined if none waits. */
  nextDueInMs(): number | undefined {
    const due = [...this.#queues.values()].flatMap(({ entries }) =>
      entries.slice(0, 1).map(({ dueMs }) => dueMs),
    );
    return due.length === 0 ? undefined : Math.max(0, Math.min(...due) - this.nowMs);
  }

  close(): void {
    this.#turn?.cancel();
    this.#turn = undefined;
    this.#queues.clear();
    this.#queuedMessages = 0;
  }

  #orderNext(queue: NodeQueue): void {
    const { message } = queue.entries.shift()!;
    this.#queuedMessages--;
    queue.queuedBytes -= queuedSize(message);
    queue.node.onQueued(queue.queuedBytes);
    for (const { node } of queue.ring) node.deliver(message);
  }

  #formRing(queues: NodeQueue[], members: number[]): void {
    const seq = queues.reduce(
      (highest, { node }) => (node.ringId.seq > highest ? node.ringId.seq : highest),
      0n,
    );
    const ringId = { nodeId: members[0]!, seq: seq + RING_SEQ_STEP };
    debug('ring %d.%s of nodes %s', ringId.nodeId, ringId.seq, members.join());
    // The last node of the ring completes the previous round, so its joinlist comes first.
    const senders = [...queues.slice(-1), ...queues.slice(0, -1)];
    const joinlists = senders.map(({ node }) => node.localProcesses());
    const changes = queues.map((queue) => {
      const present = new Set(
        queue.ring.filter((other) => queues.includes(other)).map(({ node }) => node.nodeId),
      );
      const left = queue.node.members.filter((nodeId) => !present.has(nodeId));
      return { node: queue.node, change: { ringId, members, left, joinlists } };
    });
    for (const queue of queues) queue.ring = queues;
    for (const { node, change } of changes) node.changeRing(change);
  }

  #scheduleTurn(): void {
    if (this.#mode === 'manual' || this.#turn !== undefined) return;
    const waitMs = this.nextDueInMs();
    if (waitMs === undefined) return;
    const turn = (): void => {
      this.#turn = undefined;
      for (let count = 0; count < MESSAGES_PER_TURN && this.step(); count++);
      this.#scheduleTurn();
    };
    const atMs = this.nowMs + waitMs;
    if (waitMs > 0) {
      const timer = setTimeout(turn, waitMs).unref();
      this.#turn = { atMs, cancel: () => clearTimeout(timer) };
    } else {
      const immediate = setImmediate(turn);
      this.#turn = { atMs, cancel: () => clearImmediate(immediate) };
    }
  }
}

/** Whether all queues are in the node's present ring: after a restart, equal nodeids are not enough. */
function sameRing(queues: readonly NodeQueue[], node: OrderedNode): boolean {
  return queues.every(
    (queue) => queue.ring.length === queues.length && queue.ring.some((other) => other.node === node),
  );
}
