// One member process of the demo. It talks to its parent over the channel that fork() gives: what it saw goes
// up, what it shall do next comes down.
import { once } from 'node:events';
import { connect, Reason } from 'corosync-cpg';

const [group, name, members, messages] = process.argv.slice(2);
// A parent that is gone hears nothing more; then this ends, too.
const tell = (what) => process.send(what, () => undefined);
process.once('disconnect', () => process.exit());
const reasonName = (reason) =>
  Object.keys(Reason)
    .find((key) => Reason[key] === reason)
    ?.toLowerCase();
const list = (addresses) => addresses.map(({ nodeId, pid }) => `${nodeId}:${pid}`).join(' ');

try {
  const client = await connect();
  tell({ type: 'connected', text: `as ${client.nodeId}:${client.pid} (node:pid)` });
  const order = [];
  let everybodyIsHere;
  const complete = new Promise((resolve) => (everybodyIsHere = resolve));

  client.on('confchg', (event) => {
    const changes = [...event.joined, ...event.left].map(
      ({ nodeId, pid, reason }) => `${nodeId}:${pid} ${reasonName(reason)} (${reason})`,
    );
    tell({ type: 'confchg', text: `${changes.join(', ')}; members now: ${list(event.members)}` });
    if (event.members.length === Number(members)) everybodyIsHere();
  });
  client.on('deliver', ({ message }) => {
    order.push(message.toString());
    if (order.length === members * messages) tell({ type: 'order', order });
  });

  await client.join(group);
  await complete;
  for (let number = 1; number <= messages; number++) await client.mcast(`${name}-${number}`);

  const [command] = await once(process, 'message');
  if (command === 'join again') {
    await client.join(group).catch((error) => tell({ type: 'refused', text: error.message }));
    await once(process, 'message');
  }
  await client.leave();
  await client.close();
  if (process.connected) process.disconnect();
} catch (error) {
  tell({ type: 'failed', text: error.message });
  process.exitCode = 1;
  if (process.connected) process.disconnect();
}
