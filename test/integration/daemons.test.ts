/** The tests' own daemons: what they say when they do not start. */
import { startCorosync } from '../support/corosync';
import { describeWithCorosync } from '../support/suites';

describeWithCorosync('a daemon that dies at start', () => {
  test.each([
    ['while it reads its configuration', { totem: { crypto_cipher: 'nonsense' } }, /crypto_cipher|cipher/],
    ['for the way it is to listen', { system: { qb_ipc_type: 'nonsense' } }, /qb_ipc_type/],
    ['because of its key', { totem: { keyfile: '/nonexistent/key' } }, /\/nonexistent\/key/],
  ])('%s shows its log', async (_, config, text) => {
    const error = await startCorosync({ config }).catch(String);
    expect(error).toMatch(/^Error: node 1 ended \(status \d+\) while waiting for the cluster to settle\n/);
    expect(error).toMatch(text);
  });
});
