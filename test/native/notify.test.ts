/** sd_notify, as `cpg serve` and `cpg tap --write` do it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findDatagrams } from '../../src/native';
import { notifyReady } from '../../src/native/notify';
import type { DatagramAddress } from '../../src/native/datagram';

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'notify-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

test('READY goes to a path', async () => {
  const local: DatagramAddress = { kind: 'path', name: join(directory, 'notify') };
  const manager = findDatagrams('path')!.open({ local, frameBytes: 4096 });
  const got = new Promise<string>((resolve) => {
    manager.listen({
      onFrame: (frame) => {
        resolve(String(frame));
        return true;
      },
      onSent: () => undefined,
      onEnd: () => undefined,
    });
  });
  expect(notifyReady({ NOTIFY_SOCKET: local.name })).toBe(true);
  expect(await got).toBe('READY=1');
  await manager.close();
});

test.each([undefined, '', 'vsock:2:1', '/nowhere/notify', '@nobody', `/${'x'.repeat(200)}`])(
  'NOTIFY_SOCKET %s: nothing is told, and nothing goes wrong',
  (given) => expect(notifyReady({ NOTIFY_SOCKET: given })).toBe(false),
);
