/**
 * Everything a broken or hostile client can do. Each time the server drops that client, and nobody else
 * notices: the bystander, a well-behaved member, gets a message through afterwards.
 */
import fc from 'fast-check';
import fs, { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { format } from 'node:util';
import { encodeHandshakeRequest, decodeHandshakeResponse } from '../../src/codec/handshake';
import { encodeRequest, RequestId } from '../../src/codec/requests';
import type { CpgClient } from '../../src';
import { debugServer } from '../../src/debug';
import { startServer, type CpgServer } from '../../src/server';
import { CHUNK_HEADER_BYTES, Magic, RingHeader } from '../../src/ring/layout';
import { Collector } from '../support/collector';
import { HostileClient, shakeHands } from './hostile-client';
import { eventually, openDescriptors, ringDirectories } from './leftovers';

jest.setTimeout(60_000);

let server: CpgServer;
let bystander: CpgClient;
let seen: Collector;

beforeAll(async () => {
  server = await startServer();
  bystander = await server.connect();
  seen = new Collector(bystander);
  await bystander.join('g');
});

afterAll(() => server.close());

afterEach(async () => {
  try {
    await eventually('the end of the hostile client', () => server.node.clients === 1);
  } finally {
    // One that survived its attack should not fail the tests behind it.
    if (server.node.clients > 1) HostileClient.destroyAll();
  }
  await bystander.mcast('all is well', { confirm: true });
  expect(ringDirectories()).toHaveLength(1);
});

const localGet = encodeRequest({ type: 'localGet' });
const join = (group: string, pid: number): Buffer =>
  encodeRequest({ type: 'join', group: Buffer.from(group), pid, flags: 0 });

describe('handshakes', () => {
  const proper = encodeHandshakeRequest({ maxMessageSize: 1024 });
  const withField = (offset: number, value: number): Buffer => {
    const bytes = Buffer.from(proper);
    bytes.writeUInt32LE(value, offset);
    return bytes;
  };

  test.each<[string, Buffer]>([
    ['noise', Buffer.alloc(24, 0xa5)],
    ['another id', withField(0, 5)],
    ['another size', withField(8, 23)],
    ['a huge size', withField(8, 0x7fffffff)],
    ['too many bytes', Buffer.alloc(25)],
    ['a flood', Buffer.alloc(1024 * 1024)],
    ['http', Buffer.from('GET / HTTP/1.1\r\nHost: cpg\r\n\r\n')],
  ])('%s', async (_what, bytes) => {
    expect((await shakeHands(server.address, bytes)).answer).toBeUndefined();
  });

  test.each([0xffffffff, 0x80000000, 17 * 1024 * 1024])('frames of %i bytes are refused', async (size) => {
    const { answer } = await shakeHands(server.address, withField(16, size));
    expect(decodeHandshakeResponse(answer!).error).toBe(-22);
  });

  test('small frames are made as large as everybody has them', async () => {
    const { answer, socket } = await shakeHands(server.address, withField(16, 0));
    expect(decodeHandshakeResponse(answer!).maxMessageSize).toBe(1024 * 1024);
    socket.destroy();
  });

  test('byte by byte', async () => {
    const socket = connectSocket({ path: server.address });
    for (const byte of proper.subarray(0, 23)) {
      socket.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    const answered = new Promise((resolve) => socket.once('data', resolve));
    socket.write(proper.subarray(23));
    await answered;
    socket.destroy();
  });

  test('half of one, then gone', async () => {
    const socket = connectSocket({ path: server.address });
    socket.write(proper.subarray(0, 10), () => socket.destroy());
    await new Promise((resolve) => socket.once('close', resolve));
  });
});

describe('rings', () => {
  /** Runs the attack and expects the server to hang up. */
  const attack = async (deed: (client: HostileClient) => void): Promise<void> => {
    const client = await HostileClient.connect(server.address);
    deed(client);
    await eventually('the end', () => client.hungUp);
  };

  test('a byte without a chunk', () => attack((client) => client.announce()));
  test('more bytes than chunks', () =>
    attack((client) => {
      client.post(localGet);
      client.announce(2);
    }));
  test('a flood of bytes', () => attack((client) => client.announce(1024 * 1024)));
  test.each([1, 3, 0x7fffffff, 0xffffffff])('a chunk that says %i bytes', (length) =>
    attack((client) => {
      client.post(localGet, length);
      client.announce();
    }),
  );
  test.each([0, Magic.ALLOCATED, Magic.CONSUMED])('a chunk with magic %i', (magic) =>
    attack((client) => {
      client.post(localGet, localGet.length, magic);
      client.announce();
    }),
  );
  test.each([0xffffffff, 1052672 / 4])('a write pointer of %i', (pointer) =>
    attack((client) => {
      client.request.publishWritePointer(pointer);
      client.announce();
    }),
  );
  test('a read pointer that is the server’s', () =>
    attack((client) => {
      client.post(localGet);
      client.request.publishReadPointer(0xfffffff0);
      client.announce();
    }));
  test('a read pointer of replies outside the ring', () =>
    attack((client) => {
      client.response.publishReadPointer(0xfffffff0);
      client.send(localGet);
    }));
  test('a read pointer of events outside the ring', () =>
    attack((client) => {
      client.event.publishReadPointer(0xfffffff0);
      client.send(join('g', 501));
    }));

  test.each(['request', 'response', 'event'] as const)('%s ring cut short', async (ring) => {
    for (const part of ['header', 'data']) {
      await attack((client) => {
        truncateSync(`${client.answer[ring]}-${part}`, 0);
        // Its own pointers are gone too, so the post is by hand.
        if (ring === 'request') client.announce();
        else client.send(join('g', 502));
        if (ring !== 'request' && part === 'data') client.socket.destroy();
      });
    }
  });

  test('a ring made larger', () =>
    attack((client) => {
      truncateSync(`${client.answer.request}-data`, 64 * 1024 * 1024);
      writeFileSync(`${client.answer.request}-header`, Buffer.alloc(RingHeader.wordSize + 4, 0xff));
      client.announce();
    }));

  test('the files removed', async () => {
    const client = await HostileClient.connect(server.address);
    rmSync(client.directory, { recursive: true });
    client.send(localGet);
    await eventually('the reply', () => client.response.semaphore() === 1);
    client.socket.destroy();
  });

  test('their directory made unreadable, so that it cannot be removed', async () => {
    const client = await HostileClient.connect(server.address);
    // Root may read everything, so the file system's refusal is played.
    const removing = jest.spyOn(fs, 'rmSync').mockImplementation(() => {
      throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
    });
    try {
      fs.chmodSync(client.directory, 0);
      client.socket.destroy();
      await eventually('the end', () => server.node.clients === 1);
      // Twice: once more after the mode was put right.
      expect(removing).toHaveBeenCalledTimes(2);
      expect(fs.statSync(client.directory).mode & 0o777).toBe(0o700);
    } finally {
      removing.mockRestore();
      fs.rmSync(client.directory, { recursive: true });
    }
  });

  test('replies that are never taken', () =>
    attack((client) => {
      const membership = encodeRequest({ type: 'membershipGet', group: Buffer.from('g') });
      for (let count = 0; count < 200; count++) client.send(membership);
    }));

  test('a goodbye by id', () =>
    attack((client) => {
      const frame = Buffer.from(localGet);
      frame.writeInt32LE(-3, 0);
      client.send(frame);
    }));
});

test('the debug log names each dropped client and the reason', async () => {
  const lines: string[] = [];
  debugServer.enabled = true;
  debugServer.log = (...line: unknown[]) => lines.push(format(...line));
  try {
    const client = await HostileClient.connect(server.address);
    client.post(localGet, 0x7fffffff);
    client.announce();
    await eventually('the end', () => client.hungUp);
  } finally {
    debugServer.enabled = false;
    delete (debugServer as { log?: unknown }).log;
  }
  expect(lines.join('\n')).toMatch(/client \d+ dropped: malformed message: .*a chunk of 2147483647 bytes/);
});

describe('requests', () => {
  const attack = async (frame: Buffer): Promise<void> => {
    const client = await HostileClient.connect(server.address);
    client.send(frame);
    await eventually('the end', () => client.hungUp);
  };
  const changed = (frame: Buffer, offset: number, value: number): Buffer => {
    const copy = Buffer.from(frame);
    copy.writeUInt32LE(value, offset);
    return copy;
  };
  const message = encodeRequest({ type: 'mcast', guarantee: 2, message: Buffer.from('message') });
  const fragment = encodeRequest({
    type: 'partialMcast',
    ...{ guarantee: 2, messageLength: 8, fragmentType: 1 },
    fragment: Buffer.from('half'),
  });

  test.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['three bytes', Buffer.alloc(3)],
    ['half a header', Buffer.alloc(12)],
    ['a size that is too small', changed(localGet, 8, 15)],
    ['a size that is too large', changed(localGet, 8, 17)],
    ['a negative size', changed(localGet, 8, 0xffffffff)],
    ['a join cut short', changed(join('g', 1).subarray(0, 100), 8, 100)],
    ['a join with more behind it', changed(Buffer.concat([join('g', 1), Buffer.alloc(8)]), 8, 176)],
    ['a message longer than it is', changed(message, 32, 1_000_000)],
    ['a message shorter than it is', changed(message, 32, 1)],
    ['a message without its header', changed(message.subarray(0, 20), 8, 20)],
    ['a message with another size', changed(message, 8, 4000)],
    ['a fragment longer than it is', changed(fragment, 40, 0xffffffff)],
  ])('%s', (_what, frame) => attack(frame));

  test('the server survives any frame', async () => {
    const ids = fc.oneof(fc.constantFrom(...Object.values(RequestId)), fc.integer());
    const frames = fc
      .tuple(ids, fc.uint8Array({ maxLength: 300 }), fc.boolean())
      .map(([id, body, honest]) => {
        const frame = Buffer.concat([Buffer.alloc(16), body]);
        frame.writeInt32LE(id, 0);
        frame.writeInt32LE(honest ? frame.length : frame.length + body.length, 8);
        return frame;
      });
    await fc.assert(
      fc.asyncProperty(fc.array(frames, { minLength: 1, maxLength: 8 }), async (list) => {
        const client = await HostileClient.connect(server.address);
        for (const frame of list) if (!client.hungUp) client.send(frame);
        await new Promise(setImmediate);
        client.socket.destroy();
        expect(await bystander.localNodeId()).toBe(1);
      }),
      { numRuns: 150 },
    );
  });

  test('a snapshot for every occasion is too many', async () => {
    const client = await HostileClient.connect(server.address);
    const begin = encodeRequest({ type: 'iterationInitialize', group: Buffer.from('g'), iterationType: 3 });
    const errors = new Set<number>();
    for (let count = 0; count < 300; count++) {
      client.send(begin);
      await eventually('the reply', () => client.response.semaphore() === 1);
      client.response.readPointers();
      const chunk = Buffer.alloc(CHUNK_HEADER_BYTES + 32);
      client.response.read(client.response.readPointer, chunk);
      errors.add(chunk.readInt32LE(CHUNK_HEADER_BYTES + 16));
      client.response.setSemaphore(0);
      client.response.publishReadPointer(client.response.writePointer);
    }
    expect(errors).toEqual(new Set([1, 8]));
    client.socket.destroy();
  });
});

describe('many', () => {
  test('connections that say nothing', async () => {
    const sockets = Array.from({ length: 500 }, () => connectSocket({ path: server.address }));
    for (const socket of sockets) socket.on('error', () => undefined);
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
    await bystander.mcast('in between', { confirm: true });
    const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    for (const socket of sockets) socket.destroy();
    await Promise.all(closed);
  });

  test('connections that come and go', async () => {
    const descriptors = openDescriptors();
    for (let round = 0; round < 20; round++) {
      const clients = await Promise.all(
        Array.from({ length: 50 }, () => HostileClient.connect(server.address)),
      );
      for (const [index, client] of clients.entries()) client.send(join('g', 1000 + index));
      await bystander.localNodeId();
      for (const client of clients) client.socket.destroy();
      await eventually('the end of all', () => server.node.clients === 1);
    }
    await eventually('the closing of all descriptors', () => openDescriptors() <= descriptors + 5);
    await bystander.mcast('after the crowd', { confirm: true });
    expect(seen.confchgs.at(-1)!.members).toHaveLength(1);
  }, 30_000);
});
