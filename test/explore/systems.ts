/** Each ring as the client uses it, against libqb's side. */
import { EventReader } from '../../src/ring/event-reader';
import { RequestWriter } from '../../src/ring/request-writer';
import { ResponseReader } from '../../src/ring/response-reader';
import type { Ring } from '../../src/ring/ring';
import type { RingStorage } from '../../src/ring/storage';
import { Submitter, type Staging } from '../../src/transport/submitter';
import { ChunkWriter, RequestReader, type Socket } from './libqb';
import { part, Violation, type Part, type Scheduler, type System } from './search';
import { MemoryRing, messageOf } from './shared';

export interface Configuration {
  readonly ring: 'request' | 'response' | 'event';
  readonly words: number;
  /** The word at which the first chunk begins. */
  readonly at: number;
  /** Bytes of each message. */
  readonly lengths: readonly number[];
  /** request: how often flow control starts. */
  readonly holds?: number;
  /** request: uses markConsumed() when our messages come back. */
  readonly proof?: boolean;
  /** request: frames are too large to be gathered. */
  readonly direct?: boolean;
  /** request: the bytes of a batch go out one by one. */
  readonly split?: boolean;
  /** event: bytes that the socket holds. */
  readonly socket?: number;
  /** event: peeks ahead of the bytes. */
  readonly ahead?: boolean;
  /** event: the space always kept free, so that consumed chunks may stay. */
  readonly largestFrame?: number;
  /** A pread or pwrite of data is not atomic. */
  readonly wordByWord?: boolean;
  /** Nor is one of less than 8 bytes of the header. */
  readonly torn?: boolean;
  /** Ignore that the daemon may take an empty ring for full: only check for dead ends. */
  readonly patient?: boolean;
}

/** A rule broken on purpose. */
export interface Mutation {
  readonly name: string;
  readonly breaks: string;
  readonly on: Configuration;
  /** Between the ring and its storage. */
  storage?(storage: RingStorage, memory: MemoryRing): RingStorage;
  request?(system: RequestSystem): void;
  event?(system: EventSystem): void;
}

export function describe(configuration: Configuration): string {
  const { ring, lengths, ...rest } = configuration;
  const options = Object.entries(rest).map(([name, value]) => (value === true ? name : `${name}=${value}`));
  return `${ring} ${lengths.join('+')} bytes, ${options.join(' ')}`;
}

export function build(configuration: Configuration, scheduler: Scheduler, mutation?: Mutation): System {
  const { ring } = configuration;
  if (ring === 'request') return new RequestSystem(configuration, scheduler, mutation);
  if (ring === 'event') return new EventSystem(configuration, scheduler, mutation);
  return new ResponseSystem(configuration, scheduler, mutation);
}

/** The submitter's clock is stopped; its knowledge expires by an action. */
const NOW_MS = 1;
const NO_PARTS: readonly Uint8Array[] = [];

export class RequestSystem implements System {
  readonly parts: Part[];
  readonly memory: MemoryRing;
  readonly socket: Socket = { toDaemon: 0, toClient: 0 };
  readonly daemon: RequestReader;
  readonly ring: Ring;
  readonly requests: RequestWriter;
  readonly submitter: Submitter;
  readonly #ours: { next: number; waits: boolean } = { next: 0, waits: false };
  /** Sends this many bytes. */
  wakeUp: (count: number) => void;
  /** Whether everything posted is known to have come back. */
  allCameBack = (): boolean => this.daemon.state.processed === this.#ours.next;

