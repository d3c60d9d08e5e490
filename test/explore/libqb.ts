/**
 * libqb's side of a ring, one access to shared memory a step: qb_rb_chunk_alloc() and _commit() for a writer,
 * qb_ipcs_dispatch_connection_request() with qb_rb_chunk_peek() and _reclaim() for a reader. Written from what libqb
 * 2.0.6 and corosync 3.1.7 do, with none of the code under src/.
 */
import { messageOf, type MemoryRing } from './shared';
import { Violation } from './search';

const COMMITTED = 0xa1a1a1a1;
const BEING_WRITTEN = 0xa110ced0;
const DEAD = 0xd0d0d0d0;

/** Bytes of wake-ups on the service socket that were sent and not yet received, each way. */
export interface Socket {
  toDaemon: number;
  toClient: number;
}

function after(pointer: number, length: number, words: number): number {
  return (pointer + 2 + Math.ceil(length / 4)) % words;
}

/** Takes requests: woken by a byte, a burst at a time, and then as many bytes as requests were taken. */
export class RequestReader {
  readonly state = {
    at: 'poll' as 'poll' | 'wait' | 'magic' | 'process' | 'clear' | 'dead' | 'reclaim' | 'receive bytes',
    /** Left of this burst. */
    available: 0,
    /** Taken in this burst. */
    taken: 0,
    /** Requests processed so far. */
    processed: 0,
    /** Where the next chunk begins. */
    next: 0,
    flowControl: 0,
    /** How often flow control may still come. */
    holdsLeft: 0,
  };

  constructor(
    private readonly ring: MemoryRing,
    private readonly socket: Socket,
    private readonly lengths: readonly number[],
    holds: number,
  ) {
    this.state.holdsLeft = holds;
  }

  steps(): string[] {
    const { state, socket } = this;
    switch (state.at) {
      case 'poll': {
        const steps: string[] = [];
        if (socket.toDaemon > 0 && state.flowControl === 0) {
          steps.push('a byte came: take what the semaphore counts');
          // The length of a burst depends on the load of totem.
          if (this.ring.state.semaphore > 1) steps.push('a byte came: take one');
        }
        if (state.flowControl !== 0) steps.push('flow control off');
        else if (state.holdsLeft > 0) steps.push('flow control on');
        return steps;
      }
      case 'process':
        return state.holdsLeft > 0 ? ['process', 'process, and flow control on'] : ['process'];
      case 'receive bytes':
        return socket.toDaemon >= state.taken ? [`receive ${state.taken} bytes`] : [];
      default:
        return [state.at];
    }
  }

  step(name: string): void {
    const { state, ring } = this;
    const shared = ring.state;
    const pointer = shared.readPointer;
    switch (state.at) {
      case 'poll':
        if (name.startsWith('flow')) {
          this.#hold(name.endsWith('on'));
          return;
        }
        if (shared.semaphore === 0)
          throw new Violation('a byte without a chunk: the daemon finds nothing in its queue');
        state.available = name.endsWith('one') ? 1 : shared.semaphore;
        state.taken = 0;
        state.at = 'wait';
        return;
      case 'wait':
        if (shared.semaphore === 0)
          throw new Violation('the semaphore counted a chunk and does not any more');
        shared.semaphore--;
        state.at = 'magic';
        return;
      case 'magic':
        if (ring.word(pointer + 1) !== COMMITTED)
          throw new Violation('the semaphore counts a chunk that is not there');
        state.at = 'process';
        return;
      case 'process':
        this.#process(pointer);
        if (name !== 'process') this.#hold(true);
        state.at = 'clear';
        return;
      case 'clear':
        state.next = after(pointer, ring.word(pointer), shared.data.length);
        ring.setWord(pointer, 0);
        state.at = 'dead';
        return;
      case 'dead':
        ring.setWord(pointer + 1, DEAD);
        state.at = 'reclaim';
        return;
      case 'reclaim':
        shared.readPointer = state.next;
        state.taken++;
        state.available--;
        state.at = state.available > 0 && state.flowControl === 0 ? 'wait' : 'receive bytes';
        return;
      case 'receive bytes':
        this.socket.toDaemon -= state.taken;
        state.taken = 0;
        state.available = 0;
        state.at = 'poll';
    }
  }

