// A program that is run as it is, and as bundles; `mapped` as argument asks for mapped rings.
import { connect, CpgError, Reason } from 'corosync-cpg';
import { decodeRequest, encodeRequest } from 'corosync-cpg/codec';
import { startServer } from 'corosync-cpg/server';
import { Tap } from 'corosync-cpg/tap';

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
