/** Options and operands that several commands have. */
import { integer, seconds, text } from '../options';

export const groupOperand = {
  name: 'group',
  summary: 'the name of the group, 1 to 128 bytes',
} as const;

export const captureOperand = {
  name: 'file',
  summary: "a capture written by cpg tap --write; '-' is standard input",
  completion: 'file',
} as const;

export const requestTimeout = seconds('how long connecting and each request may take; default 10');
export const streamTimeout = seconds('end after this time; a failure when something was still awaited');
export const streamCount = (what: string): ReturnType<typeof integer> => integer('N', `end after N ${what}`);

/** For commands that talk to no daemon, and take the option like all others. */
export const unusedAddress = text(
  'ADDRESS',
  'accepted by every command; this one talks to no daemon',
  'file',
);
