/**
 * The reader of the request ring: an embedded server. It follows the same rules as a client that reads events
 * (docs/protocol.md): many chunks at once, one byte on the service socket for each.
 */
import { EventReader } from './event-reader';

export class RequestReader extends EventReader {
  /** Flow control: asks the client not to send, or to send again. */
  hold(on: boolean): void {
    this.ring.setUserData(on ? 1 : 0);
  }
}
