/** Options and operands of several commands. */
import { integer, seconds, text } from '../options';

export const groupOperand = {
  name: 'group',
  summary: 'group name, 1 to 128 bytes, as printed (\\0, \\xNN, 0x...)',
} as const;

export const captureOperand = {
  name: 'file',
  summary: "a capture written by cpg tap --write; '-' is standard input",
  completion: 'file',
  orOption: 'read',
} as const;

export const readOption = text('FILE', 'the same as FILE alone', 'file');

export const requestTimeout = seconds('limit for connecting and for each request; default 10');
export const streamTimeout = seconds('end after this time; fail if something is still awaited');
export const streamCount = (what: string): ReturnType<typeof integer> => integer('N', `end after N ${what}`);
