/** A process that has no descriptors left: a clear error, and the connections it has go on. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { startServer } from '../../src/server';

const run = promisify(execFile);

// Eight processes, one after the other.
jest.setTimeout(30_000);

/** What Node itself has open, and some connections. */
const LIMITS = Array.from({ length: 8 }, (_, index) => 60 + index);

test('connecting until no descriptor is left is CS_ERR_NO_RESOURCES, wherever that happens', async () => {
  const server = await startServer();
  const program = `
    const { connect } = require(${JSON.stringify(require.resolve('../../dist/index.js'))});
    (async () => {
      const clients = [];
      for (;;) {
        const client = await connect({ address: ${JSON.stringify(server.address)} }).catch((error) => error);
        if (client instanceof Error) {
          await clients[0].join('still');
          await clients[0].mcast('works', { confirm: true });
          await Promise.all(clients.map((one) => one.close()));
          await (await connect({ address: ${JSON.stringify(server.address)} })).close();
          console.log(client.message);
          return;
        }
        clients.push(client);
      }
    })();`;
  try {
    const seen = new Set<string>();
    for (const limit of LIMITS) {
      const command = `ulimit -n ${limit}; exec "$0" -e "$1"`;
      const { stdout } = await run('sh', ['-c', command, process.execPath, program]);
      expect(stdout).toMatch(/\(EMFILE\): CS_ERR_NO_RESOURCES \(18\): .*ulimit -n/);
      seen.add(stdout.startsWith('cannot connect') ? 'socket' : 'rings');
    }
    // Seven descriptors a connection: some of the limits are met by the socket, others by a ring.
    expect([...seen].sort()).toEqual(['rings', 'socket']);
  } finally {
    await server.close();
  }
});
