/**
 * Whatever answers on the address: connect() rejects with one typed error within its deadline, and nothing
 * is left behind: no descriptor, no listener, no file.
 */
import { getEventListeners } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type CpgErrorCode } from '../../src';
import { encodeHandshakeResponse, HANDSHAKE_RESPONSE_BYTES, type HandshakeResponse } from '../../src/codec';
import * as libc from '../../src/native/libc';
import { openDescriptors, openedSince } from '../support/descriptors';
import { cpgError, rejectionOf } from '../support/errors';
import { FakeDaemon, type FakeConnection, type FakeDaemonOptions } from '../support/fake-daemon';

/** Enough for everything that is answered; waited for in full only where nothing is. */
const TIMEOUT_MS = 200;
/** A busy machine may be late, but a hang would be much later. */
const LATE_MS = 3000;

let before: string[];
let daemon: FakeDaemon | undefined;

beforeEach(() => {
  before = openDescriptors();
});
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
  expect(openedSince(before)).toEqual([]);
});

/** Connects, expects a refusal, and looks for what is left. */
async function refusal(
  options: FakeDaemonOptions,
  timeoutMs = TIMEOUT_MS,
): Promise<Awaited<ReturnType<typeof rejectionOf>>> {
  daemon = await FakeDaemon.start(options);
  const { signal } = new AbortController();
  const begin = Date.now();
  const error = await rejectionOf(connect({ address: daemon.address, timeoutMs, signal }));
  expect(Date.now() - begin).toBeLessThan(timeoutMs + LATE_MS);
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  await daemon.idle();
  expect(daemon.leftovers).toEqual([]);
  return error;
}

/** A server that says `bytes` to each greeting. */
const saying = (bytes: Buffer, then?: (socket: Socket) => void): FakeDaemonOptions => ({
  onSocket: (socket) =>
    socket.once('data', () => {
      socket.resume();
      if (bytes.length === 0) then?.(socket);
      else socket.write(bytes, () => then?.(socket));
    }),
});

/** The server sees that we hung up. */
const hangUp = (socket: Socket): void => void socket.destroy();
const silence = (socket: Socket): void => void socket.resume();

const refused = (error: number): Buffer =>
  encodeHandshakeResponse({
    error,
    connectionType: 0,
    maxMessageSize: 0,
    connection: 0n,
    request: '',
    response: '',
    event: '',
  });

const promising: HandshakeResponse = {
  error: 0,
  connectionType: 1,
  maxMessageSize: 1024 * 1024,
  connection: 1n,
  request: '/dev/shm/qb-1-1-1-x/qb-request-cpg',
  response: '/dev/shm/qb-1-1-1-x/qb-response-cpg',
  event: '/dev/shm/qb-1-1-1-x/qb-event-cpg',
};

