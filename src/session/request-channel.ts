/**
 * Requests and their replies. A reply has no number, so only one request is in flight at a time. It stays in flight
 * until its reply comes, even if the caller has given up: a late reply must not be taken for another one.
 */
import { frameId } from '../codec/header';
import { encodeRequest, RequestId, type CpgRequest } from '../codec/requests';
import {
  decodeResponse,
  RESPONSE_ID_OF,
  ResponseId,
  type CpgResponse,
  type ResponseType,
} from '../codec/responses';
import { debugMessage, debugSession as debug } from '../debug';
import { CpgError, CS_OK, isCpgError } from '../errors';
import type { Transport } from '../transport/transport';
import { Backoff, Deadline, throwIfAborted, untilAborted } from './deadline';
import { deferred } from './deferred';
import { DEADLINE_BYTES, type Job, type Outbox } from './outbox';

/** A frame whose reply is awaited. */
export interface Exchange {
  readonly requestId: number;
  onReply(response: CpgResponse): void;
  /** The reply will not come. */
  fail?(error: Error): void;
}

export type SuccessfulReply<Type extends ResponseType> = Extract<
  CpgResponse,
  { type: Type; error: typeof CS_OK }
>;

export class RequestChannel {
  readonly #transport: Transport;
  readonly #outbox: Outbox;
  readonly #timeoutMs: number;
  #exchange: Exchange | undefined;

  constructor(transport: Transport, outbox: Outbox, timeoutMs: number) {
    this.#transport = transport;
    this.#outbox = outbox;
    this.#timeoutMs = timeoutMs;
  }

  /** No request is in flight. */
  get idle(): boolean {
    return this.#exchange === undefined;
  }

  /** Runs the work of a user's call, limited by its deadline and `signal`. */
  async call<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (limit: Deadline) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal);
    const deadline = new Deadline(what, this.#timeoutMs, signal);
    try {
      return await untilAborted(work(deadline), deadline.signal);
    } finally {
      deadline.dispose();
    }
  }

  /** A call that is a single request and changes no state. */
  query<Type extends ResponseType>(
    what: string,
    request: CpgRequest,
    expected: Type,
    signal?: AbortSignal,
  ): Promise<SuccessfulReply<Type>> {
    return this.call(what, signal, (limit) => this.ask(what, request, expected, limit));
  }

  /**
   * Sends a request until it succeeds: repeats it after a pause on CS_ERR_TRY_AGAIN and CS_ERR_BUSY, and throws any
   * other error. Awaits the reply to a request in flight even after `limit`.
   */
  async ask<Type extends ResponseType>(
    what: string,
    request: CpgRequest,
    expected: Type,
    limit: Deadline,
  ): Promise<SuccessfulReply<Type>> {
    const backoff = new Backoff();
    for (;;) {
      limit.signal.throwIfAborted();
      debugMessage('>', request);
      const reply = await this.#outbox.run(this.#job(request), limit.signal);
      if (reply.error === CS_OK) {
        if (reply.type !== expected) throw unexpected(reply, expected);
        return reply as SuccessfulReply<Type>;
      }
      const refusal = CpgError.fromReply(reply.error, what);
      if (refusal.code !== 'CS_ERR_TRY_AGAIN' && refusal.code !== 'CS_ERR_BUSY') throw refusal;
      debug('%s', refusal.message);
      limit.lastAnswer = refusal;
      await backoff.pause(limit.signal);
    }
  }

  /** A request that waits for its turn, then for its reply. Once in flight, only the channel settles it. */
  #job(request: CpgRequest): Job<CpgResponse> {
    const { promise, resolve, reject } = deferred<CpgResponse>();
    const frame = encodeRequest(request);
    const exchange = { requestId: RequestId[request.type], onReply: resolve, fail: reject };
    let inFlight = false;
    return {
      done: promise,
      bytes: frame.length + DEADLINE_BYTES,
      hasDeadline: true,
      cancelled: false,
      advance: () => (inFlight = this.stage(exchange, frame, [], frame.length)),
      fail: (error) => {
        if (!inFlight) reject(error);
      },
    };
  }

  /** Stages a frame that has a reply. False when another request is in flight, or there is no room. */
  stage(exchange: Exchange, head: Buffer, parts: readonly Uint8Array[], length: number): boolean {
    if (this.#exchange !== undefined) return false;
    // Before staging, which may end the connection.
    this.#exchange = exchange;
    const staged = this.#transport.stage(head, parts, length);
    if (staged) this.#transport.expectResponse();
    else this.#exchange = undefined;
    return staged;
  }

  /** The reply to the request in flight. */
  onResponse(frame: Buffer): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    try {
      const reply = decodeResponse(frame);
      debugMessage('<', reply);
      // The daemon answers any request it cannot take with id 0 and an error.
      const refused = frameId(frame) === ResponseId.join && reply.error !== CS_OK;
      if (
        exchange === undefined ||
        (!refused && ResponseId[reply.type] !== RESPONSE_ID_OF[exchange.requestId])
      ) {
        throw unexpected(reply, 'the one awaited');
      }
      exchange.onReply(reply);
    } catch (error) {
      // After one wrong reply, none can be trusted.
      const reason = isCpgError(error)
        ? error
        : new CpgError('CS_ERR_LIBRARY', 'a reply failed', { cause: error });
      exchange?.fail?.(reason);
      void this.#transport.close(reason);
    }
  }

  /** The connection ended. */
  end(error: Error): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    exchange?.fail?.(error);
  }
}

function unexpected(reply: CpgResponse, expected: string): CpgError {
  return new CpgError(
    'CS_ERR_MESSAGE_ERROR',
    `the daemon answered with ${reply.type} (error ${reply.error}), not with ${expected}`,
  );
}
