/**
 * The output order of the frames of one round: requests before their replies, and replies before the client's next
 * request.
 *
 * Responses are read before requests, so a request can be seen whose predecessor's reply was not: the reply was
 * written, and consumed, and the next request sent, in between. Requests that follow an unanswered one therefore
 * wait for the next round, whose responses cannot lack that reply.
 */
import { frameId } from '../../codec/header';
import type { TapConnection } from '../connections';
import type { TapFrame } from '../frames';
import { expectsReply } from '../decode/services';

/** The new frames in the rings of one connection. */
export interface Round {
  request: TapFrame[];
  response: TapFrame[];
  event: TapFrame[];
}

interface State {
  /** Requests in the order so far whose reply was not seen yet. */
  unanswered: number;
  /** Requests of the round before that wait for a reply before them. */
  deferred: TapFrame[];
}

export class CausalOrder {
  readonly #states = new Map<TapConnection, State>();

  /** Whether anything waits for the next round. */
  get waiting(): boolean {
    for (const { deferred } of this.#states.values()) if (deferred.length > 0) return true;
    return false;
  }

  /** The frames of a round. Events come last: a message is delivered after it was sent. */
  order(rounds: ReadonlyMap<TapConnection, Round>, timeNs: bigint): TapFrame[] {
    const frames: TapFrame[] = [];
    for (const [connection, state] of this.#states) {
      if (state.deferred.length > 0 && !rounds.has(connection))
        this.#requests(connection, NOTHING, timeNs, frames);
    }
    for (const [connection, round] of rounds) this.#requests(connection, round, timeNs, frames);
    for (const { event } of rounds.values()) for (const frame of event) frames.push(frame);
    return frames;
  }

  /** What still waits, of a connection that is gone or of all of them. */
  flush(connection?: TapConnection): TapFrame[] {
    const states = [...this.#states].filter(
      ([candidate]) => connection === undefined || candidate === connection,
    );
    for (const [candidate] of states) this.#states.delete(candidate);
    return states.flatMap(([, { deferred }]) => deferred);
  }

  #requests(
    connection: TapConnection,
    { request, response }: Round,
    timeNs: bigint,
    frames: TapFrame[],
  ): void {
    const state = this.#states.get(connection) ?? { unanswered: 0, deferred: [] };
    this.#states.set(connection, state);
    // After a gap it is unknown which request waits for which reply.
    if ([...request.slice(0, 1), ...response.slice(0, 1)].some(({ missed }) => missed > 0))
      state.unanswered = 0;
    // A reply that was seen has a request that is in sight too, or was before: what is too many is older.
    const asking = [...state.deferred, ...request].reduce((count, frame) => count + (asks(frame) ? 1 : 0), 0);
    let answered = Math.max(Math.min(state.unanswered, response.length), response.length - asking);
    state.unanswered = Math.max(0, state.unanswered - answered);
    for (let index = 0; index < answered; index++) frames.push(response[index]!);
    const add = (frame: TapFrame): void => {
      frames.push(frame);
      if (!asks(frame)) return;
      if (answered < response.length) frames.push(response[answered++]!);
      else state.unanswered++;
    };
    const waited = state.deferred;
    state.deferred = [];
    for (const frame of waited) add({ ...frame, timeNs });
    for (const [index, frame] of request.entries()) {
      if (state.unanswered > 0) {
        // The memory of a round lasts until the next one.
        state.deferred = request.slice(index).map((late) => ({ ...late, bytes: Buffer.from(late.bytes) }));
        break;
      }
      add(frame);
    }
    for (; answered < response.length; answered++) frames.push(response[answered]!);
  }
}

const NOTHING: Round = { request: [], response: [], event: [] };

function asks({ connection, bytes }: TapFrame): boolean {
  return bytes.length >= 4 && expectsReply(connection.service, frameId(bytes));
}
