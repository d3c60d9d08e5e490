/** The names of libqb's rings: created, and parsed as by a client and a tap. */
import {
  connectionOf,
  directoryPrefix,
  forEachRing,
  pidsOf,
  RING_NAMES,
  ringFiles,
  ringStem,
  missingFiles,
  serviceOf,
  type RingName,
} from '../../src/ring/paths';

const DIRECTORY = '/dev/shm/qb-815-4711-27-AbCdEf';

function stems(directory: string, service = 'cpg', changed: Partial<Record<RingName, string>> = {}) {
  const [request, response, event] = RING_NAMES.map((ring) => ringStem(directory, ring, service));
  return { request: request!, response: response!, event: event!, ...changed };
}

test('a directory named by a server contains its pids', () => {
  expect(pidsOf(`${directoryPrefix(815, 4711, 27)}AbCdEf`)).toEqual({ serverPid: 815, clientPid: 4711 });
});

test.each([
  '',
  'qb-815-4711-27',
  'qb-815-4711-27-',
  'qb-a-4711-27-AbCdEf',
  'xqb-1-2-3-A',
  'qb-1-2-3-A/b',
  'qb-1-2-A',
])('%j is no directory of a connection', (name) => expect(pidsOf(name)).toBeUndefined());

test('the rings of any service in one directory are a connection', () => {
  for (const service of ['cpg', 'cmap', 'a-b'])
    expect(connectionOf(stems(DIRECTORY, service))).toEqual({
      directory: DIRECTORY,
      serverPid: 815,
      clientPid: 4711,
    });
});

test.each([
  ['a relative directory', stems('qb-815-4711-27-AbCdEf')],
  ['a directory of another kind', stems('/dev/shm/elsewhere')],
  ['a way around', stems('/dev/shm', 'cpg', { event: `${DIRECTORY}/../x/qb-event-cpg` })],
  [
    'a directory with ..',
    { ...stems(DIRECTORY), request: `${DIRECTORY}/../qb-815-4711-27-AbCdEf/qb-request-cpg` },
  ],
  [
    'two directories',
    stems(DIRECTORY, 'cpg', { event: ringStem('/dev/shm/qb-815-4711-27-Other', 'event', 'cpg') }),
  ],
  ['two services', stems(DIRECTORY, 'cpg', { event: ringStem(DIRECTORY, 'event', 'cmap') })],
  ['one ring twice', stems(DIRECTORY, 'cpg', { event: ringStem(DIRECTORY, 'request', 'cpg') })],
  ['no service', stems(DIRECTORY, '')],
  ['no names', { request: '', response: '', event: '' }],
])('%s is no connection', (_, names) => expect(connectionOf(names)).toBeUndefined());

test('the request ring gives the service, and the service gives the expected files', () => {
  const files = RING_NAMES.flatMap((ring) => ringFiles(`qb-${ring}-a-b`));
  expect(serviceOf([...files, 'something'])).toBe('a-b');
  expect(serviceOf(files.slice(1))).toBeUndefined();
  expect(missingFiles('a-b', files)).toEqual([]);
  for (const missing of files)
    expect(
      missingFiles(
        'a-b',
        files.filter((file) => file !== missing),
      ),
    ).toEqual([missing]);
});

test('what was created for one ring is closed if the next one fails', () => {
  const closed: string[] = [];
  const make = (ring: RingName): { close: () => void } => {
    if (ring === 'event') throw new Error('no event ring');
    return { close: () => closed.push(ring) };
  };
  expect(() => forEachRing(make)).toThrow('no event ring');
  expect(closed).toEqual(['request', 'response']);
  expect(Object.keys(forEachRing((ring) => ({ ring, close: () => undefined })))).toEqual(RING_NAMES);
});
