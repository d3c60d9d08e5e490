/** Real clients on a fake daemon, and the clean-up after each test. */
import { connect, type ConnectOptions, type CpgClient } from '../../src';
import { openDescriptors, openedSince } from './descriptors';
import { FakeDaemon, type FakeConnection, type FakeDaemonOptions } from './fake-daemon';

/** Long enough for a busy machine to answer, short enough to wait for where a test runs into it. */
export const SHORT_MS = 300;

export interface Pair {
  client: CpgClient;
  connection: FakeConnection;
}

/** One per test file: starts daemons and clients, and stops them all after each test. */
export class ClientHarness {
  #daemons: FakeDaemon[] = [];
  #clients: CpgClient[] = [];
  #descriptors: string[] = [];

  /** Registers the clean-up, which also sees to it that nothing is left open or lying around. */
  constructor() {
    beforeEach(() => {
      this.#descriptors = openDescriptors();
    });
    afterEach(async () => {
      const clients = this.#clients.splice(0);
      const daemons = this.#daemons.splice(0);
      for (const daemon of daemons) for (const connection of daemon.connections) connection.release();
      await Promise.all(clients.map((client) => client.close()));
      await Promise.all(daemons.map((daemon) => daemon.idle()));
      const leftovers = daemons.flatMap((daemon) => daemon.leftovers);
      await Promise.all(daemons.map((daemon) => daemon.stop()));
      expect(leftovers).toEqual([]);
      expect(openedSince(this.#descriptors)).toEqual([]);
    });
  }

  async daemon(options: FakeDaemonOptions = {}): Promise<FakeDaemon> {
    const daemon = await FakeDaemon.start(options);
    this.#daemons.push(daemon);
    return daemon;
  }

  /** A client that has not joined. */
  async unjoined(options: ConnectOptions = {}, daemonOptions: FakeDaemonOptions = {}): Promise<Pair> {
    const daemon = await this.daemon(daemonOptions);
    const client = await connect({ address: daemon.address, timeoutMs: 5000, ...options });
    this.#clients.push(client);
    return { client, connection: daemon.connection };
  }

  /** A member of the group 'g'. */
  async joined(options: ConnectOptions = {}, daemonOptions: FakeDaemonOptions = {}): Promise<Pair> {
    const pair = await this.unjoined(options, daemonOptions);
    await pair.client.join('g');
    return pair;
  }
}

/** Settles to 'pending' unless `promise` does within the turns of the event loop that rings are looked at in. */
export async function stateOf(promise: Promise<unknown>): Promise<'pending' | 'resolved' | 'rejected'> {
  let state: 'pending' | 'resolved' | 'rejected' = 'pending';
  promise.then(
    () => (state = 'resolved'),
    () => (state = 'rejected'),
  );
  await turns();
  return state;
}

/** Enough turns of the event loop for what was sent to arrive and to be answered. */
export async function turns(count = 60): Promise<void> {
  for (let index = 0; index < count; index++) await new Promise((resolve) => setImmediate(resolve));
}
