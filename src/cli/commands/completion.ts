import { defineCommand, type Command } from '../command';
import { bash, fish, zsh } from '../completion';
import { UsageError } from '../failure';
import { unusedAddress } from './shared';

const SHELLS: Readonly<Record<string, (commands: readonly Command[]) => string>> = { bash, zsh, fish };

export const completionCommand = (commands: () => readonly Command[]): Command =>
  defineCommand({
    name: 'completion',
    summary: 'print a completion script for a shell',
    description: ['Prints a script that makes bash, zsh or fish complete commands and options of cpg.'],
    operands: [{ name: 'shell', summary: 'bash, zsh or fish', completion: Object.keys(SHELLS) }],
    options: { address: unusedAddress },
    examples: [
      {
        command: 'source <(cpg completion bash)',
        meaning: 'For this bash; put it into ~/.bashrc for every one.',
      },
      { command: 'cpg completion zsh > "${fpath[1]}/_cpg"', meaning: 'For zsh.' },
      { command: 'cpg completion fish > ~/.config/fish/completions/cpg.fish', meaning: 'For fish.' },
    ],
    run: async ({ out }, _, { shell }) => {
      const script = SHELLS[shell];
      if (script === undefined)
        throw new UsageError(`'${shell}' is not one of ${Object.keys(SHELLS).join(', ')}`);
      await out.write(script(commands()));
    },
  });
