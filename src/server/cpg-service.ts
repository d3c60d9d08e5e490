/**
 * The CPG service of one node. Like corosync's exec/cpg.c, it handles the requests of clients and the totally ordered
 * messages. The states of a client:
 *
 *     request    unjoined           joining          joined           leaving (final)
 *     join       ok, to joining     CS_ERR_EXIST     CS_ERR_EXIST     CS_ERR_BUSY
 *     leave      CS_ERR_NOT_EXIST   CS_ERR_BUSY      ok, to leaving   CS_ERR_NOT_EXIST
 *     mcast      dropped            ok               ok               dropped
 *
 * A request itself changes only the client's own state: joins, leaves and messages go into the total order, and every
 * node acts in the same way when they come back from it (deliver()).
 *
 * Where the daemon does something surprising, so does this service: code tested here will meet it there. `strict: false`
 * softens behaviour that nobody can want; each such place says "strict".
 */
import { Reason } from '../codec/addresses';
import { encodeEvent, type RingId } from '../codec/events';
import { malformed } from '../codec/fields';
import { frameHeader, frameId, requestHeader } from '../codec/header';
import { MAX_GROUP_NAME_BYTES, MEMBERSHIP_SLOTS } from '../codec/limits';
import {
  checkMcast,
  decodeRequest,
  DELIVER_INITIAL_TOTEM_CONF,
  FragmentType,
  MCAST_HEADER_BYTES,
  RequestId,
  type CpgRequest,
} from '../codec/requests';
import { encodeResponse, RESPONSE_ID_OF, type CpgResponse } from '../codec/responses';
import { debugServer as debug } from '../debug';
import { CS_OK, errnoOf, type CpgErrorCode } from '../errors';
import { groupBytesOf, groupKey } from './groups';
import { Iterations, MAX_ITERATIONS_PER_CLIENT } from './iterations';
import { Sender, type TotemMessage } from './ordered';
import { ProcessList, type Process } from './process-list';
import { counted } from '../text';

/** The service's view of a client. */
export interface ClientPort {
  /** The pid of a client that announces none. */
  readonly clientPid: number;
  respond(frame: Buffer): void;
  /** Sends an event of `head` and of `body` from `start` on; the caller may reuse their memory afterwards. */
  send(head: Buffer, body: Buffer, start: number): void;
}

/** A connection's view of the service. */
export interface ServiceHandle {
  /** The client's pid, as known to members. */
  readonly pid: number;
  /** Handles one request; the frame is valid only during the call. Throws CS_ERR_MESSAGE_ERROR if it is malformed. */
  request(frame: Buffer): void;
  /** The client is gone. */
  close(): void;
}

/** The way into the total order. */
export interface Totem {
  readonly nodeId: number;
  /** True while no request that needs ordering can be accepted: the client gets CS_ERR_TRY_AGAIN. */
  overloaded(): boolean;
  submit(message: TotemMessage): void;
}

/** A new ring, as one of its nodes learns of it. */
export interface RingChange {
  readonly ringId: RingId;
  readonly members: readonly number[];
  /** Nodes of the previous ring that are not in this one. */
  readonly left: readonly number[];
  /** The own processes of each member node, in order of arrival. */
  readonly joinlists: readonly (readonly Process[])[];
}

type State = 'unjoined' | 'joining' | 'joined' | 'leaving';

const EMPTY = Buffer.alloc(0);

class Client {
  state: State = 'unjoined';
  group = '';
  pid = 0;
  flags = 0;
  sender: Sender | undefined;
  initialTotemSent = false;
  /** Membership changes sent to this client: a change between two fragments interrupts their message. */
  transitions = 0;
  transitionsAtFirstFragment = 0;
  readonly iterations = new Set<bigint>();

  constructor(readonly port: ClientPort) {}
}

/** Requests that need the total order, and are refused while it is overloaded. */
const ORDERED_REQUESTS: ReadonlySet<number> = new Set<number>([
  RequestId.join,
  RequestId.leave,
  RequestId.finalize,
  RequestId.zeroCopyAlloc,
  RequestId.zeroCopyFree,
  RequestId.zeroCopyExecute,
  RequestId.partialMcast,
]);

const NAMED_REQUESTS: ReadonlySet<number> = new Set<number>([
  RequestId.join,
  RequestId.leave,
  RequestId.membershipGet,
  RequestId.iterationInitialize,
]);

