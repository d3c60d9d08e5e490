/** From an address to a working transport. */
import { malformed } from '../codec/fields';
import { ConnectionType } from '../codec/handshake';
import { IPC_REQUEST_SIZE_BYTES } from '../codec/limits';
import { isCpgError } from '../errors';
import { mappedStorage } from '../ring/mapped-storage';
import { resolveAddress, type Address } from './address';
import { openConnectionFiles, removeUnopened } from './connection-files';
import { openDatagramTransport } from './datagram-connect';
import { ServiceSocket } from './service-socket';
import { ShmTransport } from './shm-transport';
import type { Transport, TransportOptions } from './transport';

/** One try; see ServiceSocket.open for what it rejects with. */
export async function connectTransport(
  addressText: string | undefined,
  signal: AbortSignal,
  options: TransportOptions = { mapped: false, lend: false, busyPollUs: 0, coalesceMs: 0 },
): Promise<Transport> {
  const address = resolveAddress(addressText);
  const store = mappedStorage(options.mapped);
  const { service, answer, announced } = await openSocket(address, signal);
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

/** Where nobody listens at the first place of a '@name' that is a file here, somebody may at another. */
async function openSocket(address: Address, signal: AbortSignal): ReturnType<typeof ServiceSocket.open> {
  const [next, ...others] = address.others ?? [];
  try {
    return await ServiceSocket.open(address, signal);
  } catch (error) {
    if (next === undefined || !isCpgError(error) || error.reason !== 'no-daemon') throw error;
    return openSocket({ text: address.text, path: next, others }, signal);
  }
}
