/** Handshake answers of daemons that were built for other machines, as a C compiler lays them out. */
import { decodeHandshakeResponse } from '../../src/codec';
import { foreignMachine } from '../../src/codec/handshake';
import { loadCapture, loadForeign } from '../support/fixtures';

const foreign = loadForeign();

test.each([
  ['little-64', undefined],
  ['little-32', '32-bit'],
  ['big-64', 'byte-order'],
  ['big-32', 'byte-order'],
] as const)('%s', (machine, expected) => {
  expect(foreignMachine(foreign[machine].accepted)).toBe(expected);
  expect(foreignMachine(foreign[machine].datagrams)).toBe(expected);
});

test('the answer of a 32-bit daemon would pass for one of ours, with names cut short', () => {
  expect(decodeHandshakeResponse(foreign['little-32'].accepted)).toMatchObject({
    error: 0,
    connectionType: 1,
    request: '/shm/qb-4711-815-31-AbCdEf/qb-request-cpg',
  });
});

test('the byte order shows in the first 12 bytes, also of a refusal', () => {
  expect(foreignMachine(foreign['big-64'].refused.subarray(0, 12))).toBe('byte-order');
  expect(foreignMachine(foreign['big-64'].refused.subarray(0, 11))).toBeUndefined();
  expect(foreignMachine(foreign['little-32'].refused)).toBeUndefined();
});

test('recorded answers of this machine are not foreign', () => {
  const answers = loadCapture('one-node').filter(({ dir }) => dir === 'handshake-response');
  expect(answers.length).toBeGreaterThan(0);
  for (const { bytes } of answers) expect(foreignMachine(bytes)).toBeUndefined();
});
