/** Connections that have nothing to do. */
import { connect, type ConnectOptions, type CpgClient } from '../client';

export interface IdleOptions {
  readonly connect: ConnectOptions;
  readonly group: string;
  readonly connections: number;
  readonly signal: AbortSignal;
}

export interface IdleResult {
  readonly connections: number;
  /** Memory of this process that came with each connection; the files of its rings are not in it. */
  readonly bytesPerConnection: number;
}

/**
 * Joins a group of its own with each connection (a process can join a group but once), tells the memory they
 * take, and holds them until the signal aborts.
 */
export async function holdIdle(options: IdleOptions, onHeld: (result: IdleResult) => void): Promise<void> {
  const { connect: connectOptions, group, connections, signal } = options;
  const clients: CpgClient[] = [];
  try {
    const before = process.memoryUsage.rss();
    for (let index = 0; index < connections && !signal.aborted; index++) {
      const client = await connect({ ...connectOptions, signal });
      clients.push(client);
      client.on('deliver', () => undefined);
      await client.join(`${group}-${index}`, { signal });
    }
    onHeld({
      connections: clients.length,
      bytesPerConnection: (process.memoryUsage.rss() - before) / clients.length,
    });
    if (!signal.aborted)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}
