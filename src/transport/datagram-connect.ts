/** From the answer of a daemon in socket mode to a transport. */
import { malformed } from '../codec/fields';
import type { HandshakeResponse } from '../codec/handshake';
import { CpgError } from '../errors';
import { findDatagrams, noDatagrams } from '../native';
import type { DatagramAddress, DatagramSocket } from '../native/datagram';
import { systemError } from '../system-error';
import { openDatagramFiles, socketNames } from './datagram-files';
import { DatagramTransport } from './datagram-transport';
import { remedyOf } from './causes';
import type { ServiceSocket } from './service-socket';
import type { TransportOptions } from './transport';

/** The smallest SO_SNDBUF of Linux carries this much. */
const LEAST_FRAME_BYTES = 4096;

/** Throws CpgError; the service socket and the files are the caller's to remove then, and nothing else is left. */
export function openDatagramTransport(
  service: ServiceSocket,
  answer: HandshakeResponse,
  options: TransportOptions,
): DatagramTransport {
  const kind = answer.event === '' ? 'abstract' : 'path';
  const datagrams = findDatagrams(kind);
  if (datagrams === undefined) {
    throw noDatagrams(
      kind,
      'the daemon uses datagram sockets (qb_ipc_type: socket), and Node has none',
      'set "qb_ipc_type: native" in the system section of corosync.conf and restart corosync',
    );
  }
  const { maxMessageSize } = answer;
  if (maxMessageSize < LEAST_FRAME_BYTES) {
    throw malformed(`a largest frame of ${maxMessageSize} bytes`, `at least ${LEAST_FRAME_BYTES}`);
  }
  const names = socketNames(answer);
  const files = openDatagramFiles(answer, datagrams.mapper);
  const opened: DatagramSocket[] = [];
  const open = (local: DatagramAddress, remote: DatagramAddress): DatagramSocket => {
    const socket = datagrams.open({ local, remote, frameBytes: maxMessageSize });
    opened.push(socket);
    return socket;
  };
  try {
    // At once: a daemon that has something to send waits, and does nothing else, until these are bound.
    const sockets = {
      requests: open(names.response, names.request),
      events: open(names.event, names.eventTx),
    };
    const maxFrameBytes = Math.min(maxMessageSize, ...opened.map(({ maxBytes }) => maxBytes));
    return new DatagramTransport(service, files, sockets, maxFrameBytes, options);
  } catch (error) {
    for (const socket of opened) void socket.close();
    files.remove();
    throw datagramError(error, names.request);
  }
}

function datagramError(error: unknown, { name, kind }: DatagramAddress): CpgError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ECONNREFUSED' || code === 'ENOENT') {
    return new CpgError('CS_ERR_LIBRARY', `the daemon's datagram socket ${name} is not there (${code})`, {
      cause: error,
      reason: 'datagrams-not-there',
      remedy:
        kind === 'path'
          ? 'the daemon has just stopped, or its directory is another one here: see its log'
          : "datagrams do not leave a network namespace: run in the daemon's own, or set qb_ipc_type to native",
    });
  }
  return systemError(error, `cannot open the datagram socket ${name}`, {
    CS_ERR_EXIST: 'another program has taken the name of our socket: find out which one (ss -xp)',
    CS_ERR_NO_RESOURCES: remedyOf('too-many-files'),
  });
}