describe('garbage', () => {
  const answer = encodeHandshakeResponse(promising);
  const patched = (offset: number, value: number): Buffer => {
    const bytes = Buffer.from(answer);
    bytes.writeInt32LE(value, offset);
    return bytes;
  };

  test.each([
    ['text', Buffer.from('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n')],
    ['zeros', Buffer.alloc(HANDSHAKE_RESPONSE_BYTES)],
    ['ones', Buffer.alloc(HANDSHAKE_RESPONSE_BYTES, 0xff)],
    ['a size too small', patched(8, HANDSHAKE_RESPONSE_BYTES - 1)],
    ['a size too large', patched(8, HANDSHAKE_RESPONSE_BYTES + 1)],
    ['a negative size', patched(8, -1)],
    ['an enormous size', patched(8, 0x7fffffff)],
    [
      'a short whole frame',
      Buffer.concat([Buffer.from([255, 255, 255, 255, 0, 0, 0, 0, 24, 0, 0, 0]), Buffer.alloc(12)]),
    ],
    ['a connection type that is not known', patched(24, 2)],
    ['no largest frame', patched(28, 0)],
    ['an absurd largest frame', patched(28, 0x7fffffff)],
    ['a largest frame below what we asked for', patched(28, 1000)],
    ['names without end', Buffer.from(answer).fill('x', 40)],
  ])('%s is CS_ERR_MESSAGE_ERROR', async (_, bytes) => {
    expect(await refusal(saying(bytes))).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
  });

  test('an answer in single pieces is put together', async () => {
    const pieces = (socket: Socket): void => {
      let sent = 0;
      const next = (): void => {
        if (sent >= HANDSHAKE_RESPONSE_BYTES) return;
        const piece = refused(-constants.errno.EACCES).subarray(sent, (sent += 1000));
        socket.write(piece, () => setImmediate(next));
      };
      next();
    };
    expect(await refusal(saying(Buffer.alloc(0), pieces))).toMatchObject(cpgError('CS_ERR_ACCESS'));
  });

  test('much more than was asked for does not matter when it is a refusal', async () => {
    const much = Buffer.concat([refused(-11), Buffer.alloc(1_000_000, 7)]);
    expect(await refusal(saying(much, hangUp))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
  });

  test('an oversized answer counts as events that are not there', async () => {
    daemon = await FakeDaemon.start({
      answer: (answered) => Buffer.concat([encodeHandshakeResponse(answered), Buffer.alloc(100)]),
    });
    const client = await connect({ address: daemon.address, timeoutMs: TIMEOUT_MS });
    const reason = await new Promise((resolve) => client.once('close', resolve));
    expect(reason).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(client.state).toBe('closed');
    await client.close();
    await daemon.idle();
    expect(daemon.leftovers).toEqual([]);
  });
});

describe.each([0, 1, 11, 12, 23, 24, 4000, HANDSHAKE_RESPONSE_BYTES - 1])(
  'an answer cut after %i bytes',
  (length) => {
    const bytes = encodeHandshakeResponse(promising).subarray(0, length);

    test('and then silence is CS_ERR_TIMEOUT', async () => {
      expect(await refusal(saying(bytes, silence))).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    });

    test('and then a hang-up is CS_ERR_LIBRARY and tells how far it came', async () => {
      const error = await refusal(saying(bytes, hangUp));
      expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
      expect(error.message).toContain(`after ${length} bytes`);
    });
  },
);

describe('a refusal', () => {
  const { errno } = constants;

  test.each([
    ['EACCES', errno.EACCES, 'CS_ERR_ACCESS'],
    ['EPERM', errno.EPERM, 'CS_ERR_ACCESS'],
    ['EMFILE', errno.EMFILE, 'CS_ERR_NO_RESOURCES'],
    ['ENFILE', errno.ENFILE, 'CS_ERR_NO_RESOURCES'],
    ['ENOMEM', errno.ENOMEM, 'CS_ERR_NO_MEMORY'],
    ['ENOSPC', errno.ENOSPC, 'CS_ERR_NO_SPACE'],
    ['EFBIG', errno.EFBIG, 'CS_ERR_NO_SPACE'],
    ['ENOSYS', errno.ENOSYS, 'CS_ERR_NOT_SUPPORTED'],
    ['EINVAL', errno.EINVAL, 'CS_ERR_INVALID_PARAM'],
    ['an errno without a name here', 4000, 'CS_ERR_LIBRARY'],
  ] as const)('%s (-%i) is %s, and not tried again', async (_, number, code) => {
    let sockets = 0;
    const options = saying(refused(-number), hangUp);
    const counting = {
      onSocket: (socket: Socket): void => {
        sockets++;
        options.onSocket!(socket);
      },
    };
    const error = await refusal(counting);
    expect(error).toMatchObject(cpgError(code as CpgErrorCode));
    expect(error.message).toContain(`errno ${number}`);
    expect(sockets).toBe(1);
  });

  test('EACCES names the user, the group and the stanza', async () => {
    const { message } = await refusal(saying(refused(-constants.errno.EACCES), hangUp));
    expect(message).toContain(`uid ${process.geteuid!()}`);
    expect(message).toContain(`gid ${process.getegid!()}`);
    expect(message).toContain(`uidgid { uid: ${process.geteuid!()} }`);
  });

  test('ENOSPC speaks of /dev/shm', async () => {
    const { message } = await refusal(saying(refused(-constants.errno.ENOSPC), hangUp));
    expect(message).toContain('/dev/shm');
  });

  test('EAGAIN is tried again until the deadline, and then tells so', async () => {
    let sockets = 0;
    const options = saying(refused(-constants.errno.EAGAIN), hangUp);
    const counting = {
      onSocket: (socket: Socket): void => {
        sockets++;
        options.onSocket!(socket);
      },
    };
    const error = await refusal(counting);
    expect(error).toMatchObject(cpgError('CS_ERR_TIMEOUT'));
    expect(error.cause).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
    expect(sockets).toBeGreaterThan(2);
    expect(sockets).toBeLessThan(10);
  });

  test('EAGAIN that passes is not noticed', async () => {
    let answers = 0;
    daemon = await FakeDaemon.start({
      answer: (answer, connection) => {
        if (++answers > 2) return answer;
        setImmediate(() => connection.drop());
        return refused(-constants.errno.EAGAIN);
      },
    });
    const client = await connect({ address: daemon.address, timeoutMs: 5000 });
    await client.close();
    await daemon.idle();
    expect(answers).toBe(3);
    expect(daemon.leftovers).toEqual([]);
  });

  test('connection type 0, where nothing can do it, is CS_ERR_NOT_SUPPORTED, with three remedies', async () => {
    jest.spyOn(libc, 'findLibc').mockReturnValue(undefined);
    const error = await refusal({ answer: (answer) => ({ ...answer, connectionType: 0, event: '' }) });
    jest.restoreAllMocks();
    expect(error).toMatchObject(cpgError('CS_ERR_NOT_SUPPORTED'));
    for (const remedy of ['koffi', 'node:ffi', 'qb_ipc_type: native'])
      expect(error.message).toContain(remedy);
  });
});

describe('nobody there', () => {
  test('no socket is CS_ERR_LIBRARY, and says how to start corosync', async () => {
    const error = await rejectionOf(connect({ address: '/nonexistent/cpg', timeoutMs: TIMEOUT_MS }));
    expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    expect(error.message).toContain('systemctl start corosync');
  });

  test('an abstract name nobody listens on', async () => {
    const error = await rejectionOf(connect({ address: `@nobody-${process.pid}`, timeoutMs: TIMEOUT_MS }));
    expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    expect(error.message).toContain('systemctl start corosync');
  });

  test('a plain file', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'file-'));
    try {
      writeFileSync(join(directory, 'cpg'), '');
      const connecting = connect({ address: join(directory, 'cpg'), timeoutMs: TIMEOUT_MS });
      expect(await rejectionOf(connecting)).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test.each([0, -1, NaN])('timeoutMs %d is CS_ERR_INVALID_PARAM', async (timeoutMs) => {
    expect(await rejectionOf(connect({ address: '/x', timeoutMs }))).toMatchObject(
      cpgError('CS_ERR_INVALID_PARAM'),
    );
  });

  test.each([0, -1, 1.5, 2 ** 32, NaN])('pid %d is CS_ERR_INVALID_PARAM', async (pid) => {
    expect(await rejectionOf(connect({ address: '/x', pid }))).toMatchObject(
      cpgError('CS_ERR_INVALID_PARAM'),
    );
  });
});

describe('a signal', () => {
  test.each([
    ['before', 0],
    ['in the handshake', 1],
  ])('aborted %s rejects with its reason', async (_, when) => {
    daemon = await FakeDaemon.start(saying(Buffer.alloc(0), silence));
    const controller = new AbortController();
    const { signal } = controller;
    if (when === 0) controller.abort(new Error('of the test'));
    const connecting = connect({ address: daemon.address, signal });
    connecting.catch(() => undefined);
    if (when === 1) {
      while (daemon.sockets.size === 0) await new Promise((resolve) => setImmediate(resolve));
      controller.abort(new Error('of the test'));
    }
    await expect(connecting).rejects.toThrow('of the test');
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    await daemon.idle();
  });
});

describe('rings of a spoofed daemon', () => {
  test.each([
    ['names elsewhere', (answer: HandshakeResponse) => ({ ...answer, event: '/etc/passwd' })],
    [
      'names with ..',
      (answer: HandshakeResponse) => ({
        ...answer,
        event: answer.event.replace('/qb-event', '/../qb-event'),
      }),
    ],
  ])('%s are CS_ERR_SECURITY', async (_, change) => {
    const error = await refusal({ answer: (answer) => change(answer) });
    expect(error).toMatchObject(cpgError('CS_ERR_SECURITY'));
  });

  test.each([
    ['a directory for everybody', (directory: string) => chmodSync(directory, 0o777)],
    [
      'a symbolic link among them',
      (directory: string): void => {
        rmSync(join(directory, 'qb-event-cpg-data'));
        symlinkSync('/etc/passwd', join(directory, 'qb-event-cpg-data'));
      },
    ],
  ])('%s is CS_ERR_SECURITY', async (_, change) => {
    const references: number[] = [];
    const error = await refusal({
      answer: (answer, connection) => {
        change(connection.directory);
        connection.socket.prependOnceListener('close', () => references.push(connection.request.references));
        return answer;
      },
    });
    expect(error).toMatchObject(cpgError('CS_ERR_SECURITY'));
    // Not even the good rings were written to.
    expect(references[0]).toBe(1);
  });

  test('no rings at all is CS_ERR_LIBRARY, with a word about containers', async () => {
    const error = await refusal({
      answer: (answer, connection) => {
        rmSync(connection.directory, { recursive: true });
        return answer;
      },
    });
    expect(error).toMatchObject(cpgError('CS_ERR_LIBRARY'));
    expect(error.message).toContain('container');
  });
});

describe('a daemon that dies right after its answer leaves nothing', () => {
  test.each<[string, (connection: FakeConnection) => void, CpgErrorCode]>([
    [
      'with a ring of another size',
      ({ directory }) => truncateSync(join(directory, 'qb-event-cpg-header'), 100),
      'CS_ERR_NOT_SUPPORTED',
    ],
    [
      'without one of the rings',
      ({ directory }) => rmSync(join(directory, 'qb-event-cpg-data')),
      'CS_ERR_LIBRARY',
    ],
    ['with a first request unanswered', (connection) => connection.hold(), 'CS_ERR_LIBRARY'],
  ])('%s', async (_, change, code) => {
    const error = await refusal({
      answer: (answer, connection) => {
        change(connection);
        setImmediate(() => connection.die());
        return answer;
      },
    });
    expect(error).toMatchObject(cpgError(code));
  });
});
