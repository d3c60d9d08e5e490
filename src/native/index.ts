/**
 * The entry to functions that Node lacks: mapping files, waking a process that sleeps on a mapped word, and AF_UNIX
 * datagram sockets. All of it is optional, and optional packages are only loaded on first use.
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

/** A provider of datagram sockets. */
export interface Datagrams {
  /** Throws CpgError for a bad name, or the system error. */
  open(options: DatagramOptions): DatagramSocket;
  /** Most providers can also map files. */
  readonly mapper: Mapper | undefined;
}

/** A provider of datagram sockets with addresses of this kind; undefined if there is none. */
export function findDatagrams(kind: DatagramAddress['kind']): Datagrams | undefined {
  const libc = findLibc({ quiet: false });
  if (libc !== undefined) {
    return { open: (options) => openLibcDatagram(libc, options), mapper: mapperOf(libc) };
  }
  if (kind === 'path' && whyNoUnixDgram() === undefined) return { open: openUnixDgram, mapper: undefined };
  return undefined;
}

/** The error if there is no provider. */
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

/** The state of a provider, for `cpg info`. */
export interface ProviderState {
  readonly name: LibcProvider | 'unix-dgram';
  /** Why it cannot be used, in one line; undefined if it can. */
  readonly whyNot: string | undefined;
  readonly brings: string;
}

/** The states of all providers, in order of preference. */
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
