import { connect, CpgError } from 'corosync-cpg';
import { SimulatedCluster } from 'corosync-cpg/server';
import { afterEach, beforeEach, expect, test } from 'vitest';

let cluster;
beforeEach(async () => {
  cluster = await SimulatedCluster.start({ nodes: 2 });
});
afterEach(() => cluster.stop());

test.each([false, true])('a client (mapped: %s)', async (mapped) => {
  const client = await connect({ address: cluster.node(2).address, mapped });
  await client.join('g');
  await client.mcast('hello', { confirm: true });
  await expect(client.join('g')).rejects.toBeInstanceOf(CpgError);
  await client.close();
});
