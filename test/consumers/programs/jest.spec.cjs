const { connect } = require('corosync-cpg');
const { startServer } = require('corosync-cpg/server');

let server;
beforeEach(async () => {
  server = await startServer();
});
afterEach(() => server.close());

test.each([false, true])('a client (mapped: %s)', async (mapped) => {
  const client = await connect({ address: server.address, mapped });
  await client.join('g');
  await client.mcast('hello', { confirm: true });
  expect(await client.membership()).toHaveLength(1);
  await client.close();
});
