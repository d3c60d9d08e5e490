import { defineCommand, type Command } from '../command';
import { manualMarkdown, manualPage } from '../manual';
import { flag } from '../options';
import { unusedAddress } from './shared';

export const manualCommand = (commands: () => readonly Command[]): Command =>
  defineCommand({
    name: 'manual',
    summary: 'print the manual page',
    description: ['Prints the manual page of cpg in the format of man(1), or as Markdown.'],
    options: { address: unusedAddress, markdown: flag('Markdown instead') },
    examples: [{ command: 'cpg manual | man -l -', meaning: 'Read it.' }],
    run: ({ out }, { markdown }) => out.write((markdown ? manualMarkdown : manualPage)(commands())),
  });
