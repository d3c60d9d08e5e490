/**
 * Wakes the daemon when it may hold events back.
 *
 * Events that find no room in our ring wait in the daemon's memory. The daemon retries when its loop wakes: if nothing
 * else happens, up to 50 ms after there is room, for each ring full. Any frame wakes it. If none goes out, we send a
 * small request and drop the reply.
 *
 * The daemon may have read a request in flight before there was room, so that one does not count: we check again after
 * its reply. User messages come first: the nudge waits for the end of the turn, bypasses the outbox and has no
 * deadline. If the daemon never answers, it stays the request in flight, like any other.
 */
import { setImmediate } from '../clock';
import { encodeRequest, RequestId } from '../codec/requests';
import { debugMessage } from '../debug';
import type { Transport } from '../transport/transport';
import type { Exchange, RequestChannel } from './request-channel';

const REQUEST = { type: 'localGet' } as const;

export class Nudge implements Exchange {
  readonly requestId = RequestId.localGet;
  readonly #frame = encodeRequest(REQUEST);
  #turn: NodeJS.Immediate | undefined;

  constructor(
    private readonly transport: Transport,
    private readonly requests: RequestChannel,
  ) {}

  /** Call this whenever a nudge may be needed and possible. */
  consider(): void {
    if (this.#turn !== undefined || !this.transport.wantsWakeUp) return;
    this.#turn = setImmediate(() => {
      this.#turn = undefined;
      // Under flow control this fails; consider() is called when that ends.
      if (this.transport.wantsWakeUp && this.requests.stage(this, this.#frame, [], this.#frame.length))
        debugMessage('>', REQUEST);
    });
  }

  onReply(): void {
    // Only the wake-up matters.
  }
}
