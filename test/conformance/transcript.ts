/** What happened, in a form that is the same in every run: text, one line for each reply and event. */
import { createHash } from 'node:crypto';
import { groupText } from '../../src/codec/groups';
import { frameId } from '../../src/codec/header';
import type { CpgAddress } from '../../src/codec/addresses';
import type { CpgWireEvent, RingId } from '../../src/codec/events';
import { decodeResponse } from '../../src/codec/responses';
import { CS_OK, codeOf } from '../../src/errors';

/** One part of a scenario: what was asked and answered in it, and what every client saw meanwhile. */
export interface Step {
  step: string;
  replies: string[];
  events: Record<string, string[]>;
}

const REASONS = ['undefined', 'join', 'leave', 'nodedown', 'nodeup', 'procdown'];
/** Longer messages are shown by their length and a hash. */
const MAX_SHOWN_BYTES = 40;

/** Names rings by the order in which they appear: their numbers differ from run to run. */
export class RingNames {
  readonly #names = new Map<string, string>();

  name({ nodeId, seq }: RingId): string {
    const key = `${nodeId}.${seq}`;
    const known = this.#names.get(key) ?? `ring ${this.#names.size + 1} of node ${nodeId}`;
    this.#names.set(key, known);
    return known;
  }
}

export function showEvent(event: CpgWireEvent, rings: RingNames): string {
  switch (event.type) {
    case 'confchg': {
      const { members, left, joined } = event;
      const lists = [`members ${list(members)}`, `left ${list(left, true)}`, `joined ${list(joined, true)}`];
      return `confchg ${showGroup(event.group)}: ${lists.join(', ')}`;
    }
    case 'deliver':
      return `deliver ${showGroup(event.group)} from ${event.nodeId}:${event.pid}: ${showBytes(event.message)}`;
    case 'partialDeliver':
      return (
        `fragment ${showGroup(event.group)} from ${event.nodeId}:${event.pid}: ` +
        `type ${event.fragmentType} of ${event.messageLength}: ${showBytes(event.fragment)}`
      );
    case 'totemConfchg':
      return `totem ${rings.name(event.ringId)}: ${event.members.join(' ')}`;
  }
}

export function showReply(frame: Buffer): string {
  const response = decodeResponse(frame);
  const error = response.error === CS_OK ? 'CS_OK' : codeOf(response.error);
  let fields = '';
  if ('members' in response) fields = ` ${list(response.members)}`;
  else if ('group' in response) fields = ` ${showGroup(response.group)} ${response.nodeId}:${response.pid}`;
  else if ('nodeId' in response) fields = ` ${response.nodeId}`;
  return `reply ${frameId(frame)}, ${frame.length} bytes: ${error}${fields}`;
}

export function showGroup(group: Uint8Array): string {
  const text = groupText(group);
  return typeof text === 'string' ? JSON.stringify(text) : `0x${Buffer.from(text).toString('hex')}`;
}

function list(addresses: readonly CpgAddress[], reasons = false): string {
  const shown = addresses.map(({ nodeId, pid, reason }) => {
    return `${nodeId}:${pid}${reasons ? ` ${REASONS[reason] ?? reason}` : ''}`;
  });
  return `[${shown.join(', ')}]`;
}

function showBytes(bytes: Uint8Array): string {
  if (bytes.length <= MAX_SHOWN_BYTES) return JSON.stringify(Buffer.from(bytes).toString('latin1'));
  return `${bytes.length} bytes, ${createHash('sha256').update(bytes).digest('hex').slice(0, 12)}`;
}
