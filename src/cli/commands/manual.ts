import { defineCommand, textOptions, type Command } from '../command';
import { manualMarkdown, manualPage } from '../manual';
import { flag } from '../options';

export const manualCommand = (commands: () => readonly Command[]): Command =>
  defineCommand({
    name: 'manual',
    summary: 'print the manual page',
    description: ['Prints the manual page of cpg in the format of man(1), or as Markdown.'],
    options: { markdown: flag('Markdown instead') },
    common: textOptions,
    examples: [{ command: 'cpg manual | man -l -', meaning: 'Read it.' }],
    run: ({ out }, { markdown }) => out.write((markdown ? manualMarkdown : manualPage)(commands())),
  });
