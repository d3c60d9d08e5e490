/**
 * Wakes the daemon when it may hold events back.
 *
 * Events that find no room in our ring wait in the daemon's memory. It looks at them again when its loop wakes, and
 * when nothing else happens that is as late as 50 ms after there is room, for each ring full. Any frame wakes it. When
 * none goes out, this sends a small request, and drops the reply.
 *
 * A request in flight may have been read before there was room, so it does not count: after its reply the question is
 * asked again. What the user sends comes first, so the nudge waits for the end of the turn, and holds nothing up: it
 * is not in the outbox, and has no deadline. A daemon that never answers keeps the place of the request in flight, as
 * it would with any other.
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

  /** To be called whenever it may be wanted and could go. */
  consider(): void {
    if (this.#turn !== undefined || !this.transport.wantsWakeUp) return;
    this.#turn = setImmediate(() => {
      this.#turn = undefined;
      // Flow control may hold it: consider() is called when that ends.
      if (this.transport.wantsWakeUp && this.requests.stage(this, this.#frame, [], this.#frame.length))
        debugMessage('>', REQUEST);
    });
  }

  onReply(): void {
    // It was the waking that mattered.
  }
}
