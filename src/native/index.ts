/**
 * The one door to what Node cannot do by itself: mapping files, waking who sleeps on a word of them, and datagram sockets
 * of the AF_UNIX family. Nobody needs it to use the package; who goes through it loads what is behind it.
 */
import { CpgError } from '../errors';
import {
  openLibcDatagram,
  type DatagramAddress,
  type DatagramOptions,
  type DatagramSocket,
} from './datagram';
import { findLibc, isExperimental, LIBC_PROVIDERS, whyNot, type LibcProvider } from './libc';
import { mapperOf, type Mapper } from './mapping';
import { openUnixDgram, whyNoUnixDgram } from './unix-dgram';

/** Somebody who opens datagram sockets. */
export interface Datagrams {
  /** Throws CpgError for a name, and the error of the system. */
  open(options: DatagramOptions): DatagramSocket;
  /** Who can do that can map files as a rule. */
  readonly mapper: Mapper | undefined;
}

/** What reaches datagram sockets with names of this kind; undefined when nothing does. */
export function findDatagrams(kind: DatagramAddress['kind']): Datagrams | undefined {
  const libc = findLibc({ quiet: false });
  if (libc !== undefined) {
    return { open: (options) => openLibcDatagram(libc, options), mapper: mapperOf(libc) };
  }
  if (kind === 'path' && whyNoUnixDgram() === undefined) return { open: openUnixDgram, mapper: undefined };
  return undefined;
}

/** Why nothing reaches them. */
export function noDatagrams(kind: DatagramAddress['kind'], what: string, otherwise: string): CpgError {
  const reasons = LIBC_PROVIDERS.map((provider) => `${provider}: ${whyNot(provider)}`);
  if (kind === 'path') reasons.push(`unix-dgram: ${whyNoUnixDgram()}`);
  const packages =
    kind === 'path' ? 'koffi (version 3 or later) or unix-dgram' : 'koffi (version 3 or later)';
  return new CpgError('CS_ERR_NOT_SUPPORTED', what, {
    cause: new Error(reasons.join('; ')),
    reason: 'socket-mode',
    remedy: `npm install ${packages}; or use a Node that has node:ffi (26); or ${otherwise}`,
  });
}

/** A way to what Node cannot do, as `cpg info` shows it. */
export interface ProviderState {
  readonly name: LibcProvider | 'unix-dgram';
  /** In one line; undefined when it works. */
  readonly whyNot: string | undefined;
  readonly brings: string;
}

/** All of them, in the order in which they are used. */
export function providerStates(): ProviderState[] {
  const libc = LIBC_PROVIDERS.map((name) => ({
    name,
    whyNot: whyNot(name),
    brings: isExperimental(name)
      ? 'datagrams, and mapped rings when asked for (it is experimental)'
      : 'mapped rings, datagrams',
  }));
  return [...libc, { name: 'unix-dgram', whyNot: whyNoUnixDgram(), brings: 'datagrams by path' }];
}
