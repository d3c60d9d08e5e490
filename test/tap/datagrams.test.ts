/** Connections by datagrams cannot be followed, and the tap says so. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Discovery, type Refused } from '../../src/tap/live/discovery';

let laterMs = 0;
jest.mock('../../src/clock', () => ({
  ...jest.requireActual<object>('../../src/clock'),
  wallClockMs: () => Date.now() + laterMs,
}));

test('a connection by datagrams is refused, with the cause', () => {
  const root = mkdtempSync(join(tmpdir(), 'tap-'));
  try {
    const directory = 'qb-1-2-3-abcdef';
    mkdirSync(join(root, directory));
    writeFileSync(join(root, directory, 'qb-control-cpg'), Buffer.alloc(24));
    const discovery = new Discovery(root);
    const refused: Refused[] = [];
    const look = (): void => void discovery.open(directory, () => 'followed', refused);
    look();
    laterMs = 60_000;
    look();
    look();
    expect(refused).toEqual([{ directory, reason: expect.stringMatching(/datagrams.*relay/) as string }]);
  } finally {
    rmSync(root, { recursive: true });
  }
});
