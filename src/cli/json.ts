/** Events of a client as JSON. */
import type { CpgEvent } from '../events';
import { jsonGroup, jsonMessage } from '../tap/decode/json';

export { jsonGroup, jsonLine } from '../tap/decode/json';

export function jsonEvent(event: CpgEvent): object {
  switch (event.type) {
    case 'deliver': {
      const { type, group, nodeId, pid, message } = event;
      return { type, ...jsonGroup(group), nodeId, pid, ...jsonMessage(message) };
    }
    case 'confchg': {
      const { type, group, members, left, joined } = event;
      return { type, ...jsonGroup(group), members, left, joined };
    }
    case 'totemConfchg':
      return event;
  }
}
