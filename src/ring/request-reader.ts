/**
 * The request ring, seen from its reader: an embedded server. It reads by the rules by which a client reads its events
 * (docs/protocol.md): many chunks at once, each by its byte on the service socket.
 */
import { EventReader } from './event-reader';

export class RequestReader extends EventReader {
  /** Flow control: asks the client not to send, or to send again. */
  hold(on: boolean): void {
    this.ring.setUserData(on ? 1 : 0);
  }
}
