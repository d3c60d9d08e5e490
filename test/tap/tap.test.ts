/** The tap on directories that a test makes: connections that come, go, change and cannot be read. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TapBatch } from '../../src/tap/live/backlog';
import { Tap } from '../../src/tap/live/tap';
import { makeConnection, numberedFrame } from './support';

/** No process has such a pid. */
const GONE = 2 ** 22 + 1;

describe('a tap', () => {
  let root: string;
  let abort: AbortController;
  let batches: AsyncGenerator<TapBatch, void>;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'cpg-root-'));
    abort = new AbortController();
    batches = new Tap({ directory: root, signal: abort.signal }).batches();
  });
  afterEach(async () => {
    abort.abort();
    await batches.return();
    rmSync(root, { recursive: true, force: true });
  });

  /** The next batch that has something in it. */
  const next = async (): Promise<TapBatch> => {
    const { value } = await batches.next();
    if (value === undefined) throw new Error('the tap ended');
    return value;
  };
  const numbers = ({ frames }: TapBatch): number[] =>
    frames.map(({ bytes }) => Buffer.from(bytes).readUInt32LE(16));

  test('an empty directory, then a connection, its frames, its end', async () => {
    expect(await next()).toMatchObject({ opened: [], frames: [] });
    const { directory, rings } = makeConnection(root, { service: 'cmap', clientPid: process.pid });
    const [connection] = (await next()).opened;
    expect(connection).toMatchObject({ id: 1, service: 'cmap', serverPid: 815, clientPid: process.pid });
    expect(connection!.clientName).not.toBe('');
    rings.request.put(numberedFrame(1, 40));
    const batch = await next();
    expect(numbers(batch)).toEqual([1]);
    expect(batch.frames[0]).toMatchObject({ ring: 'request', old: false, missed: 0, connection });
    // What was written before the directory went is still seen.
    rings.event.put(numberedFrame(2, 40));
    rmSync(directory, { recursive: true });
    const last = await next();
    expect(numbers(last)).toEqual([2]);
    expect(last.closed).toEqual([connection]);
  });

  test('a connection that ended too soon is reported', async () => {
    await next();
    const { directory } = makeConnection(root, { suffix: 'short_' });
    rmSync(directory, { recursive: true });
    expect((await next()).refused).toEqual([
      { directory: 'qb-815-4711-27-short_', reason: 'it was gone before it could be opened' },
    ]);
    // One that was followed is not told again when it is removed.
    const { directory: longer } = makeConnection(root, { suffix: 'longer' });
    expect((await next()).opened).toHaveLength(1);
    rmSync(longer, { recursive: true });
    expect(await next()).toMatchObject({ refused: [], closed: [{ id: 1 }] });
  });

  test('one that was never complete, either', async () => {
    await next();
    const name = 'qb-815-4711-27-halfway';
    mkdirSync(join(root, name));
    const waiting = next();
    await new Promise((done) => setTimeout(done, 50));
    rmSync(join(root, name), { recursive: true });
    expect((await waiting).refused).toEqual([
      { directory: name, reason: 'it was gone before it could be opened' },
    ]);
  });

  test('older frames are marked as old', async () => {
    const { rings } = makeConnection(root);
    rings.request.put(numberedFrame(1, 40));
    rings.request.take();
    const first = await next();
    expect(first.frames).toMatchObject([{ old: true, consumed: true }]);
    rings.request.put(numberedFrame(2, 40));
    expect((await next()).frames).toMatchObject([{ old: false, consumed: false }]);
  });

  test('a sampled connection is followed in full again after the flood', async () => {
    await next();
    const { rings } = makeConnection(root, { words: 16_384 });
    await next();
    const send = (from: number, count: number): void => {
      for (let number = from; number < from + count; number++) {
        rings.event.put(numberedFrame(number, 100));
        rings.event.take();
      }
    };
    send(0, 1000);
    let missed = 0;
    for (let newest: number | undefined = -1; newest !== 999;) {
      const flooded = await next();
      missed += flooded.frames.reduce((sum, frame) => sum + frame.missed, 0);
      newest = numbers(flooded).at(-1);
    }
    expect(missed).toBeGreaterThan(0);
    // Less than the ring holds, at a rate that can be followed: all of it comes.
    const later: number[] = [];
    const following = (async () => {
      while (later.at(-1) !== 1599) {
        const batch = await next();
        expect(batch.frames.every(({ missed: count }) => count === 0)).toBe(true);
        later.push(...numbers(batch));
      }
    })();
    for (let from = 1000; from < 1600; from += 30) {
      send(from, 30);
      await new Promise((done) => setTimeout(done, 10));
    }
    await following;
    expect(later).toEqual(Array.from({ length: 600 }, (_, index) => 1000 + index));
  });

  test('early losses of a new connection are reported, those of an older one are not', async () => {
    const flood = (suffix: string): void => {
      const { rings } = makeConnection(root, { suffix });
      for (let number = 0; number < 1000; number++) {
        rings.event.put(numberedFrame(number, 100));
        rings.event.take();
      }
    };
    flood('before');
    for (let newest: number | undefined = -1; newest !== 999;) {
      const batch = await next();
      expect(batch.frames.every(({ old, missed }) => old && missed === 0)).toBe(true);
      newest = numbers(batch).at(-1);
    }
    flood('fresh_');
    const { frames } = await next();
    expect(frames[0]).toMatchObject({ old: false });
    expect(frames[0]!.missed).toBeGreaterThan(0);
  });

  test('rings that change under it are given up with a reason, others go on', async () => {
    const broken = makeConnection(root, { suffix: 'broken' });
    const sound = makeConnection(root, { suffix: 'sound_' });
    expect((await next()).opened).toHaveLength(2);
    broken.rings.event.setPointer(1_000_000);
    const batch = await next();
    expect(batch.refused).toEqual([
      { directory: 'qb-815-4711-27-broken', reason: expect.stringMatching(/pointers 1000000/) as string },
    ]);
    expect(batch.closed).toHaveLength(1);
    sound.rings.event.put(numberedFrame(7, 40));
    expect(numbers(await next())).toEqual([7]);
  });

  test('directories that are no connections', async () => {
    mkdirSync(join(root, 'qb-1-2-3-empty'));
    mkdirSync(join(root, 'something else'));
    writeFileSync(join(root, 'qb-1-2-3-file'), '');
    const { directory, rings } = makeConnection(root, { suffix: 'strange' });
    rings.request.truncate(12);
    expect((await next()).opened).toEqual([]);
    const refused: string[] = [];
    while (refused.length < 3) refused.push(...(await next()).refused.map(({ directory: name }) => name));
    expect(refused.sort()).toEqual(['qb-1-2-3-empty', 'qb-1-2-3-file', 'qb-815-4711-27-strange']);
    expect(directory).toContain('strange');
  });

  test('leftovers of a crash are reported once, and their frames are still read', async () => {
    const { rings } = makeConnection(root, { serverPid: GONE, clientPid: GONE + 1 });
    rings.request.put(numberedFrame(1, 40));
    for (const ring of Object.values(rings)) ring.close();
    expect(numbers(await next())).toEqual([1]);
    const { remarks } = await next();
    expect(remarks).toEqual([
      {
        directory: `qb-${GONE}-${GONE + 1}-27-AbCdEf`,
        text: expect.stringMatching(/^its daemon .* are gone/) as string,
      },
    ]);
  });

  test('a directory that is half made says what is missing, and a ring that is none which one it is', async () => {
    const half = makeConnection(root, { serverPid: GONE, clientPid: 0, suffix: 'half__' });
    rmSync(join(half.directory, 'qb-event-cpg-data'));
    const strange = makeConnection(root, { serverPid: process.pid, suffix: 'short_' });
    strange.rings.response.truncate(12);
    const found: TapBatch['refused'] = [];
    while (found.length < 2) found.push(...(await next()).refused);
    const reasons = Object.fromEntries(found.map(({ directory, reason }) => [directory.slice(-6), reason]));
    expect(reasons['half__']).toMatch(/^it is half made: qb-event-cpg-data not there; its daemon .* is gone/);
    expect(reasons['short_']).toMatch(/^its response ring: .*a ring of 4096 words in a file of 12 bytes/);
  });

  test('a process is named only when it has the rings, whatever the pid in the name says', async () => {
    const foreign = makeConnection(root, { serverPid: process.ppid, clientPid: process.pid });
    const [known] = (await next()).opened;
    expect(known).toMatchObject({ serverName: '' });
    expect(known!.clientName).not.toBe('');
    for (const ring of Object.values(foreign.rings)) ring.close();
    makeConnection(root, { serverPid: process.pid, clientPid: process.ppid, suffix: 'turned' });
    const [turned] = (await next()).opened;
    expect(turned).toMatchObject({ clientName: '' });
    expect(turned!.serverName).not.toBe('');
  });

  const asOther = process.geteuid?.() === 0 ? test : test.skip;
  asOther('a connection without read permission is reported once', async () => {
    const { directory } = makeConnection(root);
    chmodSync(root, 0o755);
    chmodSync(directory, 0o700);
    process.seteuid!(65534);
    try {
      const { refused } = await next();
      expect(refused).toEqual([{ directory: 'qb-815-4711-27-AbCdEf', reason: 'permission denied' }]);
    } finally {
      process.seteuid!(0);
    }
  });

  test('a directory that cannot be read is an error with advice', async () => {
    rmSync(root, { recursive: true });
    await expect(batches.next()).rejects.toMatchObject({
      code: 'CS_ERR_ACCESS',
      message: expect.stringMatching(/cannot be read \(ENOENT\)/) as string,
    });
  });

  test('the end comes at once, also in a pause', async () => {
    await next();
    const waiting = batches.next();
    abort.abort();
    expect((await waiting).done).toBe(true);
  });
});
