/** What `cpg info` says of a machine on which it reaches a daemon; causes.test.ts has those on which it does not. */
import fs from 'node:fs';
import { startServer } from '../../src/server';
import { cli } from './harness';

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

test('a lack of files may be the cause', async () => {
  const server = await startServer();
  const space = Object.assign(fs.statfsSync('/dev/shm'), { files: 1000, ffree: 2 });
  const statfs = jest.spyOn(fs, 'statfsSync').mockReturnValue(space);
  try {
    const { stdout } = await cli(['info', '--address', server.address]);
    expect(stdout).toMatch(
      /^\/dev\/shm .*2 files free of 1000, too little for another connection: .*nr_inodes/m,
    );
  } finally {
    statfs.mockRestore();
    await server.close();
  }
});

test('an address that is none is no matter of the daemon', async () => {
  const { code, stderr } = await cli(['info', '--address', 'nonsense']);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^cpg: [^\n]+CS_ERR_INVALID_PARAM[^\n]+\n$/);
});
