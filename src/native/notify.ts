/** sd_notify(3): tells the service manager that a service is ready. */
import { closeSync, writeSync } from 'node:fs';
import { debugTransport as debug } from '../debug';
import { connectedDatagram, type DatagramAddress } from './datagram';
import { findLibc } from './libc';
import { notifyByUnixDgram, whyNoUnixDgram } from './unix-dgram';

const READY = 'READY=1';

/**
 * Says READY where NOTIFY_SOCKET of the environment names somebody who waits for it and there is something that can;
 * returns whether it did. What goes wrong is no trouble of the service's.
 */
export function notifyReady(env: Readonly<Record<string, string | undefined>>): boolean {
  const given = env['NOTIFY_SOCKET'] ?? '';
  if (!/^[@/]./s.test(given)) return false;
  const address: DatagramAddress = given.startsWith('/')
    ? { kind: 'path', name: given }
    : { kind: 'abstract', name: given.slice(1) };
  try {
    const libc = findLibc({ quiet: false });
    if (libc !== undefined) {
      const fd = connectedDatagram(libc, address);
      try {
        writeSync(fd, READY);
      } finally {
        closeSync(fd);
      }
      return true;
    }
    if (address.kind === 'abstract' || whyNoUnixDgram() !== undefined) return false;
    notifyByUnixDgram(address, READY);
    return true;
  } catch (error) {
    debug('NOTIFY_SOCKET %s: %s', given, (error as Error).message);
    return false;
  }
}
