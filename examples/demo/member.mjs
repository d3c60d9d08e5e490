// One member process of the demo. It uses the channel of fork(): it reports to its parent what it saw, and receives
// commands.
import { once } from 'node:events';
import { connect, Reason } from 'corosync-cpg';

const [group, name, members, messages] = process.argv.slice(2);
// Errors are ignored: when the parent has ended, this process ends, too.
const report = (what) => process.send(what, () => undefined);
process.once('disconnect', () => process.exit());
const reasonName = (reason) =>
  Object.keys(Reason)
    .find((key) => Reason[key] === reason)
    ?.toLowerCase();
const list = (addresses) => addresses.map(({ nodeId, pid }) => `${nodeId}:${pid}`).join(' ');

try {
  const client = await connect();
  report({ type: 'connected', text: `as ${client.nodeId}:${client.pid} (node:pid)` });
  const order = [];
  let allPresent;
  const complete = new Promise((resolve) => (allPresent = resolve));

  client.on('confchg', (event) => {
    const changes = [...event.joined, ...event.left].map(
      ({ nodeId, pid, reason }) => `${nodeId}:${pid} ${reasonName(reason)} (${reason})`,
    );
    report({ type: 'confchg', text: `${changes.join(', ')}; members now: ${list(event.members)}` });
    if (event.members.length === Number(members)) allPresent();
  });
  client.on('deliver', ({ message }) => {
    order.push(message.toString());
    if (order.length === members * messages) report({ type: 'order', order });
  });

  await client.join(group);
  await complete;
  for (let number = 1; number <= messages; number++) await client.mcast(`${name}-${number}`);

  const [command] = await once(process, 'message');
  if (command === 'join again') {
    await client.join(group).catch((error) => report({ type: 'refused', text: error.message }));
    await once(process, 'message');
  }
  await client.leave();
  await client.close();
  if (process.connected) process.disconnect();
} catch (error) {
  report({ type: 'failed', text: error.message });
  process.exitCode = 1;
  if (process.connected) process.disconnect();
}
