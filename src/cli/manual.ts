/** The manual page and docs/cli.md, from the tables. */
import type { Command } from './command';
import { optionWord, synopsis } from './help';

const ENVIRONMENT = [
  ['CPG_ADDRESS', 'Address of the daemon if --address is not given.'],
  ['NO_COLOR', 'No colours, even on a terminal that supports them.'],
  ['DEBUG', 'cpg:* logs internals to standard error; cpg:wire logs every message.'],
] as const;

const EXIT_STATUS = [
  ['0', 'Success, also if the reader of the output has closed it.'],
  [
    '1',
    'Failure; standard error says "cpg: <what>: CS_ERR_X (N): <what to do>", or for file errors "cpg: <what>: ENOENT: <what to do>".',
  ],
  ['2', 'Usage error in the command line.'],
  ['130', 'Interrupted (Ctrl-C) before it was complete. A capture that the user ends is complete.'],
] as const;

const INTRODUCTION =
  'Closed process groups (CPG) of Corosync from the command line: join a group, list groups and members, and watch the connections of other programs. Data goes to standard output, everything else to standard error.';

const GROUPS =
  'A group name is printed in the form that the command line accepts: as text, with `\\0`, `\\n`, `\\r`, `\\t`, `\\xNN` for unprintable bytes and `\\\\` for a backslash, or in hex (`0x...`) when it is not UTF-8. Quote it for the shell. JSON has the name itself.';

export function manualPage(commands: readonly Command[]): string {
  const lines = [
    '.TH CPG 1 "" "corosync-cpg" "User Commands"',
    '.SH NAME',
    'cpg \\- Corosync closed process groups from the command line',
    '.SH SYNOPSIS',
    ...commands.flatMap((command) => [`.B ${roff(synopsis(command))}`, '.br']),
    '.SH DESCRIPTION',
    roff(INTRODUCTION),
  ];
  for (const command of commands) {
    lines.push(`.SH CPG ${command.name.toUpperCase()}`, `.B ${roff(synopsis(command))}`);
    for (const paragraph of command.description) lines.push('.PP', roff(paragraph));
    for (const [name, option] of Object.entries(command.options)) {
      lines.push('.TP', `.B ${roff(optionWord(name, option))}`, roff(`${option.summary}.`));
    }
    for (const { command: example, meaning } of command.examples) {
      lines.push('.PP', roff(meaning), '.PP', '.nf', `.RS`, roff(example), '.RE', '.fi');
    }
  }
  lines.push('.SH GROUPS', roff(GROUPS.replaceAll('`', '')));
  lines.push('.SH ENVIRONMENT', ...ENVIRONMENT.flatMap(([name, text]) => ['.TP', `.B ${name}`, roff(text)]));
  lines.push('.SH EXIT STATUS', ...EXIT_STATUS.flatMap(([code, text]) => ['.TP', `.B ${code}`, roff(text)]));
  lines.push('.SH SEE ALSO', 'corosync(8), corosync.conf(5), cpg_overview(3), wireshark(1)');
  return `${lines.join('\n')}\n`;
}

export function manualMarkdown(commands: readonly Command[]): string {
  const lines = [
    '# The `cpg` command',
    '',
    '<!-- Made from the tables in src/cli by `cpg manual --markdown`: change those. -->',
    '',
    INTRODUCTION,
    '',
    ...table(
      ['Command', ''],
      commands.map(({ name, summary }) => [`[\`${name}\`](#cpg-${name})`, summary]),
    ),
    '',
  ];
  for (const command of commands) {
    lines.push(`## cpg ${command.name}`, '', `    ${synopsis(command)}`, '');
    for (const paragraph of command.description) lines.push(paragraph, '');
    const options = Object.entries(command.options);
    lines.push(
      ...table(
        ['Option', ''],
        options.map(([name, option]) => [`\`${optionWord(name, option)}\``, option.summary]),
      ),
      '',
    );
    for (const { command: example, meaning } of command.examples)
      lines.push(meaning, '', `    ${example}`, '');
  }
  lines.push(
    '## Groups',
    '',
    GROUPS,
    '',
    '## Environment',
    '',
    ...table(
      ['Variable', ''],
      ENVIRONMENT.map(([name, text]) => [`\`${name}\``, text]),
    ),
    '',
  );
  lines.push(
    '## Exit status',
    '',
    ...table(
      ['Code', ''],
      EXIT_STATUS.map(([code, text]) => [code, text]),
    ),
    '',
  );
  return lines.join('\n');
}

/** Padded, so that the Markdown source is readable too. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const cells = [head, ...rows].map((row) =>
    row.map((cell) => cell.replaceAll('|', '\\|').replace(/<(?=\w)/g, '\\<')),
  );
  const widths = head.map((_, column) => Math.max(3, ...cells.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`;
  const [first = [], ...others] = cells;
  return [line(first), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...others.map(line)];
}

/** Text that man(1) takes literally. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/, '\\&$1');
}
