/** Three private corosync nodes with qb_ipc_type: socket, ours and libcpg together. */
import { once } from 'node:events';
import { connect, type CpgClient } from '../../src';
import { startCorosync } from '../support/corosync';
import { enterNetwork } from '../support/network-namespace';
import { DeliveryDigest, numberedMessage, startPeer } from '../support/peer';
import { describeWithPeer } from '../support/suites';

jest.setTimeout(240_000);

describeWithPeer('three nodes, by datagrams', () => {
  test('100,000 numbered messages of two clients and libcpg: one sequence, none lost', async () => {
    const cluster = await startCorosync({ nodes: 3, qbIpcType: 'socket' });
    const clients: CpgClient[] = [];
    try {
      const each = [33_333, 33_333, 33_334];
      const total = 100_000;
      const size = 64;
      // Sockets belong to the namespace in which they were opened.
      for (const nodeId of [1, 2]) {
        const { address, netns } = cluster.node(nodeId);
        const leave = enterNetwork(netns);
        try {
          clients.push(await connect({ address, pid: 700_000 + nodeId, timeoutMs: 60_000 }));
        } finally {
          leave();
        }
      }
      const digests = clients.map(() => new DeliveryDigest());
      const wrong: string[] = [];
      const complete = clients.map((client, index) => {
        const next = new Map<string, number>();
        return new Promise<void>((resolve) => {
          client.on('deliver', ({ nodeId, pid, message }) => {
            const sender = `${nodeId}:${pid}`;
            const number = message.readUInt32LE(0);
            if (number !== (next.get(sender) ?? 0)) wrong.push(`${sender} sent ${number} out of turn`);
            next.set(sender, number + 1);
            digests[index]!.add(nodeId, pid, message);
            if (digests[index]!.count === total) resolve();
          });
        });
      });
      const everybody = new Promise<void>((resolve) => {
        clients[0]!.on('confchg', ({ members }) => {
          if (members.length === 3) resolve();
        });
      });
      for (const client of clients) await client.join('mixed');
      const peer = await startPeer(cluster.node(3), 'mixed', {
        send: each[2]!,
        size,
        members: 3,
        expect: total,
        digest: true,
        stay: true,
        timeoutSeconds: 200,
      });
      await everybody;
      await Promise.all(
        clients.map(async (client, index) => {
          for (let number = 0; number < each[index]!; number++) {
            const message = numberedMessage(number, index + 1, client.pid, size);
            while (!client.tryMcast(message)) await once(client, 'drain');
          }
        }),
      );
      await Promise.all(complete);
      await peer.untilComplete(120_000);
      const { digest, received } = await peer.quit();
      expect(wrong).toEqual([]);
      expect(received).toBe(total);
      expect(digests.map((own) => own.hex())).toEqual([digest, digest]);
    } finally {
      await Promise.all(clients.map((client) => client.close()));
      await cluster.stop();
    }
  });
});
