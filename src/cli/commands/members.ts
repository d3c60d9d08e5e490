import type { CpgClient } from '../../client';
import { groupText, meansGroup } from '../../codec/groups';
import { defineCommand, type Context } from '../command';
import { withClient } from '../connect';
import { jsonGroup, jsonLine } from '../json';
import { groupFrom } from '../options';
import { groupLabel } from '../text';
import { groupOperand, requestTimeout } from './shared';

export const members = defineCommand({
  name: 'members',
  summary: 'list the members of a group',
  description: [
    'Prints the members of a group, one per line, as NODEID:PID. A group without members does not exist: nothing is printed.',
  ],
  operands: [groupOperand],
  options: { timeout: requestTimeout },
  examples: [
    { command: 'cpg members orders', meaning: 'Who is in the group "orders"?' },
    { command: 'cpg members orders --json | jq .pid', meaning: 'The pids alone.' },
  ],
  run: async (context, { address, json, timeout }, { group: word }) => {
    const name = groupFrom(word);
    const group = groupText(name);
    await withClient(context, { address, timeoutMs: timeout }, async (client) => {
      const members = await client.membership(group, { signal: context.signal });
      for (const { nodeId, pid, reason } of members) {
        const line = json
          ? jsonLine({ type: 'member', ...jsonGroup(group), nodeId, pid, reason })
          : `${nodeId}:${pid}`;
        await context.out.line(line);
      }
      if (members.length === 0) await tellOfNearGroups(context, client, name);
    });
  },
});

/** The intended name may end with NULs. */
async function tellOfNearGroups(
  { err, signal }: Context,
  client: CpgClient,
  name: Uint8Array,
): Promise<void> {
  for await (const { group } of client.groups({ namesOnly: true, signal })) {
    if (meansGroup(name, group)) {
      await err.line(`cpg: members: nobody is in '${groupLabel(name)}'; there is '${groupLabel(group)}'`);
    }
  }
}
