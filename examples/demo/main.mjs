// The demo: three processes join a group, exchange numbered messages and compare what they saw. Then one process is
// killed, and another one tries to join twice.
//
//     npm run demo                   on the embedded server: nothing to install, no root
//     npm run demo -- --corosync     on the local corosync, or on the one at CPG_ADDRESS
import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const NAMES = ['ann', 'ben', 'cleo'];
const MESSAGES = 4;
const DEADLINE_MS = 30_000;
const GROUP = `demo-${randomUUID().slice(0, 8)}`;

const { values } = parseArgs({ options: { corosync: { type: 'boolean', default: false } } });
const server = values.corosync
  ? undefined
  : await (await import('corosync-cpg/server')).startServer({ handleSignals: true });
const env = { ...process.env, ...(server && { CPG_ADDRESS: server.address }) };
console.log(server ? `embedded server on ${server.address}` : 'on corosync');

// The reader of the output has closed the pipe.
process.stdout.on('error', () => process.exit());

const say = (name, text) => console.log(`${name.padEnd(5)} ${text}`);

/** Starts a member process, and collects its reports. */
function startMember(name) {
  const program = fileURLToPath(new URL('member.mjs', import.meta.url));
  const child = fork(program, [GROUP, name, String(NAMES.length), String(MESSAGES)], { env });
  const reports = [];
  child.on('message', (report) => {
    reports.push(report);
    if (report.text !== undefined) say(name, `${report.type}: ${report.text}`);
    child.emit('report');
  });
  child.on('exit', () => child.emit('report'));
  /** Resolves with the first report that matches. */
  const until = async (matches) => {
    for (;;) {
      const found = reports.find(matches);
      if (found) return found;
      if (child.exitCode !== null || reports.some(({ type }) => type === 'failed'))
        throw new Error(`${name} ended early`);
      await once(child, 'report', { signal: AbortSignal.timeout(DEADLINE_MS) });
    }
  };
  return { name, child, until };
}

const members = NAMES.map(startMember);
try {
  console.log(`\n# Three processes join "${GROUP}" and send ${MESSAGES} messages each.`);
  const orders = await Promise.all(members.map(({ until }) => until(({ type }) => type === 'order')));
  members.forEach(({ name }, index) => say(name, `saw ${orders[index].order.join(' ')}`));
  const same = new Set(orders.map(({ order }) => order.join())).size === 1;
  if (!same) throw new Error('the members saw different orders');
  console.log('All three saw the same order.');

  const [ann, ben, cleo] = members;
  console.log(`\n# ${cleo.name} is killed (SIGKILL to process ${cleo.child.pid}).`);
  cleo.child.kill('SIGKILL');
  const death = ({ type, text }) => type === 'confchg' && text.includes('procdown');
  await Promise.all([ann, ben].map(({ until }) => until(death)));

  console.log(`\n# ${ann.name} joins a second time.`);
  ann.child.send('join again');
  await ann.until(({ type }) => type === 'refused');

  console.log('\n# The others leave.');
  for (const { child } of [ann, ben]) {
    child.send('leave');
    if (child.exitCode === null) await once(child, 'exit');
  }
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
} finally {
  for (const { child } of members) child.kill('SIGKILL');
  await server?.close();
}
