/** The package as ES modules on a real daemon, with its rings in files and mapped. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startCorosync, type CorosyncCluster } from '../support/corosync';
import { describeWithCorosync } from '../support/suites';

jest.setTimeout(60_000);

const ROOT = join(__dirname, '..', '..');
const PROGRAM = `
  import { readFileSync } from 'node:fs';
  import { connect } from 'corosync-cpg';
  const client = await connect({ mapped: process.env.MAPPED === 'true' });
  client.on('deliver', ({ message }) => console.log(message.length, readFileSync('/proc/self/maps', 'utf8').includes('/dev/shm/qb-')));
  await client.join('g');
  await client.mcast(Buffer.alloc(100_000), { confirm: true });
  await client.close();`;

describeWithCorosync('ES modules', () => {
  let cluster: CorosyncCluster;

  beforeAll(async () => {
    cluster = await startCorosync();
  });
  afterAll(() => cluster.stop());

  test.each([false, true])('mapped: %s', async (mapped) => {
    const env = { ...process.env, CPG_ADDRESS: cluster.nodes[0]!.address, MAPPED: String(mapped) };
    const options = { cwd: ROOT, env };
    const { stdout } = await promisify(execFile)('node', ['--input-type=module', '-e', PROGRAM], options);
    expect(stdout).toBe(`100000 ${mapped}\n`);
  });
});
