/** The three kinds of things that are sent: a message, a request with a reply, a message in fragments. */
import {
  encodePartialMcastHeader,
  FragmentType,
  MCAST_HEADER_BYTES,
  PARTIAL_MCAST_HEADER_BYTES,
  RequestId,
  renewMcastHeader,
} from '../codec/requests';
import type { CpgResponse } from '../codec/responses';
import { debugMessage, showsMessages } from '../debug';
import { CpgError, CS_OK, codeOf } from '../errors';
import type { Transport } from '../transport/transport';
import { Backoff } from './deadline';
import { deferred } from './deferred';
import type { Job } from './outbox';

/** How often a large message is begun anew because the membership changed under it. */
const MAX_RESTARTS = 16;

/** A request whose reply is awaited: at most one per connection. */
export interface AwaitingReply {
  readonly requestId: number;
  onReply(response: CpgResponse): void;
  fail(error: Error): void;
}

/** What a job needs from the session. */
export interface JobHost {
  /** Takes the one place of a request in flight; false while another has it. */
  claimReply(waiting: AwaitingReply): boolean;
  /** Gives it back when the request could not be staged after all. */
  releaseReply(): void;
  /** The request was staged: its reply is to be awaited. */
  replyExpected(): void;
  /** Hands a message to the transport; false when it has to wait. Throws when it cannot be sent at all. */
  stageMessage(message: OutgoingMessage): boolean;
  /** A message was staged: the promise that it reached the daemon's ring. */
  messageStaged(message: OutgoingMessage): Promise<void>;
  /** The last fragment of a message was staged, so the message may come back from now on. */
  largeSent(message: OutgoingMessage): void;
  /** The daemon refused that fragment. */
  largeRefused(): void;
  /** A paused job may go on. */
  resume(): void;
}

export interface OutgoingMessage {
  readonly parts: readonly Uint8Array[];
  readonly length: number;
  readonly guarantee: number;
  /** Called once it is known that the message cannot be delivered any more, or was. */
  readonly confirm?: { resolve: () => void; reject: (error: Error) => void } | undefined;
}

/** Messages made by allocMessage(), and the memory around them. */
const preparedMemory = new WeakMap<Uint8Array, { memory: Buffer; headroomBytes: number }>();

const WORD_BYTES = 4;

/** Memory for a message with room for all headers before it, so that it goes out without a copy. */
export function allocMessage(transport: Transport, size: number): Buffer {
  const { headroomBytes } = transport;
  const start = headroomBytes + MCAST_HEADER_BYTES;
  const memory = Buffer.alloc(Math.ceil((start + size) / WORD_BYTES) * WORD_BYTES);
  const message = memory.subarray(start, start + size);
  preparedMemory.set(message, { memory, headroomBytes });
  return message;
}

const mcastHeader = Buffer.alloc(MCAST_HEADER_BYTES);

/** Stages a message that fits one frame. False when there is no room. */
export function stageMessage(transport: Transport, message: OutgoingMessage): boolean {
  const staged = stageFrame(transport, message);
  if (staged && showsMessages()) {
    const { guarantee, length, parts } = message;
    const shown = { type: 'mcast', guarantee, length, parts };
    debugMessage('>', shown);
  }
  return staged;
}

function stageFrame(transport: Transport, { guarantee, length, parts }: OutgoingMessage): boolean {
  const frameLength = MCAST_HEADER_BYTES + length;
  const prepared = parts.length === 1 ? preparedMemory.get(parts[0]!) : undefined;
  if (prepared?.headroomBytes === transport.headroomBytes) {
    renewMcastHeader(prepared.memory, prepared.headroomBytes, guarantee, length);
    return transport.stagePrepared(prepared.memory, frameLength);
  }
  renewMcastHeader(mcastHeader, 0, guarantee, length);
  return transport.stage(mcastHeader, parts, frameLength);
}

/** An mcast that found no room, or came behind one that did not. */
export class MessageJob implements Job {
  readonly #sent = deferred<void>();
  readonly hasDeadline = false;
  cancelled = false;

  constructor(
    private readonly host: JobHost,
    private readonly message: OutgoingMessage,
  ) {}

  /** Resolves when the daemon's ring has the message. */
  get sent(): Promise<void> {
    return this.#sent.promise;
  }

  get bytes(): number {
    return this.message.length;
  }

  advance(): boolean {
    try {
      if (!this.host.stageMessage(this.message)) return false;
    } catch (error) {
      this.fail(error as Error);
      return true;
    }
    this.#sent.resolve(this.host.messageStaged(this.message));
    return true;
  }

  fail(error: Error): void {
    this.#sent.reject(error);
  }
}

/** A request and its reply. */
export class RequestJob implements Job, AwaitingReply {
  readonly #reply = deferred<CpgResponse>();
  readonly hasDeadline = true;
  cancelled = false;
  /** Staged: from now on its reply must be awaited. */
  started = false;

