/** A daemon in socket mode that is not what it should be: an error that says so, and nothing is left. */
import { existsSync, linkSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { connect, type CpgError } from '../../src';
import { findDatagrams } from '../../src/native';
import type { DatagramSocket } from '../../src/native/datagram';
import type { HandshakeResponse } from '../../src/codec';
import { socketNames } from '../../src/transport/datagram-files';
import { openDescriptors, openedSince } from '../support/descriptors';
import { rejectionOf } from '../support/errors';
import { FakeDaemon } from '../support/fake-daemon';

const TIMEOUT_MS = 300;

let before: string[];
let daemon: FakeDaemon | undefined;
let sockets: DatagramSocket[] = [];

beforeEach(() => {
  before = openDescriptors();
});
afterEach(async () => {
  await Promise.all(sockets.map((socket) => socket.close()));
  sockets = [];
  await daemon?.stop();
  daemon = undefined;
  expect(openedSince(before)).toEqual([]);
});

/** What the daemon does with a request: the frame that it answers, if it does. */
type Answer = (request: Buffer) => Buffer | undefined;

interface Plan {
  /** Makes the control file at this path. */
  control?: (path: string) => void;
  change?: (answer: HandshakeResponse) => HandshakeResponse;
  /** Its sockets are there, and do this. */
  reply?: Answer;
}

const zeros = (path: string): void => writeFileSync(path, Buffer.alloc(24), { mode: 0o600 });

/** Connects to a daemon that does as planned, and says with what that was refused, and whether its files are left. */
async function refusal(plan: Plan): Promise<CpgError> {
  daemon = await FakeDaemon.start({
    answer: (answer, { directory }) => {
      const request = join(directory, 'qb-control-cpg');
      (plan.control ?? zeros)(request);
      const plain = { ...answer, connectionType: 0, request, response: join(directory, 'qb-cpg'), event: '' };
      if (plan.reply !== undefined) serve(plain, plan.reply);
      return plan.change?.(plain) ?? plain;
    },
  });
  const error = await rejectionOf(connect({ address: daemon.address, timeoutMs: TIMEOUT_MS }));
  await daemon.idle();
  return error;
}

function serve(answer: HandshakeResponse, reply: Answer): void {
  const names = socketNames(answer);
  const datagrams = findDatagrams('abstract')!;
  const [requests, events] = [names.request, names.eventTx].map((local) =>
    datagrams.open({ local, frameBytes: 65_536 }),
  );
  sockets.push(requests!, events!);
  requests!.listen({
    onFrame: (frame) => {
      const answered = reply(frame);
      if (answered === undefined) return true;
      requests!.connect(names.response);
      requests!.send(answered);
      return true;
    },
    onSent: () => undefined,
    onEnd: () => undefined,
  });
}

const response = (bytes: number, claimed = bytes): Buffer => {
  const frame = Buffer.alloc(bytes);
  frame.writeInt32LE(claimed, 8);
  return frame;
};

const CASES: [title: string, plan: Plan, code: string, reason?: string][] = [
  [
    'a control file that is too short',
    { control: (path) => writeFileSync(path, 'short') },
    'CS_ERR_MESSAGE_ERROR',
  ],
  [
    'a control file that is too long',
    { control: (path) => writeFileSync(path, Buffer.alloc(25)) },
    'CS_ERR_MESSAGE_ERROR',
  ],
  ['no control file', { control: () => undefined }, 'CS_ERR_LIBRARY', 'rings-not-there'],
  ['a symbolic link', { control: (path) => symlinkSync('/etc/passwd', path) }, 'CS_ERR_SECURITY'],
  [
    'a file with two names',
    {
      control: (path) => {
        zeros(`${path}-other`);
        linkSync(`${path}-other`, path);
      },
    },
    'CS_ERR_SECURITY',
  ],
  [
    'a file elsewhere',
    { change: (answer) => ({ ...answer, request: '/etc/qb-control-cpg' }) },
    'CS_ERR_SECURITY',
  ],
  ['sockets elsewhere', { change: (answer) => ({ ...answer, response: '/tmp/qb-cpg' }) }, 'CS_ERR_SECURITY'],
  [
    'a path that leads out',
    { change: (answer) => ({ ...answer, response: `${dirname(answer.request)}/../qb-cpg` }) },
    'CS_ERR_SECURITY',
  ],
  [
    'names that do not fit an address',
    { change: (answer) => ({ ...answer, response: `${answer.response}${'x'.repeat(90)}` }) },
    'CS_ERR_NAME_TOO_LONG',
  ],
  [
    'names of an old libqb',
    { change: (answer) => ({ ...answer, response: '1-2-3-cpg' }) },
    'CS_ERR_NOT_SUPPORTED',
    'old-libqb',
  ],
  ['frames of no use', { change: (answer) => ({ ...answer, maxMessageSize: 100 }) }, 'CS_ERR_MESSAGE_ERROR'],
  ['sockets that are not there', {}, 'CS_ERR_LIBRARY', 'datagrams-not-there'],
  ['a daemon that never connects', { reply: () => undefined }, 'CS_ERR_TIMEOUT', 'no-answer'],
  ['a datagram that was cut', { reply: () => response(100, 200) }, 'CS_ERR_MESSAGE_ERROR'],
  [
    'a datagram that is too short to be a frame',
    { reply: () => response(12) },
    'CS_ERR_LIBRARY',
    'connection-lost',
  ],
];

test.each(CASES.map(([title, plan, code, reason = '']) => [title, plan, `${code} ${reason}`] as const))(
  '%s',
  async (_, plan, expected) => {
    const { code, reason = '' } = await refusal(plan);
    expect(`${code} ${reason}`).toBe(expected);
  },
);

test('its files are removed when it came to nothing', async () => {
  let control = '';
  await refusal({
    control: (path) => {
      zeros(path);
      control = path;
    },
  });
  expect(existsSync(control)).toBe(false);
});
