/** Members that do not read what they get. */
import { encodeRequest } from '../../src/codec/requests';
import { startServer, type CpgServer } from '../../src/server';
import { MAX_WAITING_BYTES } from '../../src/server/congestion';
import { MAX_QUEUED_EVENT_BYTES } from '../../src/server/connection';
import { Collector } from '../support/collector';
import { HostileClient } from './hostile-client';
import { eventually } from './leftovers';

const MIB = 1024 * 1024;
const MESSAGE = Buffer.alloc(64 * 1024, 'm');

let server: CpgServer;

beforeEach(async () => {
  server = await startServer();
});

afterEach(() => server.close());

test('one that has stopped delays nobody, and is dropped when too much waits for it', async () => {
  const sender = await server.connect();
  const reader = await server.connect();
  const seen = new Collector(reader);
  const frozen = await HostileClient.connect(server.address, false);
  frozen.send(encodeRequest({ type: 'join', group: Buffer.from('g'), pid: 77, flags: 0 }));
  await sender.join('g');
  await reader.join('g');
  await seen.until('three members', ({ confchgs }) => confchgs.at(-1)?.members.length === 3);
  const count = (80 * MIB) / MESSAGE.length;
  let slowestMs = 0;
  for (let sent = 0; sent < count; sent++) {
    const before = performance.now();
    await sender.mcast(MESSAGE, { confirm: true });
    slowestMs = Math.max(slowestMs, performance.now() - before);
  }
  await seen.until('all messages', ({ deliveries }) => deliveries.length === count);
  // Once it is held up for as long as the frozen one might still be alive.
  expect(slowestMs).toBeLessThan(1500);
  await eventually('the drop of the frozen one', () => server.node.clients === 2);
  frozen.socket.destroy();
  await seen.until('its leave', ({ confchgs }) => confchgs.at(-1)?.left[0]?.reason === 5);
}, 60_000);

test('many that have stopped are not given memory without end', async () => {
  const sender = await server.connect();
  const count = 6;
  for (let pid = 1; pid <= count; pid++) {
    const frozen = await HostileClient.connect(server.address, false);
    frozen.send(encodeRequest({ type: 'join', group: Buffer.from('g'), pid, flags: 0 }));
  }
  const seen = new Collector(sender);
  await sender.join('g');
  await seen.until('all members', ({ confchgs }) => confchgs.at(-1)?.members.length === count + 1);
  // None of them has too much of its own, but all of them together.
  const each = MAX_WAITING_BYTES / count + 4 * MIB;
  expect(each).toBeLessThan(MAX_QUEUED_EVENT_BYTES);
  for (let sent = 0; sent < each; sent += MESSAGE.length) await sender.mcast(MESSAGE, { confirm: true });
  expect(server.node.clients).toBe(count);
  HostileClient.destroyAll();
  await eventually('the end of all', () => server.node.clients === 1);
}, 60_000);

test('one that is slow holds senders back, and loses nothing', async () => {
  const sender = await server.connect();
  const slow = await server.connect({ dispatch: 'manual' });
  let received = 0;
  slow.on('deliver', ({ message }) => {
    if (message[0] !== received % 256) throw new Error('out of order');
    received++;
  });
  await sender.join('g');
  await slow.join('g');
  const count = (24 * MIB) / MESSAGE.length;
  let sent = 0;
  const sending = (async () => {
    for (; sent < count; sent++) await sender.mcast(Buffer.alloc(MESSAGE.length, sent % 256));
  })();
  let farthestAhead = 0;
  while (received < count) {
    await slow.dispatch('one');
    farthestAhead = Math.max(farthestAhead, sent - received);
    if (received % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await sending;
  expect(farthestAhead * MESSAGE.length).toBeLessThan(16 * MIB);
}, 60_000);