  constructor(
    readonly configuration: Configuration,
    scheduler: Scheduler,
    mutation?: Mutation,
  ) {
    const { words, at, lengths, holds = 0, direct = false, split = false } = configuration;
    this.memory = new MemoryRing(scheduler, words, at, configuration);
    this.daemon = new RequestReader(this.memory, this.socket, lengths, holds);
    const ring = (this.ring = openRing(configuration, this.memory, mutation));
    this.requests = new RequestWriter(ring, { gatherBytes: words * 4, directBytes: direct ? 0 : words * 4 });
    this.wakeUp = (count) => {
      for (let left = count; left > 0; left -= split ? 1 : count) {
        const bytes = split ? 1 : count;
        scheduler.before(`send ${bytes} bytes`);
        this.socket.toDaemon += bytes;
      }
    };
    this.submitter = new Submitter(
      this.requests,
      (count) => this.wakeUp(count),
      () => NOW_MS,
    );
    const { gather, state } = this.requests;
    const gathered: Part = {
      save: () => [...gather.subarray(0, state.gatheredBytes)],
      load: (saved: number[]) => gather.set(saved),
    };
    const plain = [
      this.memory.state,
      this.socket,
      this.daemon.state,
      ring.state,
      state,
      this.submitter.state,
      this.#ours,
    ];
    this.parts = [...plain.map(part), gathered];
    mutation?.request?.(this);
  }

