/** Connections by datagrams cannot be followed, and the tap says so. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Discovery, type Refused } from '../../src/tap/live/discovery';

test('a connection by datagrams is refused, with the cause', () => {
  const root = mkdtempSync(join(tmpdir(), 'tap-'));
  const now = jest.spyOn(Date, 'now');
  try {
    const directory = 'qb-1-2-3-abcdef';
    mkdirSync(join(root, directory));
    writeFileSync(join(root, directory, 'qb-control-cpg'), Buffer.alloc(24));
    const discovery = new Discovery(root);
    const refused: Refused[] = [];
    const look = (): void => void discovery.open(directory, () => 'followed', refused);
    look();
    now.mockReturnValue(Date.now() + 60_000);
    look();
    look();
    expect(refused).toEqual([{ directory, reason: expect.stringMatching(/datagrams.*relay/) as string }]);
  } finally {
    now.mockRestore();
    rmSync(root, { recursive: true });
  }
});
