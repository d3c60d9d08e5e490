/** Addresses from users, and the socket names they mean. */
import type { existsSync } from 'node:fs';
import { connect } from '../../src';
import { startServer } from '../../src/server';
import { resolveAddress } from '../../src/transport/address';
import { rejectionOf, thrownBy } from '../support/errors';

const none = (): boolean => false;
const FORCED = '/etc/libqb/force-filesystem-sockets';

describe('an abstract socket', () => {
  test('is padded with NUL to the 108 bytes of sun_path', () => {
    const { path, text } = resolveAddress('@cpg', none);
    expect(text).toBe('@cpg');
    expect(path).toBe(`\0cpg${'\0'.repeat(104)}`);
    expect(Buffer.byteLength(path)).toBe(108);
  });

  test('is padded by bytes, not by characters', () => {
    expect(Buffer.byteLength(resolveAddress('@größe', none).path)).toBe(108);
  });

  test('has at most 107 bytes', () => {
    expect(resolveAddress(`@${'x'.repeat(107)}`, none).path).toBe(`\0${'x'.repeat(107)}`);
    expect(thrownBy(() => resolveAddress(`@${'x'.repeat(108)}`, none)).code).toBe('CS_ERR_INVALID_PARAM');
    expect(thrownBy(() => resolveAddress(`@${'ö'.repeat(54)}`, none)).code).toBe('CS_ERR_INVALID_PARAM');
  });
});

describe('a filesystem socket', () => {
  test('is used unchanged', () => {
    expect(resolveAddress('/run/cpg', none)).toEqual({ text: '/run/cpg', path: '/run/cpg' });
  });

  test('has at most 107 bytes, since the system adds a NUL', () => {
    const longest = `/${'x'.repeat(106)}`;
    expect(resolveAddress(longest, none).path).toBe(longest);
    expect(thrownBy(() => resolveAddress(`${longest}x`, none)).code).toBe('CS_ERR_INVALID_PARAM');
  });
});

test.each(['', '@', 'cpg', 'run/cpg', './cpg', '\0cpg', '@c\0pg', '/run/\0', ' @cpg'])(
  '%j is refused',
  (text) => {
    const error = thrownBy(() => resolveAddress(text, none));
    expect(error.code).toBe('CS_ERR_INVALID_PARAM');
    expect(error.message).toContain('@name');
  },
);

describe('when libqb is set to use filesystem sockets', () => {
  test.each(['/run/cpg', '/var/run/cpg', '/tmp/cpg'])('@cpg is found at %s', (path) => {
    expect(resolveAddress('@cpg', (file) => file === FORCED || file === path).path).toBe(path);
  });

  test('@cpg means the first of these places if none exists', () => {
    expect(resolveAddress('@cpg', (file) => file === FORCED).path).toBe('/run/cpg');
  });

  test('the other places can be tried', () => {
    const exists: typeof existsSync = (file) => file === FORCED || file === '/run/cpg' || file === '/tmp/cpg';
    expect(resolveAddress('@cpg', exists)).toMatchObject({ path: '/run/cpg', others: ['/tmp/cpg'] });
  });

  test('a path stays a path', () => {
    expect(resolveAddress('/somewhere', (file) => file === FORCED).path).toBe('/somewhere');
  });
});

describe('without an address', () => {
  const before = process.env['CPG_ADDRESS'];
  afterEach(() => {
    if (before === undefined) delete process.env['CPG_ADDRESS'];
    else process.env['CPG_ADDRESS'] = before;
  });

  test('the environment variable is used', () => {
    process.env['CPG_ADDRESS'] = '/from/the/environment';
    expect(resolveAddress(undefined, none).path).toBe('/from/the/environment');
  });

  test('else @cpg, also if the variable is empty', () => {
    delete process.env['CPG_ADDRESS'];
    expect(resolveAddress(undefined, none).text).toBe('@cpg');
    process.env['CPG_ADDRESS'] = '';
    expect(resolveAddress(undefined, none).text).toBe('@cpg');
  });

  test('a bad one in the environment is refused like any other', () => {
    process.env['CPG_ADDRESS'] = 'nonsense';
    expect(thrownBy(() => resolveAddress(undefined, none)).code).toBe('CS_ERR_INVALID_PARAM');
  });
});

describe('before Node 20.8, which cuts names at the first NUL', () => {
  const { versions } = process;
  const become = (value: NodeJS.ProcessVersions): void =>
    void Object.defineProperty(process, 'versions', { value, configurable: true });
  beforeEach(() => become({ ...versions, node: '20.7.0' }));
  afterEach(() => become(versions));

  test('no abstract socket is connected to', async () => {
    const error = await rejectionOf(connect({ address: '@cpg' }));
    expect(error).toMatchObject({ code: 'CS_ERR_NOT_SUPPORTED', reason: 'old-node' });
    expect(error.message).toMatch(/Node 20\.7\.0 cannot connect to the abstract socket @cpg: .*20\.8/);
  });

  test('no server listens at one, but at a path', async () => {
    const error = await rejectionOf(startServer({ address: '@diagnosis' }));
    expect(error).toMatchObject({ code: 'CS_ERR_NOT_SUPPORTED', reason: 'old-node' });
    expect(error.message).toMatch(/Node 20\.7\.0 cannot listen at the abstract socket @diagnosis: .*20\.8/);
    const server = await startServer();
    await (await server.connect()).close();
    await server.close();
  });
});
