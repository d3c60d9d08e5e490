/** From an address to a working transport. */
import { malformed } from '../codec/fields';
import { ConnectionType } from '../codec/handshake';
import { IPC_REQUEST_SIZE_BYTES } from '../codec/limits';
import { CpgError, isCpgError } from '../errors';
import { resolveAddress, type Address } from './address';
import { openDatagramTransport } from './datagram-connect';
import { openConnectionFiles, removeUnopened } from './connection-files';
import { mappedStorage } from './mapped-storage';
import { ServiceSocket } from './service-socket';
import { ShmTransport } from './shm-transport';
import type { Transport, TransportOptions } from './transport';

/** One try; see ServiceSocket.open for what it rejects with. */
export async function connectTransport(
  addressText: string | undefined,
  signal: AbortSignal,
  options: TransportOptions = { mapped: false, lend: false, busyPollUs: 0, restMs: 0 },
): Promise<Transport> {
  const address = resolveAddress(addressText);
  assertReachable(address);
  const store = mappedStorage(options.mapped);
  const { service, answer, announced } = await ServiceSocket.open(address, signal);
  try {
    if (answer.connectionType === ConnectionType.SOCKET) {
      return openDatagramTransport(service, answer, options);
    }
    // A daemon grants at least what we asked for, so its largest frame holds any message of ours and its header.
    if (answer.maxMessageSize < IPC_REQUEST_SIZE_BYTES) {
      throw malformed(
        `a largest frame of ${answer.maxMessageSize} bytes`,
        `at least ${IPC_REQUEST_SIZE_BYTES}`,
      );
    }
    const files = openConnectionFiles(answer, store);
    return new ShmTransport(service, files, answer.maxMessageSize, announced, options);
  } catch (error) {
    service.socket.destroy();
    // The daemon removes what it made, unless it dies. What is not ours stays as it is.
    if (!isCpgError(error) || error.code !== 'CS_ERR_SECURITY') removeUnopened(answer);
    throw error;
  }
}

/** Before 20.8, Node cuts the name of a socket at the first NUL, with which every abstract name begins. */
function assertReachable(address: Address): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (address.path.startsWith('/') || major > 20 || (major === 20 && minor >= 8)) return;
  throw new CpgError(
    'CS_ERR_NOT_SUPPORTED',
    `Node ${process.versions.node} cannot reach the abstract socket ${address.text}`,
    {
      reason: 'old-node',
      remedy: "use Node 20.8 or later, or a filesystem socket ('/path')",
    },
  );
}
