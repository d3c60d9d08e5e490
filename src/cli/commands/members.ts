import { defineCommand } from '../command';
import { withClient } from '../connect';
import { jsonGroup, jsonLine } from '../json';
import { groupOperand, requestTimeout } from './shared';

export const members = defineCommand({
  name: 'members',
  summary: 'list the members of a group',
  description: [
    'Prints the members of a group, a line each, as NODEID:PID. A group without members does not exist: nothing is printed.',
  ],
  operands: [groupOperand],
  options: { timeout: requestTimeout },
  examples: [
    { command: 'cpg members orders', meaning: 'Who is in the group "orders"?' },
    { command: 'cpg members orders --json | jq .pid', meaning: 'The pids alone.' },
  ],
  run: (context, { address, json, timeout }, { group }) =>
    withClient(context, { address, timeoutMs: timeout }, async (client) => {
      for (const { nodeId, pid, reason } of await client.membership(group, { signal: context.signal })) {
        const line = json
          ? jsonLine({ type: 'member', ...jsonGroup(group), nodeId, pid, reason })
          : `${nodeId}:${pid}`;
        await context.out.line(line);
      }
    }),
});
