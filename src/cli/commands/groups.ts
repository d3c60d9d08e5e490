import { defineCommand } from '../command';
import { withClient } from '../connect';
import { jsonGroup, jsonLine } from '../json';
import { flag } from '../options';
import { groupLabel } from '../text';
import { requestTimeout } from './shared';

export const groups = defineCommand({
  name: 'groups',
  summary: 'list all groups and their members',
  description: [
    'Prints every member of every group in the cluster, one per line: NODEID:PID, a space, and the group name.',
    'Unprintable bytes of a name are printed as escapes (\\0, \\n, \\xNN), and a name that is not UTF-8 in hex (0x...). Other commands accept the name as printed. JSON has the name itself, in base64 when it is not UTF-8.',
  ],
  options: {
    names: flag('print only the group names'),
    timeout: requestTimeout,
  },
  examples: [
    { command: 'cpg groups', meaning: 'Who is in which group?' },
    { command: 'cpg groups --names', meaning: 'Which groups are there?' },
  ],
  run: (context, { address, json, names, timeout }) =>
    withClient(context, { address, timeoutMs: timeout }, async (client) => {
      const { out, signal } = context;
      for await (const { group, nodeId, pid } of client.groups({ namesOnly: names, signal })) {
        if (json) {
          await out.line(jsonLine({ type: 'group', ...jsonGroup(group), ...(names ? {} : { nodeId, pid }) }));
          continue;
        }
        const name = groupLabel(group);
        await out.line(names ? name : `${nodeId}:${pid} ${name}`);
      }
    }),
});
