/**
 * Keeps confirmed messages apart from unconfirmed ones in the order of our messages: see in-flight.ts. A fence is
 * a fragment, so the daemon answers it; until then nothing else may be sent.
 */
import { encodePartialMcastHeader, FragmentType, Guarantee, RequestId } from '../codec/requests';
import type { CpgResponse } from '../codec/responses';
import { debugMessage } from '../debug';
import { codeOf, CpgError, CS_OK } from '../errors';
import type { Transport } from '../transport/transport';
import { Backoff } from './deadline';
import type { InFlight } from './in-flight';
import type { AwaitingReply, JobHost } from './jobs';

/** One byte is promised, because libcpg would allocate none for an empty message, and none is sent. */
const FIELDS = {
  type: 'partialMcast' as const,
  guarantee: Guarantee.AGREED,
  messageLength: 1,
  fragmentLength: 0,
  fragmentType: FragmentType.FIRST,
};

export class Fence implements AwaitingReply {
  readonly requestId = RequestId.partialMcast;
  readonly #host: JobHost;
  readonly #transport: Transport;
  readonly #inFlight: InFlight;
  #backoff = new Backoff();
  #state: 'idle' | 'sent' | 'paused' = 'idle';
  #pause: NodeJS.Timeout | undefined;
  #refusal: CpgError | undefined;

  constructor(host: JobHost, transport: Transport, inFlight: InFlight) {
    this.#host = host;
    this.#transport = transport;
    this.#inFlight = inFlight;
  }

  /**
   * Whether a message may be sent now. False while a fence is needed first: it is sent, and host.resume() follows
   * when the daemon has answered. Throws the CpgError with which the daemon refused it.
   */
  passes(confirmed: boolean): boolean {
    if (this.#state !== 'idle') return false;
    const refusal = this.#refusal;
    this.#refusal = undefined;
    if (!this.#inFlight.needsFence(confirmed)) return true;
    if (refusal !== undefined) throw refusal;
    this.#send();
    return false;
  }

  onReply({ error }: CpgResponse): void {
    this.#state = 'idle';
    if (error === CS_OK) {
      this.#backoff = new Backoff();
      return;
    }
    this.#inFlight.fenceRefused();
    if (codeOf(error) !== 'CS_ERR_TRY_AGAIN') {
      this.#refusal = CpgError.fromReply(error, 'mcast');
      return;
    }
    this.#state = 'paused';
    this.#pause = setTimeout(() => {
      this.#state = 'idle';
      this.#host.resume();
    }, this.#backoff.pauseMs);
  }

  /** The connection ended. */
  fail(): void {
    clearTimeout(this.#pause);
  }

  #send(): void {
    if (!this.#host.claimReply(this)) return;
    const head = encodePartialMcastHeader(FIELDS);
    if (!this.#transport.stage(head, [], head.length)) {
      this.#host.releaseReply();
      return;
    }
    debugMessage('>', FIELDS);
    this.#state = 'sent';
    this.#inFlight.fenceSent();
    this.#host.replyExpected();
  }
}