  #hold(on: boolean): void {
    this.state.flowControl = on ? 1 : 0;
    this.ring.state.userData = this.state.flowControl;
    if (on) this.state.holdsLeft--;
  }

  #process(pointer: number): void {
    const { state } = this;
    const expected = this.lengths[state.processed];
    if (expected === undefined) throw new Violation('a request came twice');
    const length = this.ring.word(pointer);
    const payload = this.ring.payload(pointer, Math.min(length, this.ring.state.data.length * 4));
    if (!payload.equals(messageOf(state.processed, expected))) {
      throw new Violation(`request ${state.processed} came as ${payload.toString('hex')}`);
    }
    state.processed++;
  }
}

/** Writes events or replies. */
export class ChunkWriter {
  readonly state = {
    at: 'idle' as
      | 'idle'
      | 'see space'
      | 'see semaphore'
      | 'clear'
      | 'allocate'
      | 'fill'
      | 'length'
      | 'advance'
      | 'commit'
      | 'post'
      | 'notify',
    /** Where the chunk in work begins. */
    chunk: 0,
    /** Chunks posted so far. */
    written: 0,
    /** Chunks there are to be written so far. */
    due: 0,
    /** outstanding_notifiers: bytes that found no room in the socket. */
    outstanding: 0,
  };

  constructor(
    private readonly ring: MemoryRing,
    private readonly lengths: readonly number[],
    /** For events: what is on the socket, and how much it holds. A reply has no byte, and is lost without room. */
    private readonly bytes?: { socket: Socket; capacity: number },
  ) {}

  steps(): string[] {
    const { state } = this;
    if (state.at !== 'idle') return [state.at];
    const steps: string[] = [];
    if (state.written < state.due) steps.push('write the next one');
    if (state.outstanding > 0 && this.#socketRoom > 0) steps.push('send what is outstanding');
    return steps;
  }

  step(name: string): void {
    const { state, ring } = this;
    const shared = ring.state;
    const length = this.lengths[state.written]!;
    const pointer = shared.writePointer;
    switch (state.at) {
      case 'idle':
        if (name === 'write the next one') state.at = 'see space';
        else this.#resend();
        return;
      case 'see space':
        if (pointer === shared.readPointer) state.at = 'see semaphore';
        else this.#decide((this.#distance(pointer, shared.readPointer) - 1) * 4 >= length + 12);
        return;
      case 'see semaphore':
        this.#decide(shared.semaphore === 0 && shared.data.length * 4 >= length + 12);
        return;
      case 'clear':
        ring.setWord(pointer, 0);
        state.at = 'allocate';
        return;
      case 'allocate':
        ring.setWord(pointer + 1, BEING_WRITTEN);
        state.at = 'fill';
        return;
      case 'fill':
        ring.setPayload(pointer, messageOf(state.written, length));
        state.at = 'length';
        return;
      case 'length':
        ring.setWord(pointer, length);
        state.at = 'advance';
        return;
      case 'advance':
        state.chunk = pointer;
        shared.writePointer = after(pointer, length, shared.data.length);
        state.at = 'commit';
        return;
      case 'commit':
        ring.setWord(state.chunk + 1, COMMITTED);
        state.at = 'post';
        return;
      case 'post':
        shared.semaphore++;
        state.written++;
        state.at = this.bytes === undefined ? 'idle' : 'notify';
        return;
      case 'notify':
        state.at = 'idle';
        if (state.outstanding > 0 || this.#socketRoom === 0) {
          state.outstanding++;
          this.#resend();
        } else {
          this.bytes!.socket.toClient++;
        }
    }
  }

  get #socketRoom(): number {
    return this.bytes === undefined ? 0 : this.bytes.capacity - this.bytes.socket.toClient;
  }

  #decide(room: boolean): void {
    this.state.at = room ? 'clear' : 'idle';
    if (room) return;
    // An event waits in corosync's queue and is tried again and again; a reply is dropped.
    if (this.bytes === undefined) throw new Violation('the daemon found no room and dropped the reply');
    this.#resend();
  }

  #resend(): void {
    const now = Math.min(this.state.outstanding, this.#socketRoom);
    this.state.outstanding -= now;
    if (this.bytes !== undefined) this.bytes.socket.toClient += now;
  }

  #distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + this.ring.state.data.length;
  }
}
