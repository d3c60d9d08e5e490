/** The output of DEBUG=cpg:* on standard error, and none without it. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { startServer, type CpgServer } from '../src/server';

const run = promisify(execFile);

/** Every kind of message that a client sends or receives. */
const PROGRAM = `
  const { connect } = require(${JSON.stringify(require.resolve('../dist/index.js'))});
  (async () => {
    const client = await connect();
    client.on('deliver', () => undefined);
    await client.join('group', { initialTotemConfchg: true });
    await client.mcast('hello', { confirm: true });
    await client.mcast(Buffer.alloc(1024 * 1024), { confirm: true });
    await client.membership();
    for await (const row of client.groups()) void row;
    await client.leave();
    await client.close();
  })();`;

describe('a client', () => {
  let server: CpgServer;
  let shown: Promise<string> | undefined;

  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server.close());

  const stderr = async (names: string): Promise<string> => {
    const env = { ...process.env, DEBUG: names, CPG_ADDRESS: server.address };
    return (await run(process.execPath, ['-e', PROGRAM], { env })).stderr;
  };

  test.each([
    '> handshake { maxMessageSize: 1048576 }',
    /< handshake \{ error: 0, connectionType: 1, .*request: '.*qb-request-cpg'/,
    '> localGet {}',
    /< localGet \{ error: 1, nodeId: 1 \}/,
    /> join \{ group: 'group', pid: \d+, flags: 1 \}/,
    '< join { error: 1 }',
    /< confchg \{ group: 'group', members: \[ \{ nodeId: 1, pid: \d+, reason: 0 \} \], left: \[\]/,
    /< totemConfchg \{ ringId: \{ nodeId: 1, seq: \d+n \}, members: \[ 1 \] \}/,
    /> mcast \{ guarantee: 2, length: 5, parts: \[ <Buffer 68 65 6c 6c 6f> \] \}/,
    /< deliver \{ group: 'group', nodeId: 1, pid: \d+, message: <Buffer 68 65 6c 6c 6f> \}/,
    /> partialMcast \{ .*messageLength: 1048576, .*fragmentType: 3 \}/,
    '< partialMcast { error: 1 }',
    /< partialDeliver \{ .*messageLength: 1048576, /,
    '> iterationInitialize {',
    '< iterationInitialize { error: 1, handle: ',
    '> iterationNext { handle: ',
    /< iterationNext \{ .*nodeId: 1/,
    '> iterationFinalize { handle: ',
    '< iterationFinalize { error: 1 }',
    /> leave \{ group: 'group', pid: \d+ \}/,
    '< leave { error: 1 }',
    '> finalize {}',
    '< finalize { error: 1 }',
  ])('with DEBUG=cpg:wire shows %s', async (expected) => {
    shown ??= stderr('cpg:wire');
    expect(await shown).toMatch(expected);
  });

  test('with DEBUG=cpg:* also shows its states', async () => {
    const text = await stderr('cpg:*');
    expect(text).toMatch(/cpg:session joining -> joined/);
    expect(text).toMatch(/cpg:transport .* closed by us/);
  });

  test('shows nothing without', async () => {
    expect(await stderr('')).toBe('');
  });
});
