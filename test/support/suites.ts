/** Suites that need something of the machine: run there, and skipped with a sentence elsewhere. */
import { corosyncUnavailable } from './corosync';
import { peerUnavailable } from './peer';

/** A suite against a private real corosync. */
export function describeWithCorosync(name: string, body: () => void): void {
  describeUnless(corosyncUnavailable(), name, body);
}

/** A suite that also needs a libcpg program built on the spot. */
export function describeWithPeer(name: string, body: () => void): void {
  describeUnless(corosyncUnavailable() ?? peerUnavailable(), name, body);
}

function describeUnless(reason: string | undefined, name: string, body: () => void): void {
  if (reason === undefined) describe(name, body);
  else describe.skip(`${name} [skipped: ${reason}]`, body);
}
