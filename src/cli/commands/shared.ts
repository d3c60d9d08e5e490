/** Options and operands that several commands have. */
import { integer, seconds, text } from '../options';

export const groupOperand = {
  name: 'group',
  summary: 'the name of the group, 1 to 128 bytes, as printed (\\0, \\xNN, 0x...)',
} as const;

export const captureOperand = {
  name: 'file',
  summary: "a capture written by cpg tap --write; '-' is standard input",
  completion: 'file',
  orOption: 'read',
} as const;

export const readOption = text('FILE', 'the same as FILE alone', 'file');

export const requestTimeout = seconds('how long connecting and each request may take; default 10');
export const streamTimeout = seconds('end after this time; a failure when something was still awaited');
export const streamCount = (what: string): ReturnType<typeof integer> => integer('N', `end after N ${what}`);
