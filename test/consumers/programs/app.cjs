// app.mjs in CommonJS.
const { connect, CpgError, Reason } = require('corosync-cpg');
const { decodeRequest, encodeRequest } = require('corosync-cpg/codec');
const { startServer } = require('corosync-cpg/server');
const { Tap } = require('corosync-cpg/tap');

async function main() {
  const server = await startServer();
  try {
    const client = await connect({ address: server.address, mapped: process.argv[2] === 'mapped' });
    const heard = [];
    client.on('confchg', ({ joined }) => heard.push(joined[0].reason === Reason.JOIN));
    client.on('deliver', ({ message }) => heard.push(message.toString()));
    await client.join('orders');
    await client.mcast('hello', { confirm: true });
    const error = await client.join('orders').catch((refused) => refused);
    await client.close();
    const decoded = decodeRequest(encodeRequest({ type: 'localGet' })).type;
    console.log(heard.join(), error instanceof CpgError && error.reason, decoded, typeof new Tap().batches);
  } finally {
    await server.close();
  }
}

main().catch((error) => {
  console.log(error.code, error.reason);
  process.exitCode = 1;
});
