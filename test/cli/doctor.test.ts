/** Causes that need another machine around the error. */
import { diagnose, type Surroundings } from '../../src/cli/doctor';
import { CpgError } from '../../src/errors';

const empty: Surroundings = { daemons: [], abstractNames: [], ringsInShm: false, socketExists: () => false };
const failed = (syscall: string, code = 'ECONNREFUSED'): CpgError =>
  new CpgError('CS_ERR_LIBRARY', 'x', { cause: Object.assign(new Error(code), { code, syscall }) });
const refused = failed('connect');

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
  const diagnosis = diagnose(error, '@other', { ...empty, ...around });
  expect(diagnosis.cause).toBe(cause);
  if (remedy === undefined) expect(diagnosis.remedy).toBeUndefined();
  else expect(diagnosis.remedy).toMatch(remedy);
});
