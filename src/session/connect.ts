/** Opens a transport, and retries while the daemon is still starting. */
import { debugSession as debug } from '../debug';
import { connectTransport } from '../transport/connect';
import { isTransient } from '../transport/service-socket';
import type { Transport, TransportOptions } from '../transport/transport';
import { Backoff, type Deadline } from './deadline';

export async function openTransport(
  address: string | undefined,
  limit: Deadline,
  options?: TransportOptions,
): Promise<Transport> {
  const backoff = new Backoff();
  for (;;) {
    try {
      return await connectTransport(address, limit.signal, options);
    } catch (error) {
      if (!isTransient(error)) throw error;
      debug('connect: %s', error.message);
      limit.lastAnswer = error;
    }
    await backoff.pause(limit.signal);
  }
}
