/** Says once, before all tests, which suites this machine cannot run and why. */
import { corosyncUnavailable } from './corosync';
import { peerUnavailable } from './peer';

export default function announceSkipped(): void {
  const withoutCorosync = corosyncUnavailable();
  if (withoutCorosync !== undefined) {
    say(`suites on a real corosync are skipped: ${withoutCorosync}`);
    return;
  }
  const withoutPeer = peerUnavailable();
  if (withoutPeer !== undefined) say(`suites with a libcpg program are skipped: ${withoutPeer}`);
}

function say(line: string): void {
  process.stderr.write(`\n${line}\n`);
}