  actions(): string[] {
    const { submitter } = this;
    const actions: string[] = [];
    if (!this.#ours.waits && this.#ours.next < this.configuration.lengths.length) actions.push('stage');
    if (submitter.waiting) actions.push('poll');
    if (submitter.state.phase === 'gathering') actions.push('end the turn');
    if (this.configuration.proof === true) {
      if (submitter.state.consumedUntilMs > 0) actions.push('let time pass');
      else if (!submitter.waiting && this.#ours.next > 0 && this.allCameBack())
        actions.push('see that all came back');
    }
    return actions;
  }

  act(action: string): void {
    const { submitter } = this;
    if (action === 'stage') this.#stage();
    else if (action === 'poll') this.#poll();
    else if (action === 'end the turn') submitter.endTurn();
    else if (action === 'let time pass') submitter.state.consumedUntilMs = 0;
    else submitter.markConsumed();
  }

  daemonSteps(): string[] {
    return this.daemon.steps();
  }

  daemonStep(step: string): void {
    this.daemon.step(step);
  }

  done(): boolean {
    const { daemon, socket } = this;
    const { at, processed, flowControl } = daemon.state;
    return (
      at === 'poll' &&
      processed === this.configuration.lengths.length &&
      flowControl === 0 &&
      socket.toDaemon === 0
    );
  }

  check(): void {
    if (this.configuration.patient !== true) checkEmpty(this.memory);
  }

  #stage(): Staging {
    const length = this.configuration.lengths[this.#ours.next]!;
    const message = messageOf(this.#ours.next, length);
    const head = message.subarray(0, Math.min(2, length));
    let staging: Staging;
    if (this.#ours.next % 2 === 0) {
      staging = this.submitter.stage(head, length > 2 ? [message.subarray(2)] : NO_PARTS, length);
    } else {
      const prepared = Buffer.alloc(8 + Math.ceil(length / 4) * 4);
      message.copy(prepared, 8);
      staging = this.submitter.stagePrepared(prepared, length);
    }
    if (staging === 'full') this.#ours.waits = true;
    else this.#ours.next++;
    return staging;
  }

  /** Like ShmTransport, for a session that sends all it can when there is room. */
  #poll(): void {
    const { submitter } = this;
    if (submitter.state.wantsRoom) {
      if (!submitter.findRoom()) return;
      this.#ours.waits = false;
      while (this.#ours.next < this.configuration.lengths.length && this.#stage() !== 'full');
    }
    submitter.post();
  }
}

export class EventSystem implements System {
  readonly parts: Part[];
  readonly memory: MemoryRing;
  readonly socket: Socket = { toDaemon: 0, toClient: 0 };
  readonly daemon: ChunkWriter;
  readonly ring: Ring;
  readonly events: EventReader;
  readonly #ours = { received: 0 };

  constructor(
    readonly configuration: Configuration,
    private readonly scheduler: Scheduler,
    mutation?: Mutation,
  ) {
    const { words, at, lengths, socket = Infinity, largestFrame = Infinity } = configuration;
    this.memory = new MemoryRing(scheduler, words, at, configuration);
    this.daemon = new ChunkWriter(this.memory, lengths, { socket: this.socket, capacity: socket });
    this.daemon.state.due = lengths.length;
    const ring = (this.ring = openRing(configuration, this.memory, mutation));
    this.events = new EventReader(ring, { largestFrame });
    const plain = [
      this.memory.state,
      this.socket,
      this.daemon.state,
      ring.state,
      this.events.state,
      this.#ours,
    ];
    this.parts = plain.map(part);
    mutation?.event?.(this);
  }

  actions(): string[] {
    const { events } = this;
    const actions: string[] = [];
    if (this.socket.toClient > 0) actions.push('receive bytes');
    if (this.configuration.ahead === true) actions.push('look');
    if (events.available > 0) actions.push('consume one');
    if (events.available > 1) actions.push('consume all');
    if (events.shouldReclaim) actions.push('reclaim');
    return actions;
  }

  act(action: string): void {
    if (action === 'receive bytes') this.#receive();
    else if (action === 'look') this.events.peek();
    else if (action === 'reclaim') this.events.reclaim();
    else this.events.consume(action === 'consume one' ? 1 : Infinity, this.#onFrame);
  }

  daemonSteps(): string[] {
    return this.daemon.steps();
  }

  daemonStep(step: string): void {
    this.daemon.step(step);
  }

  done(): boolean {
    const { at, outstanding } = this.daemon.state;
    const allRead = this.#ours.received === this.configuration.lengths.length;
    return (
      allRead &&
      at === 'idle' &&
      outstanding + this.socket.toClient === 0 &&
      this.events.state.announced === 0
    );
  }

  check(): void {
    if (this.configuration.patient !== true) checkEmpty(this.memory);
  }

  #receive(): void {
    this.scheduler.before('receive bytes');
    this.scheduler.note(this.socket.toClient);
    this.events.credit(this.socket.toClient);
    this.socket.toClient = 0;
  }

  readonly #onFrame = (frame: Buffer): boolean => {
    checkFrame(frame, this.#ours.received++, this.configuration.lengths);
    return true;
  };
}

class ResponseSystem implements System {
  readonly parts: Part[];
  readonly memory: MemoryRing;
  readonly daemon: ChunkWriter;
  readonly #responses: ResponseReader;
  readonly #ours = { asked: 0, received: 0 };

  constructor(
    readonly configuration: Configuration,
    scheduler: Scheduler,
    mutation?: Mutation,
  ) {
    const { words, at, lengths } = configuration;
    this.memory = new MemoryRing(scheduler, words, at, configuration);
    this.daemon = new ChunkWriter(this.memory, lengths);
    const ring = openRing(configuration, this.memory, mutation);
    this.#responses = new ResponseReader(ring);
    this.parts = [this.memory.state, this.daemon.state, ring.state, this.#ours].map(part);
  }

  actions(): string[] {
    if (this.#ours.asked > this.#ours.received) return ['look for the reply'];
    return this.#ours.asked < this.configuration.lengths.length ? ['ask'] : [];
  }

  act(action: string): void {
    if (action === 'ask') {
      this.#ours.asked++;
      this.daemon.state.due++;
      return;
    }
    const frame = this.#responses.take();
    if (frame !== undefined) checkFrame(frame, this.#ours.received++, this.configuration.lengths);
  }

  daemonSteps(): string[] {
    return this.daemon.steps();
  }

  daemonStep(step: string): void {
    this.daemon.step(step);
  }

  done(): boolean {
    return this.#ours.received === this.configuration.lengths.length && this.daemon.state.at === 'idle';
  }

  check(): void {
    if (this.configuration.patient !== true) checkEmpty(this.memory);
  }
}

function openRing({ ring }: Configuration, memory: MemoryRing, mutation: Mutation | undefined): Ring {
  return memory.open(ring, mutation?.storage?.(memory, memory));
}

/** For libqb equal pointers with a count mean full. */
function checkEmpty(memory: MemoryRing): void {
  const { writePointer, readPointer, semaphore } = memory.state;
  if (writePointer === readPointer && semaphore > 0)
    throw new Violation(`the ring is empty with semaphore ${semaphore}: the daemon takes it for full`);
}

function checkFrame(frame: Buffer, number: number, lengths: readonly number[]): void {
  const expected = lengths[number];
  if (expected === undefined) throw new Violation('a frame came twice');
  if (!frame.equals(messageOf(number, expected))) {
    throw new Violation(`frame ${number} came as ${frame.toString('hex')}`);
  }
}
