/** Clients that connect and never show that they may be there do not keep others out. */
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { encodeHandshakeRequest } from '../../src/codec/handshake';
import type { CpgClient } from '../../src';
import { startServer, type CpgServer } from '../../src/server';
import { shakeHands } from './hostile-client';

jest.setTimeout(60_000);

const PLACES = 4;
const GRACE_MS = 200;
const request = encodeHandshakeRequest({ maxMessageSize: 1024 * 1024 });

let server: CpgServer;
let sockets: Socket[];

beforeEach(async () => {
  server = await startServer({ maxConnections: PLACES });
  sockets = [];
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await server.close();
});

/** What another user can do: shake hands, and not open the rings, which are not for him. */
async function intruder(): Promise<void> {
  const { socket } = await shakeHands(server.address, request);
  socket.resume();
  sockets.push(socket);
}

async function silent(): Promise<void> {
  const socket = connect({ path: server.address });
  sockets.push(socket);
  await once(socket, 'connect');
}

const graceOver = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, GRACE_MS + 50));

test('after shaking hands', async () => {
  for (let count = 0; count < PLACES; count++) await intruder();
  expect(server.node.clients).toBe(PLACES);
  await graceOver();
  for (let count = 0; count < PLACES; count++) expect(await (await server.connect()).localNodeId()).toBe(1);
});

test('without a word', async () => {
  for (let count = 0; count < 2 * PLACES; count++) await silent();
  await graceOver();
  for (let count = 0; count < PLACES; count++) expect(await (await server.connect()).localNodeId()).toBe(1);
});

test('clients that use their places keep them, also idle ones', async () => {
  const clients: CpgClient[] = [];
  for (let count = 0; count < PLACES; count++) clients.push(await server.connect());
  await graceOver();
  await expect(server.connect()).rejects.toMatchObject({ code: 'CS_ERR_NO_RESOURCES' });
  for (const client of clients) expect(await client.localNodeId()).toBe(1);
});

test('of those that come at the same moment none is dropped for another', async () => {
  const attempts = await Promise.allSettled(Array.from({ length: 2 * PLACES }, () => server.connect()));
  const connected = attempts.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  expect(connected).toHaveLength(PLACES);
  for (const client of connected) expect(await client.localNodeId()).toBe(1);
});