export class CpgService {
  readonly #totem: Totem;
  readonly #strict: boolean;
  /** Clients that get events: all but the finalized ones. */
  readonly #clients = new Set<Client>();
  /** The same clients by the group they asked to join. */
  readonly #byGroup = new Map<string, Set<Client>>();
  readonly #processes = new ProcessList();
  readonly #iterations = new Iterations();
  #ringId: RingId;
  #members: readonly number[];

  constructor(totem: Totem, ringId: RingId, strict: boolean) {
    this.#totem = totem;
    this.#strict = strict;
    this.#ringId = ringId;
    this.#members = [totem.nodeId];
  }

  /** The node's present ring. */
  get ringId(): RingId {
    return this.#ringId;
  }

  /** The nodes of that ring. */
  get members(): readonly number[] {
    return this.#members;
  }

  /** The members of all groups. */
  get processes(): readonly Process[] {
    return this.#processes.all;
  }

  /** The processes on this node: its joinlist when rings merge. */
  localProcesses(): Process[] {
    return this.#processes.all.filter(({ nodeId }) => nodeId === this.#totem.nodeId);
  }

  open(port: ClientPort): ServiceHandle {
    const client = new Client(port);
    this.#clients.add(client);
    return {
      get pid() {
        return client.pid === 0 ? port.clientPid : client.pid;
      },
      request: (frame) => this.#request(client, frame),
      close: () => this.#exit(client),
    };
  }

  // ---- requests --------------------------------------------------------------------------------------------

