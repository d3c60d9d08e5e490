/** Names of groups that are not plain text: printed in one way, and taken by every command as they are printed. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type CpgClient } from '../../src';
import { groupLabel } from '../../src/codec';
import { encodeEvent } from '../../src/codec/events';
import { encodeRequest } from '../../src/codec/requests';
import { startServer, type CpgServer } from '../../src/server';
import { CaptureWriter } from '../../src/tap/capture/writer';
import { CONNECTION, frame } from '../tap/support';
import { cli, startCli, type Finished } from './harness';

const NAMES = [
  Buffer.from('crmd\0'),
  Buffer.from('two\nlines\\ and \u009b\u202e'),
  Buffer.from('0x41'),
  Buffer.from('a,b'),
  Buffer.from('-h'),
  Buffer.from([0xff, 0x00, 0xfe]),
  Buffer.from('a\ufffd'),
];

let directory: string;
let server: CpgServer;
let clients: CpgClient[];
let capture: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cpg-groups-'));
  server = await startServer({ address: join(directory, 'cpg') });
  clients = await Promise.all(
    NAMES.map(async (name) => {
      const client = await connect({ address: server.address });
      await client.join(name);
      client.on('deliver', () => undefined);
      return client;
    }),
  );
  const writer = new CaptureWriter();
  const frames = NAMES.flatMap((group, index) => {
    const more = { connection: { ...CONNECTION, id: index + 1 } };
    const message = Buffer.from(`to ${index}`);
    return [
      frame('request', encodeRequest({ type: 'join', group, pid: 4711, flags: 0 }), more),
      frame('request', encodeRequest({ type: 'mcast', guarantee: 2, message }), more),
      frame('event', encodeEvent({ type: 'deliver', group, nodeId: 1, pid: 4711, message }), more),
    ];
  });
  capture = join(directory, 'names.pcapng');
  writeFileSync(capture, Buffer.concat([writer.begin(), writer.frames(frames), writer.end()]));
});
afterAll(async () => {
  await Promise.all(clients.map((client) => client.close()));
  await server.close();
  rmSync(directory, { recursive: true });
});

const here = (
  [name, ...args]: [string, ...string[]],
  options: Parameters<typeof cli>[1] = {},
): Promise<Finished> => cli([name, '--address', server.address, ...args], options);

test.each([false, true])('groups prints a line each, terminal: %j', async (terminal) => {
  const { stdout } = await here(['groups', '--names'], { terminal });
  expect(stdout.trimEnd().split('\n').sort()).toEqual(NAMES.map(groupLabel).sort());
});

describe.each(NAMES.map((name, index) => [groupLabel(name), name, index] as const))(
  '%s',
  (label, name, index) => {
    const spellings = [label, `0x${name.toString('hex')}`, name.toString('hex').replace(/../g, '\\x$&')];

    test.each(spellings)('members of %s', async (spelling) => {
      const { stdout, stderr } = await here(['members', '--', spelling]);
      expect({ stdout, stderr }).toEqual({ stdout: `1:${clients[index]!.pid}\n`, stderr: '' });
    });

    test('join is in the same group', async () => {
      const { code, stdout } = await here(['join', '--', label], { stdin: 'hello\n' });
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`^members .*\\b1:${clients[index]!.pid}\\b`, 'm'));
      expect(stdout).toMatch(/^message 1:\d+ hello$/m);
    });

    test.each(spellings)('decode --group %s', async (spelling) => {
      const { stdout } = await cli(['decode', capture, `--group=${spelling}`]);
      const lines = stdout.trimEnd().split('\n');
      expect(lines).toHaveLength(3);
      expect(lines[0]).toContain(` join ${label} as pid 4711`);
      expect(lines[1]).toContain(` mcast ${label} 4 bytes: to ${index}`);
    });

    test('timeline --group', async () => {
      const { code, stdout } = await cli(['timeline', capture, `-g${label}`, '--json']);
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ title: label, steps: [{ label: `to ${index}` }] });
      const unknown = await cli(['timeline', capture, '--group', 'nobody']);
      expect(unknown.stderr).toContain(label);
    });

    test('replay --only', async () => {
      const args = [capture, `--only=${label}`, '--group', `again-${index}\\0`, '--fast'];
      const { stdout, stderr } = await here(['replay', ...args]);
      expect({ stdout, stderr }).toEqual({
        stdout: expect.stringMatching(
          new RegExp(`^1 message to again-${index}\\\\0 in \\d\\.\\d s\\n$`),
        ) as string,
        stderr: '',
      });
    });
  },
);

describe('a name in a lookup also matches itself with trailing NULs', () => {
  test('decode', async () => {
    expect((await cli(['decode', capture, '--group', 'crmd'])).stdout.match(/\n/g)).toHaveLength(3);
    expect((await cli(['decode', capture, '--group', 'crm'])).stdout).toBe('');
  });

  test('timeline', async () => {
    expect(JSON.parse((await cli(['timeline', capture, '-g', 'crmd', '--json'])).stdout)).toMatchObject({
      title: 'crmd\\0',
    });
  });

  test('replay --only', async () => {
    const { stdout } = await here(['replay', capture, '--only', 'crmd', '-g', 'again', '--fast']);
    expect(stdout).toMatch(/^1 message to again in/);
    const { code, stderr } = await here(['replay', capture, '--only', 'crm', '-g', 'again', '--fast']);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^cpg: replay: no message was sent to crm: CS_ERR_NOT_EXIST \(12\): there are messages to crmd\\0, two/,
    );
  });

  test('tap', async () => {
    const tap = startCli([
      'tap',
      '-g',
      'crmd',
      '--message',
      'deliver',
      '-n',
      '1',
      '--json',
      '--timeout',
      '20',
    ]);
    await tap.until(/following/, 'stderr');
    await clients[0]!.mcast('seen');
    const { json, code } = await tap.finished;
    expect(code).toBe(0);
    expect(json()).toMatchObject([{ group: 'crmd\0', message: 'seen' }]);
  });

  test('members says that it is another group', async () => {
    const { code, stdout, stderr } = await here(['members', 'crmd']);
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: '',
      stderr: "cpg: members: nobody is in 'crmd'; there is 'crmd\\0'\n",
    });
  });
});

test('JSON has nothing that a terminal obeys, and the same values', async () => {
  const { stdout, json } = await here(['groups', '--json'], { terminal: true });
  expect(stdout).not.toMatch(/(?!\n)[\p{Cc}\u2028-\u202e]/u);
  expect(json()).toContainEqual({
    type: 'group',
    group: NAMES[1]!.toString(),
    nodeId: 1,
    pid: clients[1]!.pid,
  });
});
