/** A client for the length of a command. */
import { connect, type CpgClient } from '../client';
import type { Context } from './command';

interface Connecting {
  address: string | undefined;
  /** How long connecting and each request may take; the client's default when undefined. */
  timeoutMs?: number | undefined;
}

/** Runs `work` with a client that is closed afterwards, whatever happens. */
export async function withClient(
  context: Context,
  { address, timeoutMs }: Connecting,
  work: (client: CpgClient) => Promise<void>,
): Promise<void> {
  const client = await connect({
    signal: context.signal,
    ...(address === undefined ? {} : { address }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  try {
    await work(client);
  } finally {
    await client.close();
  }
}
