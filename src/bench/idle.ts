/** Idle connections. */
import { readFileSync } from 'node:fs';
import { groupBytes } from '../codec/groups';
import { connect, type ConnectOptions, type CpgClient } from '../client';

export interface IdleOptions {
  readonly connect: ConnectOptions;
  readonly group: string | Uint8Array;
  readonly connections: number;
  readonly signal: AbortSignal;
}

export interface IdleResult {
  readonly connections: number;
  /** Memory of this process per connection, without the files of its rings. */
  readonly bytesPerConnection: number;
}

/**
 * Joins a separate group with each connection (a process can join a group only once), reports their memory, and holds them
 * until the signal aborts.
 */
export async function holdIdle(options: IdleOptions, onHeld: (result: IdleResult) => void): Promise<void> {
  const { connect: connectOptions, group, connections, signal } = options;
  const clients: CpgClient[] = [];
  try {
    const before = ownMemoryBytes();
    for (let index = 0; index < connections && !signal.aborted; index++) {
      const client = await connect({ ...connectOptions, signal });
      clients.push(client);
      client.on('deliver', () => undefined);
      await client.join(Buffer.concat([groupBytes(group), Buffer.from(`-${index}`)]), { signal });
    }
    onHeld({
      connections: clients.length,
      bytesPerConnection: (ownMemoryBytes() - before) / clients.length,
    });
    if (!signal.aborted)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}

/** Private resident memory: without code and the rings, which may be mapped. */
function ownMemoryBytes(): number {
  const [, kibibytes = NaN] = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return Number(kibibytes) * 1024;
}
