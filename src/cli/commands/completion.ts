import { nearest } from '../../arguments';
import { defineCommand, textOptions, type Command } from '../command';
import { bash, fish, zsh } from '../completion';
import { UsageError } from '../failure';
import { didYouMean } from '../options';

const SHELLS: Readonly<Record<string, (commands: readonly Command[]) => string>> = { bash, zsh, fish };

export const completionCommand = (commands: () => readonly Command[]): Command =>
  defineCommand({
    name: 'completion',
    summary: 'print a completion script for a shell',
    description: ['Prints a script with which bash, zsh or fish completes the commands and options of cpg.'],
    operands: [{ name: 'shell', summary: 'bash, zsh or fish', completion: Object.keys(SHELLS) }],
    common: textOptions,
    examples: [
      {
        command: 'source <(cpg completion bash)',
        meaning: 'For this bash session; add it to ~/.bashrc for all of them.',
      },
      { command: 'cpg completion zsh > "${fpath[1]}/_cpg"', meaning: 'For zsh.' },
      { command: 'cpg completion fish > ~/.config/fish/completions/cpg.fish', meaning: 'For fish.' },
    ],
    run: async ({ out }, _, { shell }) => {
      const script = SHELLS[shell];
      if (script === undefined) {
        const known = Object.keys(SHELLS);
        throw new UsageError(
          `'${shell}' is not one of ${known.join(', ')}${didYouMean(nearest(shell, known))}`,
        );
      }
      await out.write(script(commands()));
    },
  });
