/** The Wireshark dissector on captures that a test makes: every packet names its message, group and node. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { encodeEvent } from '../../src/codec/events';
import { encodeRequest } from '../../src/codec/requests';
import { encodeResponse } from '../../src/codec/responses';
import { CaptureWriter } from '../../src/tap/capture/writer';
import { frame } from './support';

const DISSECTOR = resolve(__dirname, '..', '..', 'dissector', 'qbcpg.lua');
const withTshark = spawnSync('tshark', ['--version']).error === undefined ? test : test.skip;

withTshark(
  'names that are not ASCII, large frames in several packets, and messages without a node id',
  () => {
    const group = Buffer.from('grüße');
    const message = Buffer.alloc(300_000, 'x');
    const writer = new CaptureWriter();
    const capture = writer.frames([
      frame('request', encodeRequest({ type: 'localGet' })),
      frame('response', encodeResponse({ type: 'localGet', error: 1, nodeId: 7 })),
      frame('request', encodeRequest({ type: 'join', group, pid: 4711, flags: 0 })),
      frame('response', encodeResponse({ type: 'join', error: 1 })),
      frame('request', encodeRequest({ type: 'mcast', guarantee: 0, message })),
      frame('event', encodeEvent({ type: 'deliver', group, nodeId: 8, pid: 1, message })),
    ]);
    const directory = mkdtempSync(join(tmpdir(), 'cpg-dissector-'));
    try {
      const file = join(directory, 'made.pcapng');
      writeFileSync(file, Buffer.concat([writer.begin(), capture, writer.end()]));
      const fields = ['qbcpg.message', 'qbcpg.group', 'qbcpg.nodeid', 'qbcpg.offset', '_ws.expert'];
      const { stdout } = spawnSync(
        'tshark',
        [
          ...['-X', `lua_script:${DISSECTOR}`, '-r', file, '-T', 'fields', '-E', 'separator=|'],
          ...fields.flatMap((field) => ['-e', field]),
        ],
        { encoding: 'utf8' },
      );
      expect(stdout.trimEnd().split('\n')).toEqual([
        'localGet|||0|',
        'localGet||7|0|',
        'join|grüße|7|0|',
        'join|grüße|7|0|',
        'mcast|grüße|7|0|',
        'mcast|grüße|7|260096|',
        'deliver|grüße|8|0|',
        'deliver|grüße|8|260096|',
      ]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
