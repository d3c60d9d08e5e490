// What a client does in its life, as a user's program on any runtime. Arguments: the address of a daemon, or 'embedded' for
// a server in this process; and the value of `mapped`. One line of JSON says how far it came: {"ok":true}, {"failed":...} or
// {"missing":...} when the machine has no provider for what was asked.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'corosync-cpg';

const [where, mapped] = process.argv.slice(2);
const EACH = 2000;
const LARGE_BYTES = 3 * 1024 * 1024;
/** What a small message begins with. */
const DIGIT = 0x30;
let step = 'start';

function check(fact, problem) {
  if (!fact) throw new Error(problem);
}

/** A client that keeps what it hears. */
async function member(address, pid) {
  const options = mapped === 'default' ? {} : { mapped: mapped === 'true' };
  const client = await connect({ address, pid, timeoutMs: 20_000, ...options });
  const heard = { order: [], members: 0, left: [], large: undefined };
  const changed = [];
  client.on('deliver', ({ pid, message }) => {
    if (message.length < LARGE_BYTES) heard.order.push(`${pid} ${message}`);
    else heard.large = message;
    for (const look of changed) look();
  });
  client.on('confchg', ({ members, left }) => {
    heard.members = members.length;
    heard.left.push(...left.map(({ pid, reason }) => `${pid} ${reason}`));
    for (const look of changed) look();
  });
  const until = (what, condition) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ${what} within 60 s`)), 60_000);
      const look = () => {
        if (!condition(heard)) return;
        clearTimeout(late);
        changed.splice(changed.indexOf(look), 1);
        resolve();
      };
      changed.push(look);
      look();
    });
  return { client, heard, until };
}

async function run() {
  let server;
  if (where === 'embedded') {
    step = 'startServer';
    const { startServer } = await import('corosync-cpg/server');
    server = await startServer();
  }
  const address = server?.address ?? where;
  const group = `matrix ${process.pid}`;
  const members = [];
  try {
    step = 'connect';
    for (const pid of [800_001, 800_002, 800_003]) members.push(await member(address, pid));
    const clients = members.map(({ client }) => client);
    if (mapped !== 'default') {
      const isMapped = readFileSync('/proc/self/maps', 'utf8').includes('/dev/shm/qb-');
      check(isMapped === (mapped === 'true'), `the rings are ${isMapped ? '' : 'not '}mapped`);
    }
    step = 'join';
    for (const client of clients) await client.join(group);
    for (const { until } of members) await until('three members', (heard) => heard.members === 3);
    step = 'messages';
    await Promise.all(
      clients.map(async (client) => {
        for (let number = 0; number < EACH; number++) {
          while (!client.tryMcast(String(number).padStart(8))) await once(client, 'drain');
        }
        await client.mcast('last', { confirm: true });
      }),
    );
    const total = 3 * (EACH + 1);
    for (const { until } of members) await until(`${total} messages`, ({ order }) => order.length >= total);
    for (const { heard } of members) {
      check(heard.order.length === total, `${heard.order.length} messages instead of ${total}`);
      check(heard.order.join() === members[0].heard.order.join(), 'members differ in the order of messages');
    }
    step = 'a message in fragments';
    const large = Buffer.alloc(LARGE_BYTES, (index) => DIGIT + (index % 10));
    for (let at = 0; at < large.length; at += 4096) large.writeUInt32LE(at, at);
    await clients[0].mcast(large, { confirm: true });
    for (const { until } of members) await until('the large message', (heard) => heard.large !== undefined);
    for (const { heard } of members) check(large.equals(heard.large), 'the large message came changed');
    step = 'questions';
    const pids = (await clients[1].membership()).map(({ pid }) => pid);
    check(pids.join() === '800001,800002,800003', `membership() says ${pids}`);
    check((await clients[1].localNodeId()) === 1, 'localNodeId() is not 1');
    let rows = 0;
    for await (const row of clients[1].groups({ group })) rows += row.group === group ? 1 : 0;
    check(rows === 3, `groups() has ${rows} rows`);
    step = 'leave';
    await clients[2].leave();
    await clients[1].close();
    await members[0].until('being alone', (heard) => heard.members === 1);
    check(members[0].heard.left.length === 2, `left: ${members[0].heard.left}`);
  } finally {
    for (const { client } of members) await client.close();
    await server?.close();
  }
}

run().then(
  () => console.log(JSON.stringify({ ok: true })),
  (error) => {
    const missing = error.code === 'CS_ERR_NOT_SUPPORTED';
    const said = `${step}: ${error.code ?? error.name} ${error.reason ?? ''} ${error.message}`.replace(
      /\s+/g,
      ' ',
    );
    console.log(JSON.stringify(missing ? { missing: `${error.code} (${error.reason})` } : { failed: said }));
  },
);
