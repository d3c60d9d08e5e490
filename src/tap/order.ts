/** The order in which the frames of one round are handed out: causes before what they caused. */
import { frameId } from '../codec/header';
import type { TapFrame } from './frames';
import { expectsReply } from './services';

/** What was new in the rings of one connection. */
export interface Round {
  request: TapFrame[];
  response: TapFrame[];
  event: TapFrame[];
}

/**
 * A client asks one thing at a time, so each request that is answered is followed by its answer. Events come
 * last: a message is delivered after it was sent, and to several connections at once.
 */
export function orderByCause(rounds: readonly Round[]): TapFrame[] {
  const frames: TapFrame[] = [];
  for (const { request, response } of rounds) {
    // More requests than answers: the last ones wait. More answers: the first ones belong to earlier rounds.
    const asking = request.reduce((count, frame) => count + (asks(frame) ? 1 : 0), 0);
    let answered = Math.max(0, response.length - asking);
    frames.push(...response.slice(0, answered));
    for (const frame of request) {
      frames.push(frame);
      if (asks(frame) && answered < response.length) frames.push(response[answered++]!);
    }
  }
  for (const { event } of rounds) for (const frame of event) frames.push(frame);
  return frames;
}

function asks({ connection, bytes }: TapFrame): boolean {
  return bytes.length >= 4 && expectsReply(connection.service, frameId(bytes));
}
