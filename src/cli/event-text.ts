/** Events as lines of text: exact for a pipe, pleasant for a terminal. */
import type { ConfchgEvent, CpgAddress, CpgEvent, DeliverEvent } from '../events';
import type { Colour, Output } from './output';
import { messageLabel, reasonLabel } from './text';

/** By which address we are known. */
export interface Self {
  nodeId: number;
  pid: number;
}

/** Width of the first column on a terminal. */
const WORD_WIDTH = 7;

/** The lines of one event, each with its newline. */
export function eventLines(event: CpgEvent, self: Self, out: Output): string | Uint8Array {
  switch (event.type) {
    case 'deliver':
      return out.terminal ? deliverOnTerminal(event, out) : deliverExact(event);
    case 'confchg':
      return confchgLines(event, self, out);
    case 'totemConfchg': {
      const { ringId, members } = event;
      return line(
        out,
        'cyan',
        'ring',
        `${ringId.nodeId}.${ringId.seq.toString()} of nodes ${members.join(' ')}`,
      );
    }
  }
}

function deliverExact({ nodeId, pid, message }: DeliverEvent): Uint8Array {
  return Buffer.concat([Buffer.from(`message ${nodeId}:${pid} `), message, Buffer.from('\n')]);
}

function deliverOnTerminal({ nodeId, pid, own, message }: DeliverEvent, out: Output): string {
  const from = out.paint(own ? 'dim' : 'bold', `${nodeId}:${pid}${own ? ' (us)' : ''}`);
  return line(out, own ? 'dim' : undefined, 'message', `${from} ${messageLabel(message)}`);
}

function confchgLines({ joined, left, members }: ConfchgEvent, self: Self, out: Output): string {
  const member = ({ nodeId, pid }: CpgAddress): string => {
    const us = out.terminal && nodeId === self.nodeId && pid === self.pid;
    return `${nodeId}:${pid}${us ? ' (us)' : ''}`;
  };
  const changed = (colour: Colour, word: string) => (who: CpgAddress) =>
    line(out, colour, word, `${member(who)} ${reasonLabel(who.reason)}`);
  return [
    ...joined.map(changed('green', 'joined')),
    ...left.map(changed('red', 'left')),
    line(out, 'cyan', 'members', members.map(member).join(' ')),
  ].join('');
}

function line(out: Output, colour: Colour | undefined, word: string, text: string): string {
  const padded = out.terminal ? word.padEnd(WORD_WIDTH) : word;
  return `${colour === undefined ? padded : out.paint(colour, padded)} ${text}\n`;
}
