/** What the matrix says about what it finds; `npm run matrix` is the rest. */
import type { Step } from '../conformance/transcript';
import { firstDifference } from './checks';
import { Table } from './table';

describe('a difference between transcripts', () => {
  const step = (...replies: string[]): Step => ({ step: 'join', replies, events: { a: ['confchg'] } });

  test('none', () => expect(firstDifference([step('CS_OK')], [step('CS_OK')])).toBeUndefined());

  test.each([
    ['a line', [step('CS_ERR_EXIST')], 'in "join", CS_ERR_EXIST instead of CS_OK'],
    ['a line that is missing', [step()], 'in "join", nothing instead of CS_OK'],
    [
      'a line that is there twice',
      [step('CS_OK', 'CS_OK')],
      'in "join", the same lines, in another order or number',
    ],
    ['an event', [{ ...step('CS_OK'), events: {} }], 'in "join", nothing instead of a: confchg'],
    ['a step that is missing', [], 'no step "join"'],
    ['a step more', [step('CS_OK'), step('CS_OK')], 'more steps'],
  ])('%s', (_what, found, difference) => {
    expect(firstDifference([step('CS_OK')], found)).toBe(difference);
  });
});

test('a table has a note for each cell that needs one, and equal notes together', () => {
  const table = new Table(['from', 'libqb'], ['client', 'tap']);
  for (const name of ['old', 'new']) {
    const row = table.row(name, name === 'new', '2.0');
    row.set('tap', 'no');
    row.note('tap', 'it saw nothing');
    row.fail();
    expect(table.failed).toBe(name === 'new');
  }
  expect(table.text().split('\n')).toEqual([
    '| from | libqb | client | tap |',
    '| --- | --- | --- | --- |',
    '| old | 2.0 |  | no |',
    '| new | 2.0 |  | no |',
    '',
    '- old; new: tap: it saw nothing',
  ]);
});
