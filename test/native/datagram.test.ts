/** Datagram sockets through the C library, on the kernel that is here. */
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findDatagrams } from '../../src/native';
import type { DatagramAddress, DatagramSocket } from '../../src/native/datagram';
import { openDescriptors, openedSince } from '../support/descriptors';

const FRAME_BYTES = 1024 * 1024;
let next = 0;
let directory: string;
const opened: DatagramSocket[] = [];

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'datagrams-'));
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((socket) => socket.close()));
});
afterAll(() => rmSync(directory, { recursive: true }));

function named(kind: DatagramAddress['kind'] = 'abstract'): DatagramAddress {
  return { kind, name: join(directory, `socket-${next++}`) };
}

function open(local: DatagramAddress, remote?: DatagramAddress): DatagramSocket {
  const socket = findDatagrams(local.kind)!.open({
    local,
    frameBytes: FRAME_BYTES,
    ...(remote && { remote }),
  });
  opened.push(socket);
  return socket;
}

/** Collects what comes; `room` of them, then no more before resume(). */
function listen(socket: DatagramSocket, room = Infinity) {
  const frames: Buffer[] = [];
  let error: Error | undefined;
  const waiting: (() => void)[] = [];
  const wake = (): void => waiting.splice(0).forEach((go) => go());
  let sent = 0;
  socket.listen({
    onFrame: (frame) => {
      frames.push(Buffer.from(frame));
      wake();
      return frames.length < room;
    },
    onSent: () => {
      sent++;
      wake();
    },
    onEnd: (reason) => {
      error = reason;
      wake();
    },
  });
  const until = async (condition: () => boolean): Promise<void> => {
    while (!condition()) await new Promise<void>((go) => waiting.push(go));
  };
  return { frames, until, sent: () => sent, error: () => error as NodeJS.ErrnoException | undefined };
}

/** A and B, each connected to the other. */
function pair(kind: DatagramAddress['kind'] = 'abstract'): {
  a: DatagramSocket;
  b: DatagramSocket;
  names: DatagramAddress[];
} {
  const names = [named(kind), named(kind)];
  const a = open(names[0]!);
  const b = open(names[1]!, names[0]);
  a.connect(names[1]!);
  return { a, b, names };
}

test.each(['abstract', 'path'] as const)('frames travel whole, both ways, by %s names', async (kind) => {
  const { a, b, names } = pair(kind);
  const [atA, atB] = [listen(a), listen(b)];
  a.send(Buffer.from('there'));
  b.send(Buffer.from('and back'));
  await atB.until(() => atB.frames.length === 1);
  await atA.until(() => atA.frames.length === 1);
  expect([String(atB.frames[0]), String(atA.frames[0])]).toEqual(['there', 'and back']);
  expect(names.map(({ name }) => existsSync(name))).toEqual(kind === 'path' ? [true, true] : [false, false]);
  if (kind === 'path') expect(statSync(names[0]!.name).mode & 0o777).toBe(0o600);
  await Promise.all([a.close(), b.close()]);
  expect(names.map(({ name }) => existsSync(name))).toEqual([false, false]);
});

test('the largest frame is what it says, and one byte more is EMSGSIZE', async () => {
  const { a, b } = pair();
  const atB = listen(b);
  const atA = listen(a);
  const size = Math.min(a.maxBytes, FRAME_BYTES);
  a.send(Buffer.alloc(size, 7));
  await atB.until(() => atB.frames.length === 1);
  expect(atB.frames[0]!.equals(Buffer.alloc(size, 7))).toBe(true);
  a.send(Buffer.alloc(a.maxBytes + 1));
  await atA.until(() => atA.error() !== undefined);
  expect(atA.error()).toMatchObject({ code: 'EMSGSIZE' });
});

test('a full queue makes the sender wait, and nothing is lost', async () => {
  const { a, b } = pair();
  const atA = listen(a);
  let sent = 0;
  while (!a.sending) a.send(Buffer.from(String(sent++)));
  // max_dgram_qlen and one.
  expect(sent).toBeGreaterThan(1);
  const atB = listen(b);
  await atA.until(() => !a.sending);
  await atB.until(() => atB.frames.length === sent);
  expect(atB.frames.map(String)).toEqual(Array.from({ length: sent }, (_, index) => String(index)));
});

test('a reader that has enough is not given more before resume()', async () => {
  const { a, b } = pair();
  const atB = listen(b, 2);
  for (let number = 0; number < 5; number++) a.send(Buffer.from([number]));
  await atB.until(() => atB.frames.length === 2);
  for (let turn = 0; turn < 5; turn++) await new Promise((go) => setImmediate(go));
  expect(atB.frames).toHaveLength(2);
  b.resume();
  await atB.until(() => atB.frames.length === 3);
});

test('strangers cannot send to a socket that was opened with its peer', async () => {
  const { a, b, names } = pair();
  const atB = listen(b);
  expect(() => open(named(), names[1])).toThrow(expect.objectContaining({ code: 'EPERM' }) as Error);
  a.send(Buffer.from('from the peer'));
  await atB.until(() => atB.frames.length === 1);
  expect(String(atB.frames[0])).toBe('from the peer');
});

test('a peer that is gone is the end, with its error', async () => {
  const { a, b } = pair();
  const atA = listen(a);
  await b.close();
  a.send(Buffer.from('anybody?'));
  await atA.until(() => atA.error() !== undefined);
  expect(atA.error()).toMatchObject({ code: 'ECONNREFUSED' });
});

test.each([
  ['nobody there', () => open(named(), named()), 'ECONNREFUSED'],
  ['no such file', () => open(named('path'), named('path')), 'ENOENT'],
  ['a directory that is not there', () => open({ kind: 'path', name: '/nowhere/socket' }), 'ENOENT'],
  [
    'a name that is too long',
    () => open({ kind: 'abstract', name: 'n'.repeat(108) }),
    'CS_ERR_NAME_TOO_LONG',
  ],
  [
    'a path that is too long',
    () => open({ kind: 'path', name: `/${'p'.repeat(108)}` }),
    'CS_ERR_NAME_TOO_LONG',
  ],
  ['a name with a NUL', () => open({ kind: 'abstract', name: 'a\0b' }), 'CS_ERR_NAME_TOO_LONG'],
  [
    'a name that is taken',
    () => {
      const name = named();
      open(name);
      open(name);
    },
    'EADDRINUSE',
  ],
])('%s: an error, and no descriptor is left', async (_, act, code) => {
  const before = openDescriptors();
  expect(act).toThrow(expect.objectContaining({ code }) as Error);
  await Promise.all(opened.splice(0).map((socket) => socket.close()));
  // What a failed socket had is closed in the next turn.
  await new Promise((go) => setImmediate(go));
  expect(openedSince(before)).toEqual([]);
});