  #request(client: Client, frame: Buffer): void {
    if (frame.length < requestHeader.size)
      throw malformed(`a request of ${counted(frame.length, 'byte')}`, 'a header');
    const id = frameId(frame);
    if (id === RequestId.mcast) {
      checkMcast(frame);
      this.#mcast(client, frame);
      return;
    }
    frameHeader(frame);
    if (!(id in RESPONSE_ID_OF)) {
      debug('client %d: unknown request %d', client.port.clientPid, id);
      respondError(client, 'join', 'CS_ERR_INVALID_PARAM');
      return;
    }
    if (ORDERED_REQUESTS.has(id) && this.#totem.overloaded()) {
      respondError(client, 'join', 'CS_ERR_TRY_AGAIN');
      return;
    }
    const request = NAMED_REQUESTS.has(id) ? decodeNamed(frame) : decodeRequest(frame);
    debug('client %d: %s', client.port.clientPid, request.type);
    if (request.type !== 'mcast') this.#answer(client, request);
  }

  #answer(client: Client, request: Exclude<CpgRequest, { type: 'mcast' }>): void {
    switch (request.type) {
      case 'join':
        respond(client, 'join', this.#join(client, groupKey(request.group), request.pid, request.flags));
        return;
      case 'leave':
        respond(client, 'leave', this.#leave(client, groupKey(request.group), request.pid));
        return;
      case 'partialMcast':
        respond(client, 'partialMcast', this.#partialMcast(client, request));
        return;
      case 'membershipGet':
        this.#membershipGet(client, groupKey(request.group));
        return;
      case 'localGet':
        reply(client, { type: 'localGet', error: CS_OK, nodeId: this.#totem.nodeId });
        return;
      case 'iterationInitialize':
        this.#iterationInitialize(client, request.iterationType, groupKey(request.group));
        return;
      case 'iterationNext':
        this.#iterationNext(client, request.handle);
        return;
      case 'iterationFinalize': {
        const known = this.#iterations.end(request.handle);
        for (const other of this.#clients) other.iterations.delete(request.handle);
        respond(client, 'iterationFinalize', known ? undefined : 'CS_ERR_LIBRARY');
        return;
      }
      case 'finalize':
        // It gets no more events, but its process is a member until the connection ends.
        this.#unlist(client);
        respond(client, 'finalize', undefined);
        return;
      case 'zeroCopyAlloc':
      case 'zeroCopyFree':
      case 'zeroCopyExecute':
        respond(client, 'null', 'CS_ERR_NOT_SUPPORTED');
        return;
    }
  }

  /** Undefined if the join was accepted. */
  #join(client: Client, group: string, pid: number, flags: number): CpgErrorCode | undefined {
    const { nodeId } = this.#totem;
    // Clients that left keep their group here; a client that never joined has pid 0 and no group.
    for (const other of this.#clients) {
      if (other.pid === pid && other.group === group) return 'CS_ERR_EXIST';
    }
    // The leave of an earlier client with this pid is still in flight.
    if (this.#processes.has({ nodeId, pid, group })) return 'CS_ERR_TRY_AGAIN';
    if (group.length > MAX_GROUP_NAME_BYTES) return 'CS_ERR_NAME_TOO_LONG';
    // strict: the daemon accepts the empty name, and never notices the end of its members.
    if (!this.#strict && group === '') return 'CS_ERR_INVALID_PARAM';
    switch (client.state) {
      case 'leaving':
        return 'CS_ERR_BUSY';
      case 'joining':
      case 'joined':
        return 'CS_ERR_EXIST';
      case 'unjoined':
        client.state = 'joining';
        client.pid = pid;
        client.flags = flags;
        client.sender = new Sender(nodeId, pid, group);
        this.#setGroup(client, group);
        this.#totem.submit({ kind: 'join', nodeId, pid, group });
        return undefined;
    }
  }

  #leave(client: Client, group: string, pid: number): CpgErrorCode | undefined {
    switch (client.state) {
      case 'unjoined':
      case 'leaving':
        return 'CS_ERR_NOT_EXIST';
      case 'joining':
        return 'CS_ERR_BUSY';
      case 'joined':
        // strict: the daemon removes the client from any group named here, joined or not; the client then stays a
        // member of its real group permanently, even after its end.
        if (!this.#strict && (group !== client.group || pid !== client.pid)) return 'CS_ERR_INVALID_PARAM';
        client.state = 'leaving';
        this.#totem.submit({ kind: 'leave', nodeId: this.#totem.nodeId, pid, group, reason: Reason.LEAVE });
        return undefined;
    }
  }

  #mcast(client: Client, frame: Buffer): void {
    if (client.sender === undefined || (client.state !== 'joined' && client.state !== 'joining')) {
      debug('client %d: mcast while %s is dropped', client.port.clientPid, client.state);
    } else {
      this.#totem.submit({ kind: 'message', sender: client.sender, body: frame, start: MCAST_HEADER_BYTES });
    }
  }

  #partialMcast(
    client: Client,
    request: Extract<CpgRequest, { type: 'partialMcast' }>,
  ): CpgErrorCode | undefined {
    const { fragmentType, messageLength, fragment } = request;
    if (fragmentType === FragmentType.FIRST) client.transitionsAtFirstFragment = client.transitions;
    // Check this before the state: even a client without a first fragment gets CS_ERR_INTERRUPT.
    if (client.transitions !== client.transitionsAtFirstFragment) return 'CS_ERR_INTERRUPT';
    if (client.sender === undefined || (client.state !== 'joined' && client.state !== 'joining')) {
      return 'CS_ERR_NOT_EXIST';
    }
    this.#totem.submit({
      kind: 'fragment',
      sender: client.sender,
      body: fragment,
      messageLength,
      fragmentType,
    });
    return undefined;
  }

  #membershipGet(client: Client, group: string): void {
    const members = this.#processes
      .ofGroup(group)
      .slice(0, MEMBERSHIP_SLOTS)
      .map(({ nodeId, pid }) => ({ nodeId, pid, reason: Reason.UNDEFINED }));
    reply(client, { type: 'membershipGet', error: CS_OK, members });
  }

  #iterationInitialize(client: Client, iterationType: number, group: string): void {
    if (client.iterations.size >= MAX_ITERATIONS_PER_CLIENT) {
      respondError(client, 'iterationInitialize', 'CS_ERR_NO_MEMORY');
      return;
    }
    const handle = this.#iterations.begin(this.#processes.all, iterationType, group);
    client.iterations.add(handle);
    reply(client, { type: 'iterationInitialize', error: CS_OK, handle });
  }

  #iterationNext(client: Client, handle: bigint): void {
    const row = this.#iterations.next(handle, this.#strict);
    if (row === undefined) respondError(client, 'iterationNext', 'CS_ERR_LIBRARY');
    else if (row === 'end') respondError(client, 'iterationNext', 'CS_ERR_NO_SECTIONS');
    else {
      const { nodeId, pid } = row;
      reply(client, { type: 'iterationNext', error: CS_OK, group: groupBytesOf(row.group), nodeId, pid });
    }
  }

  /** The connection ended. */
  #exit(client: Client): void {
    const { nodeId } = this.#totem;
    const { group, pid } = client;
    // strict: the daemon forgets a member of the empty group here, which stays in the lists permanently.
    if (group !== '' && client.state !== 'leaving') {
      this.#totem.submit({ kind: 'leave', nodeId, pid, group, reason: Reason.PROCDOWN });
    }
    for (const handle of client.iterations) this.#iterations.end(handle);
    this.#unlist(client);
  }

  #setGroup(client: Client, group: string): void {
    this.#byGroup.get(client.group)?.delete(client);
    client.group = group;
    if (!this.#clients.has(client)) return;
    this.#byGroup.set(group, (this.#byGroup.get(group) ?? new Set()).add(client));
  }

  #unlist(client: Client): void {
    this.#clients.delete(client);
    const group = this.#byGroup.get(client.group);
    group?.delete(client);
    if (group?.size === 0) this.#byGroup.delete(client.group);
  }

  // ---- totally ordered messages -----------------------------------------------------------------------------

  deliver(message: TotemMessage): void {
    switch (message.kind) {
      case 'message': {
        const { sender, body, start } = message;
        const receivers = this.#receivers(sender);
        if (receivers === undefined) return;
        const head = sender.deliverHead(body.length - start);
        for (const client of receivers) if (receivesGroupEvents(client)) client.port.send(head, body, start);
        return;
      }
      case 'fragment': {
        const { sender, body, messageLength, fragmentType } = message;
        const { nodeId, pid } = sender;
        const receivers = this.#receivers(sender);
        if (receivers === undefined) return;
        const group = groupBytesOf(sender.group);
        const frame = encodeEvent({
          type: 'partialDeliver',
          ...{ group, messageLength, nodeId, pid, fragmentType },
          fragment: body,
        });
        for (const client of receivers) if (receivesGroupEvents(client)) client.port.send(frame, EMPTY, 0);
        return;
      }
      case 'join': {
        const { nodeId, pid, group } = message;
        if (this.#processes.add({ nodeId, pid, group })) {
          this.#notify(group, { joined: [{ nodeId, pid, group }], reason: Reason.JOIN });
        }
        return;
      }
      case 'leave': {
        const { nodeId, pid, group, reason } = message;
        this.#leaveNow({ nodeId, pid, group }, reason);
        return;
      }
    }
  }

  /**
   * Enters a new ring in one step, as after the synchronisation of corosync's services: first the processes of lost nodes
   * go, group by group, then those of new nodes come, then every client learns of the ring.
   */
  changeRing(change: RingChange): void {
    this.#ringId = change.ringId;
    this.#members = change.members;
    const left = new Set(change.left);
    for (const [group, processes] of byGroup(this.#processes.remove(({ nodeId }) => left.has(nodeId)))) {
      this.#notify(group, { left: processes, reason: Reason.NODEDOWN });
    }
    // The daemon keeps received processes in a list that grows at its head, and reads it from there.
    const received = change.joinlists.flat().reverse();
    const remote = received.filter(({ nodeId }) => nodeId !== this.#totem.nodeId);
    for (const [group, processes] of byGroup(remote.filter((process) => this.#processes.add(process)))) {
      this.#notify(group, { joined: processes, reason: Reason.NODEUP });
    }
    this.#sendTotem([...this.#clients]);
  }

  /** The clients in the sender's group; none if the sender's node has no member there. */
  #receivers(sender: Sender): Set<Client> | undefined {
    if (this.#processes.knows(sender.group, sender.nodeId)) return this.#byGroup.get(sender.group);
    debug('node %d: a message of an unknown node is not delivered', this.#totem.nodeId);
    return undefined;
  }

  #leaveNow(process: Process, reason: number): void {
    const isGone = (other: Process): boolean =>
      other.nodeId === process.nodeId && other.pid === process.pid && other.group === process.group;
    // Members also learn of the leave of a process that was no member.
    this.#processes.remove(isGone);
    this.#notify(process.group, { left: [process], reason });
    // strict: the daemon tries to let the client join again, but fails, and keeps sending it the events of the group.
    if (this.#strict || reason !== Reason.LEAVE || process.nodeId !== this.#totem.nodeId) return;
    for (const client of this.#byGroup.get(process.group) ?? []) {
      if (client.pid !== process.pid) continue;
      client.state = 'unjoined';
      client.pid = 0;
      client.sender = undefined;
      this.#setGroup(client, '');
    }
  }

  /** Sends joined and left processes to the clients in their group. */
  #notify(
    group: string,
    change: { joined?: readonly Process[]; left?: readonly Process[]; reason: number },
  ): void {
    const { joined = [], left = [], reason } = change;
    const clients = this.#byGroup.get(group) ?? new Set<Client>();
    for (const { nodeId, pid } of joined) {
      for (const client of clients) {
        if (nodeId === this.#totem.nodeId && client.pid === pid) client.state = 'joined';
      }
    }
    const receivers = [...clients].filter(receivesGroupEvents);
    if (receivers.length > 0) {
      const addresses = (
        list: readonly Process[],
        why: number,
      ): { nodeId: number; pid: number; reason: number }[] =>
        list.map(({ nodeId, pid }) => ({ nodeId, pid, reason: why }));
      const frame = encodeEvent({
        type: 'confchg',
        group: groupBytesOf(group),
        members: addresses(this.#processes.ofGroup(group), Reason.UNDEFINED),
        left: addresses(left, reason),
        joined: addresses(joined, reason),
      });
      for (const client of receivers) {
        client.port.send(frame, EMPTY, 0);
        client.transitions++;
      }
    }
    // The daemon sends the initial ring, if requested at the join, with the next change of any group.
    const waiting = [...this.#clients].filter(
      ({ flags, initialTotemSent }) => (flags & DELIVER_INITIAL_TOTEM_CONF) !== 0 && !initialTotemSent,
    );
    for (const client of waiting) client.initialTotemSent = true;
    this.#sendTotem(waiting);
  }

  #sendTotem(clients: readonly Client[]): void {
    if (clients.length === 0) return;
    const frame = encodeEvent({ type: 'totemConfchg', ringId: this.#ringId, members: [...this.#members] });
    for (const client of clients) client.port.send(frame, EMPTY, 0);
  }
}

/** True also after a leave: the daemon keeps sending events. */
function receivesGroupEvents({ state }: Client): boolean {
  return state === 'joined' || state === 'leaving';
}

/**
 * Processes by group, sorted by group name. The daemon's table ends names at their first NUL: groups that differ only
 * after it are reported as one, under the first name.
 */
function byGroup(processes: readonly Process[]): [group: string, processes: Process[]][] {
  const groups = new Map<string, { group: string; processes: Process[] }>();
  for (const process of processes) {
    const name = process.group.split('\0', 1)[0]!;
    const entry = groups.get(name) ?? { group: process.group, processes: [] };
    entry.processes.push(process);
    groups.set(name, entry);
  }
  return [...groups.entries()]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([, { group, processes: members }]) => [group, members]);
}

const NAME_LENGTH_OFFSET = requestHeader.size;

/**
 * Decodes a request whose name may be longer than any real one: the daemon does not find it, rather than rejecting the
 * request as malformed. Such a name comes back one byte too long, so that it equals no real one.
 */
function decodeNamed(frame: Buffer): CpgRequest {
  if (
    frame.length < NAME_LENGTH_OFFSET + 4 ||
    frame.readUInt32LE(NAME_LENGTH_OFFSET) <= MAX_GROUP_NAME_BYTES
  ) {
    return decodeRequest(frame);
  }
  const shortened = Buffer.from(frame);
  shortened.writeUInt32LE(MAX_GROUP_NAME_BYTES, NAME_LENGTH_OFFSET);
  const request = decodeRequest(shortened);
  return 'group' in request
    ? { ...request, group: Buffer.concat([request.group, Buffer.alloc(1)]) }
    : request;
}

function reply(client: Client, response: CpgResponse): void {
  client.port.respond(encodeResponse(response));
}

type Bare = 'join' | 'leave' | 'iterationFinalize' | 'finalize' | 'null' | 'partialMcast';

function respond(client: Client, type: Bare, error: CpgErrorCode | undefined): void {
  reply(client, { type, error: error === undefined ? CS_OK : errnoOf(error) });
}

function respondError(client: Client, type: CpgResponse['type'], error: CpgErrorCode): void {
  reply(client, { type, error: errnoOf(error) });
}
