/** From an address to a working transport. */
import { ConnectionType } from '../codec/handshake';
import { CpgError } from '../errors';
import { resolveAddress } from './address';
import { openConnectionFiles } from './connection-files';
import { ServiceSocket } from './service-socket';
import { ShmTransport } from './shm-transport';
import type { Transport } from './transport';

/** One try; see ServiceSocket.open for what it rejects with. */
export async function connectTransport(
  addressText: string | undefined,
  signal: AbortSignal,
): Promise<Transport> {
  const address = resolveAddress(addressText);
  const { service, answer, announced } = await ServiceSocket.open(address, signal);
  try {
    if (answer.connectionType === ConnectionType.SOCKET) {
      throw new CpgError(
        'CS_ERR_NOT_SUPPORTED',
        `${address.text} uses datagram sockets (qb_ipc_type: socket)`,
        {
          remedy: 'set "qb_ipc_type: native" in the system section of corosync.conf and restart corosync',
        },
      );
    }
    return new ShmTransport(service, openConnectionFiles(answer), answer.maxMessageSize, announced);
  } catch (error) {
    service.socket.destroy();
    throw error;
  }
}
