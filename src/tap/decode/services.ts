/** Message ids of corosync's services by name, from its ipc_*.h; cpg's come from the codec. */
import { check, kind, oneOf, string } from '../../arguments';
import { EventId } from '../../codec/events';
import { RequestId } from '../../codec/requests';
import { RESPONSE_ID_OF, ResponseId } from '../../codec/responses';
import { RING_NAMES, type RingName } from '../connections';

type Names = readonly string[];

interface Service {
  request: Names;
  /** Replies and events share their numbers: both are "responses" to corosync. */
  response: Names;
}

const SERVICES: Readonly<Record<string, Service>> = {
  cpg: {
    request: byNumber(RequestId),
    response: byNumber({ ...ResponseId, ...EventId }),
  },
  cmap: {
    request: [
      'set',
      'delete',
      'get',
      'adjustInt',
      'iterInit',
      'iterNext',
      'iterFinalize',
      'trackAdd',
      'trackDelete',
      'setCurrentMap',
    ],
    response: [
      'set',
      'delete',
      'get',
      'adjustInt',
      'iterInit',
      'iterNext',
      'iterFinalize',
      'trackAdd',
      'trackDelete',
      'notify',
      'setCurrentMap',
    ],
  },
  cfg: {
    request: [
      'ringStatusGet',
      'ringReenable',
      'killNode',
      'tryShutdown',
      'replyToShutdown',
      'getNodeAddrs',
      'localGet',
      'reloadConfig',
      'reopenLogFiles',
      'nodeStatusGet',
      'trackStart',
      'trackStop',
    ],
    response: [
      'ringStatusGet',
      'ringReenable',
      'stateTrackStart',
      'stateTrackStop',
      'administrativeStateSet',
      'administrativeStateGet',
      'serviceLoad',
      'serviceUnload',
      'killNode',
      'tryShutdown',
      'testShutdown',
      'getNodeAddrs',
      'localGet',
      'replyToShutdown',
      'reloadConfig',
      'reopenLogFiles',
      'nodeStatusGet',
    ],
  },
  quorum: {
    request: ['getQuorate', 'trackStart', 'trackStop', 'getType', 'modelGetType'],
    response: [
      'getQuorate',
      'trackStart',
      'trackStop',
      'notification',
      'getType',
      'modelGetType',
      'quorumNotification',
      'nodelistNotification',
    ],
  },
  votequorum: {
    request: [
      'getInfo',
      'setExpected',
      'setVotes',
      'trackStart',
      'trackStop',
      'qdeviceRegister',
      'qdeviceUnregister',
      'qdeviceUpdate',
      'qdevicePoll',
      'qdeviceMasterWins',
      'qdeviceSetExtraInfo',
      'qdeviceGetExtraInfo',
    ],
    response: [
      'status',
      'getInfo',
      'trackStart',
      'quorumNotification',
      'expectedVotesNotification',
      'nodelistNotification',
      'qdeviceGetExtraInfo',
      'qdeviceExtraInfoNotification',
    ],
  },
};

export const SERVICE_NAMES: readonly string[] = Object.keys(SERVICES);

/** The names of all messages, those of cpg first. Object.values() skips numbers without a name. */
export const MESSAGE_NAMES: readonly string[] = [
  ...new Set(
    Object.values(SERVICES).flatMap(({ request, response }) => [
      ...Object.values(request),
      ...Object.values(response),
    ]),
  ),
];

/** Whether some service has a message of this name: see messageName(). */
export function isMessageName(name: string): boolean {
  return MESSAGE_NAMES.includes(name) || /^id -?\d+$/.test(name);
}

const RING = oneOf(...RING_NAMES);
const ID = kind<number>('a number', (value) => typeof value === 'number');

/** The name of a message by its number; `id N` if unknown. */
export function messageName(service: string, ring: RingName, id: number): string {
  check('messageName', 'service', service, string);
  check('messageName', 'ring', ring, RING);
  check('messageName', 'id', id, ID);
  const names = SERVICES[service]?.[ring === 'request' ? 'request' : 'response'];
  return names?.[id] ?? `id ${id}`;
}

/** Whether the daemon answers this request. */
export function expectsReply(service: string, id: number): boolean {
  return service !== 'cpg' || RESPONSE_ID_OF[id] !== undefined;
}

function byNumber(ids: Readonly<Record<string, number>>): Names {
  const names: string[] = [];
  for (const [name, id] of Object.entries(ids)) names[id] = name;
  return names;
}