  constructor(
    private readonly host: JobHost,
    private readonly frame: Buffer,
    readonly requestId: number,
  ) {}

  get reply(): Promise<CpgResponse> {
    return this.#reply.promise;
  }

  get bytes(): number {
    return this.frame.length;
  }

  advance(transport: Transport): boolean {
    if (!this.host.claimReply(this)) return false;
    if (!transport.stage(this.frame, [], this.frame.length)) {
      this.host.releaseReply();
      return false;
    }
    this.started = true;
    this.host.replyExpected();
    return true;
  }

  onReply(response: CpgResponse): void {
    this.#reply.resolve(response);
  }

  fail(error: Error): void {
    this.#reply.reject(error);
  }
}

/**
 * A message larger than a frame: one fragment in flight, each answered. CS_ERR_TRY_AGAIN repeats the
 * fragment after a pause. CS_ERR_INTERRUPT means that the membership changed in the middle, and the members
 * forget what they have: the message begins anew, so that it arrives whole or not at all.
 */
export class FragmentedJob implements Job, AwaitingReply {
  readonly requestId = RequestId.partialMcast;
  readonly #sent = deferred<void>();
  readonly #whole: Buffer;
  readonly #fragmentBytes: number;
  #backoff = new Backoff();
  #pause: NodeJS.Timeout | undefined;
  #offset = 0;
  #restarts = 0;
  #state: 'ready' | 'inFlight' | 'paused' | 'done' = 'ready';
  readonly hasDeadline = true;
  cancelled = false;

  constructor(
    private readonly host: JobHost,
    private readonly message: OutgoingMessage,
    fragmentBytes: number,
    /** Called for each fragment the daemon took. */
    private readonly onProgress: () => void,
  ) {
    this.#fragmentBytes = fragmentBytes;
    this.#whole = Buffer.concat(message.parts, message.length);
  }

  get sent(): Promise<void> {
    return this.#sent.promise;
  }

  get bytes(): number {
    return this.message.length;
  }

  advance(transport: Transport): boolean {
    if (this.#state === 'done') return true;
    if (this.#state !== 'ready' || !this.host.claimReply(this)) return false;
    const fragment = this.#fragment();
    const fragmentType = this.#fragmentType(fragment.length);
    const { guarantee, length: messageLength } = this.message;
    const fields = {
      type: 'partialMcast',
      guarantee,
      messageLength,
      fragmentLength: fragment.length,
      fragmentType,
    };
    const head = encodePartialMcastHeader(fields);
    if (!transport.stage(head, [fragment], PARTIAL_MCAST_HEADER_BYTES + fragment.length)) {
      this.host.releaseReply();
      return false;
    }
    debugMessage('>', fields);
    this.#state = 'inFlight';
    this.host.replyExpected();
    // The message can be delivered before the reply to its last fragment is seen.
    if (fragmentType === FragmentType.LAST) this.host.largeSent(this.message);
    return false;
  }

  onReply(response: CpgResponse): void {
    if (response.error !== CS_OK && this.#fragmentType(this.#fragment().length) === FragmentType.LAST)
      this.host.largeRefused();
    if (this.cancelled) {
      this.#state = 'done';
    } else if (response.error === CS_OK) {
      this.#taken();
    } else if (codeOf(response.error) === 'CS_ERR_TRY_AGAIN') {
      this.#repeatLater();
    } else if (codeOf(response.error) === 'CS_ERR_INTERRUPT' && this.#restarts++ < MAX_RESTARTS) {
      this.#offset = 0;
      this.#state = 'ready';
    } else {
      this.fail(CpgError.fromReply(response.error, `mcast of ${this.message.length} bytes`));
    }
  }

  fail(error: Error): void {
    this.#state = 'done';
    clearTimeout(this.#pause);
    this.#sent.reject(error);
  }

  #taken(): void {
    this.onProgress();
    this.#backoff = new Backoff();
    this.#offset += this.#fragment().length;
    if (this.#offset < this.message.length) {
      this.#state = 'ready';
      return;
    }
    this.#state = 'done';
    this.#sent.resolve();
  }

  #repeatLater(): void {
    this.#state = 'paused';
    this.#pause = setTimeout(() => {
      if (this.#state !== 'paused') return;
      this.#state = this.cancelled ? 'done' : 'ready';
      this.host.resume();
    }, this.#backoff.pauseMs);
  }

  #fragment(): Buffer {
    return this.#whole.subarray(this.#offset, this.#offset + this.#fragmentBytes);
  }

  #fragmentType(fragmentLength: number): number {
    if (this.#offset === 0) return FragmentType.FIRST;
    return this.#offset + fragmentLength === this.message.length ? FragmentType.LAST : FragmentType.CONTINUED;
  }
}
