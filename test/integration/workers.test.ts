/** What a worker leaves in its process that is ended by terminate(), in the middle of its work. */
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { builtCli } from '../cli/harness';
import { startCorosync, type CorosyncCluster } from '../support/corosync';
import { describeWithCorosync } from '../support/suites';

jest.setTimeout(60_000);

const PACKAGE = JSON.stringify(dirname(dirname(builtCli())));

describeWithCorosync('a worker that is terminated', () => {
  let cluster: CorosyncCluster;
  beforeAll(async () => {
    cluster = await startCorosync();
  });
  afterAll(() => cluster.stop());

  test.each([true, false])('leaves no mapping and no descriptor (mapped: %s)', (mapped) => {
    const worker = `
      const { connect } = require(${PACKAGE});
      const { parentPort, threadId } = require('node:worker_threads');
      (async () => {
        const client = await connect({ address: ${JSON.stringify(cluster.nodes[0]!.address)}, mapped: ${mapped} });
        client.on('deliver', () => {});
        await client.join('g' + threadId);
        parentPort.postMessage('up');
        for (;;) await Promise.all(Array.from({ length: 50 }, (_, index) => client.mcast(Buffer.alloc(index * 100))));
      })();`;
    const program = `
      const fs = require('node:fs');
      const { Worker } = require('node:worker_threads');
      const mappings = () => fs.readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => /\\/qb-/.test(line)).length;
      const descriptors = () => fs.readdirSync('/proc/self/fd').flatMap((fd) => {
        try { return [fs.readlinkSync('/proc/self/fd/' + fd)]; } catch { return []; }
      }).filter((target) => /qb-/.test(target)).length;
      (async () => {
        let most = 0;
        for (let round = 0; round < 6; round++) {
          const workers = [1, 2].map(() => new Worker(${JSON.stringify(worker)}, { eval: true }));
          await Promise.all(workers.map((one) => new Promise((resolve, reject) => one.once('message', resolve).once('error', reject))));
          most = Math.max(most, mappings());
          await Promise.all(workers.map((one) => one.terminate()));
        }
        console.log(JSON.stringify({ most, mappings: mappings(), descriptors: descriptors() }));
        process.exit(0);
      })();`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], {
      encoding: 'utf8',
      timeout: 50_000,
    });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({ most: mapped ? 12 : 0, mappings: 0, descriptors: 0 });
  });
});
