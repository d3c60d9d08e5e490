/** Causes that need another machine around the error. */
import fs from 'node:fs';
import { diagnose, type Diagnosis, type Surroundings } from '../../src/cli/doctor';
import { CpgError } from '../../src/errors';
import { startServer } from '../../src/server';
import { cli } from './harness';

const empty: Surroundings = { daemons: [], abstractNames: [], ringsInShm: false, socketExists: () => false };
const failed = (syscall: string, code = 'ECONNREFUSED'): CpgError =>
  new CpgError('CS_ERR_LIBRARY', 'x', { cause: Object.assign(new Error(code), { code, syscall }) });
const refused = failed('connect');
const diagnosed = (error: CpgError, address: string, around: Partial<Surroundings>): Diagnosis =>
  diagnose(error, address, { ...empty, ...around });

test.each<[string, CpgError, Partial<Surroundings>, string, RegExp | undefined]>([
  ['no daemon', refused, {}, 'not-running', /systemctl start/],
  [
    'a daemon elsewhere',
    refused,
    { daemons: [{ pid: 7, sameNetwork: false }] },
    'network-namespace',
    /nsenter --target 7/,
  ],
  ['rings without a daemon', refused, { ringsInShm: true }, 'network-namespace', /--network=host/],
  ['a daemon that is starting', refused, { daemons: [{ pid: 7, sameNetwork: true }] }, 'starting', /wait/],
  [
    'another address',
    refused,
    { daemons: [{ pid: 7, sameNetwork: true }], abstractNames: ['cpg'] },
    'other-address',
    /--address @cpg/,
  ],
  [
    'sockets in the file system',
    refused,
    { daemons: [{ pid: 7, sameNetwork: true }], socketExists: (path) => path === '/run/cpg' },
    'other-address',
    /--address \/run\/cpg/,
  ],
  [
    'a daemon that cannot be looked at',
    refused,
    { daemons: [{ pid: 7, sameNetwork: undefined }] },
    'unknown',
    undefined,
  ],
  ['rings that are elsewhere', failed('open', 'ENOENT'), {}, 'shm-not-shared', /--ipc=host/],
  ['a refusal', new CpgError('CS_ERR_ACCESS'), {}, 'permission', undefined],
  ['no room', new CpgError('CS_ERR_NO_SPACE'), {}, 'shm-too-small', undefined],
  ['not ready', new CpgError('CS_ERR_TRY_AGAIN'), {}, 'starting', undefined],
  ['silence', new CpgError('CS_ERR_TIMEOUT'), {}, 'not-answering', undefined],
  ['nonsense', new CpgError('CS_ERR_MESSAGE_ERROR'), {}, 'not-corosync', undefined],
])('%s', (_, error, around, cause, remedy) => {
  const diagnosis = diagnosed(error, '@other', around);
  expect(diagnosis.cause).toBe(cause);
  if (remedy === undefined) expect(diagnosis.remedy).toBeUndefined();
  else expect(diagnosis.remedy).toMatch(remedy);
});

describe('a path has nothing to do with network namespaces', () => {
  const absent = failed('connect', 'ENOENT');
  const elsewhere = { daemons: [{ pid: 7, sameNetwork: false }] };

  test('nobody there and no daemon', () => {
    const { cause, findings } = diagnosed(absent, '/run/x/cpg', { ringsInShm: true });
    expect(cause).toBe('not-running');
    expect(findings[0]).toBe('There is no file /run/x/cpg.');
  });

  test('a socket that its daemon left behind', () => {
    const { cause, findings } = diagnosed(refused, '/run/x/cpg', { socketExists: () => true });
    expect(cause).toBe('not-running');
    expect(findings[0]).toBe('There is a file /run/x/cpg, and nobody listens behind it.');
  });

  test('a daemon that listens elsewhere', () => {
    const around = { ...elsewhere, socketExists: (path: string) => path === '/run/cpg' };
    const { cause, remedy } = diagnosed(absent, '/run/x/cpg', around);
    expect(cause).toBe('other-address');
    expect(remedy).toContain('--address /run/cpg');
    expect(diagnosed(absent, '/run/x/cpg', elsewhere).remedy).toContain('--address @cpg');
  });

  test('a socket that may not be opened is no matter of the uidgid stanza', () => {
    const error = new CpgError('CS_ERR_ACCESS', 'x', {
      cause: Object.assign(new Error('EACCES'), { code: 'EACCES', syscall: 'connect' }),
    });
    const { cause, remedy } = diagnosed(error, '/run/x/cpg', {});
    expect(cause).toBe('permission');
    expect(remedy).toContain('/run/x/cpg');
  });
});

test('a daemon that is reached may all the same have no room for another connection', async () => {
  const server = await startServer();
  const space = Object.assign(fs.statfsSync('/dev/shm'), { bsize: 4096, bavail: 100, blocks: 16_384 });
  const statfs = jest.spyOn(fs, 'statfsSync').mockReturnValue(space);
  try {
    const { code, stdout } = await cli(['info', '--address', server.address]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\/dev\/shm +0 MB free of 67, too little for another connection: .*--shm-size/m);
  } finally {
    statfs.mockRestore();
    await server.close();
  }
});
