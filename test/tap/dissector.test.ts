/** The Wireshark dissector on captures that a test makes: every packet names its message, group and node. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { encodeEvent } from '../../src/codec/events';
import { encodeRequest } from '../../src/codec/requests';
import { encodeResponse } from '../../src/codec/responses';
import { groupLabel } from '../../src/codec/groups';
import { CaptureWriter } from '../../src/tap/capture/writer';
import type { TapFrame } from '../../src/tap/frames';
import { CONNECTION, frame } from './support';

const DISSECTOR = resolve(__dirname, '..', '..', 'dissector', 'qbcpg.lua');
const withTshark = spawnSync('tshark', ['--version']).error === undefined ? test : test.skip;

/** The fields of each packet, as tshark prints them. */
function dissected(frames: readonly TapFrame[], fields: readonly string[]): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'cpg-dissector-'));
  try {
    const file = join(directory, 'made.pcapng');
    const writer = new CaptureWriter();
    writeFileSync(file, Buffer.concat([writer.begin(), writer.frames(frames), writer.end()]));
    const { stdout } = spawnSync(
      'tshark',
      [
        ...['-X', `lua_script:${DISSECTOR}`, '-r', file, '-T', 'fields', '-E', 'separator=|'],
        ...fields.flatMap((field) => ['-e', field]),
      ],
      { encoding: 'utf8' },
    );
    return stdout.trimEnd().split('\n');
  } finally {
    rmSync(directory, { recursive: true });
  }
}

withTshark(
  'names that are not ASCII, large frames in several packets, and messages without a node id',
  () => {
    const group = Buffer.from('grüße');
    const message = Buffer.alloc(300_000, 'x');
    const frames = [
      frame('request', encodeRequest({ type: 'localGet' })),
      frame('response', encodeResponse({ type: 'localGet', error: 1, nodeId: 7 })),
      frame('request', encodeRequest({ type: 'join', group, pid: 4711, flags: 0 })),
      frame('response', encodeResponse({ type: 'join', error: 1 })),
      frame('request', encodeRequest({ type: 'mcast', guarantee: 0, message })),
      frame('event', encodeEvent({ type: 'deliver', group, nodeId: 8, pid: 1, message })),
    ];
    const fields = ['qbcpg.message', 'qbcpg.group', 'qbcpg.nodeid', 'qbcpg.offset', '_ws.expert'];
    expect(dissected(frames, fields)).toEqual([
      'localGet|||0|',
      'localGet||7|0|',
      'join|grüße|7|0|',
      'join|grüße|7|0|',
      'mcast|grüße|7|0|',
      'mcast|grüße|7|260096|',
      'deliver|grüße|8|0|',
      'deliver|grüße|8|260096|',
    ]);
  },
);

withTshark('names of groups as cpg prints them, to their end', () => {
  const names = [
    Buffer.from('crmd\0'),
    Buffer.from('a\nb\tc\u001b[31m\\'),
    Buffer.from('0x41'),
    Buffer.from('\u009b\u202e\ufeff\ufffdgrüße🙂'),
    ...['ff00', 'c080', 'eda080', 'f4908080', 'e282'].map((hex) => Buffer.from(hex, 'hex')),
  ];
  const lines = dissected(
    names.flatMap((group, index) => {
      const connection = { ...CONNECTION, id: index + 1 };
      return [
        frame(
          'event',
          encodeEvent({ type: 'deliver', group, nodeId: 8, pid: 1, message: Buffer.from('x') }),
          { connection },
        ),
        frame('request', encodeRequest({ type: 'mcast', guarantee: 0, message: Buffer.from('x') }), {
          connection,
        }),
      ];
    }),
    ['_ws.col.Info', 'qbcpg.group', '_ws.expert'],
  );
  expect(lines).toEqual(
    names
      .map(groupLabel)
      .flatMap((label) => [
        `deliver event "${label}" from 8:1, 1 byte|${label}|`,
        `mcast request "${label}" 1 byte|${label}|`,
      ]),
  );
});

withTshark('frames whose size is wrong are malformed; errors of other services have no name of ours', () => {
  const bytes = (length: number, size: number, error = 0): Buffer => {
    const made = Buffer.alloc(length);
    made.writeInt32LE(size, 8);
    made.writeInt32LE(error, 16);
    return made;
  };
  const connection = { ...CONNECTION, service: 'cib_rw' };
  const frames = [
    frame('request', bytes(40, 41), { connection }),
    frame('response', bytes(20, 20), { connection }),
    frame('response', bytes(24, 24, 12), { connection }),
    frame('response', bytes(24, 24, 12), { connection: { ...CONNECTION, id: 2, service: 'cmap' } }),
  ];
  expect(dissected(frames, ['_ws.expert.message', '_ws.col.Info'])).toEqual([
    'says 41 bytes on a frame of 40|id 0 request',
    '20 bytes, where a header has 24|id 0 response',
    '|id 0 response error 12',
    '|set response CS_ERR_NOT_EXIST',
  ]);
});
