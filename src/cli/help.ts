/** Help from the tables. */
import type { Command } from './command';
import type { Operand, Option } from './options';
import { wrap } from './text';

const WIDTH = 100;
const INDENT = '  ';
/** As wide as the short form of an option. */
const NO_LETTER = ' '.repeat(4);
const MAX_TERM_WIDTH = 30;

/** `cpg join GROUP [options]`. */
export function synopsis(command: Command): string {
  return ['cpg', command.name, ...command.operands.map(operandWord), '[options]'].join(' ');
}

export function operandWord({ name, byDefault }: Operand): string {
  const word = name.toUpperCase();
  return byDefault === undefined ? word : `[${word}]`;
}

/** `-n, --count N`. */
export function optionWord(name: string, { kind, letter, placeholder = 'VALUE' }: Option<unknown>): string {
  const short = letter === undefined ? '' : `-${letter}, `;
  return `${short}--${name}${kind === 'flag' ? '' : ` ${placeholder}`}`;
}

export function commandHelp(command: Command): string {
  const lines = [`Usage: ${synopsis(command)}`, ''];
  for (const paragraph of command.description) lines.push(...wrap(paragraph, WIDTH), '');
  if (command.operands.length > 0) {
    lines.push(
      'Arguments:',
      ...list(command.operands.map(({ name, summary }) => [name.toUpperCase(), summary])),
      '',
    );
  }
  const options = Object.entries(command.options);
  lines.push(
    'Options:',
    ...list(
      options.map(([name, option]) => [
        `${option.letter === undefined ? NO_LETTER : ''}${optionWord(name, option)}`,
        option.summary,
      ]),
    ),
    '',
  );
  lines.push('Examples:');
  for (const { command: example, meaning } of command.examples) {
    lines.push(
      `${INDENT}${example}`,
      ...wrap(meaning, WIDTH - 6).map((line) => `${INDENT}${INDENT}${INDENT}${line}`),
    );
  }
  return lines.join('\n');
}

export function overview(commands: readonly Command[]): string {
  return [
    'Usage: cpg COMMAND [options]',
    '',
    'Corosync closed process groups from the command line, and a tap on their traffic.',
    '',
    'Commands:',
    ...list(commands.map(({ name, summary }) => [name, summary])),
    '',
    "'cpg COMMAND --help' shows options and examples of a command; 'cpg --version' shows the version.",
    'Exit status: 0 success, 1 failure, 2 usage, 130 interrupted.',
  ].join('\n');
}

function list(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.min(MAX_TERM_WIDTH, Math.max(...rows.map(([term]) => term.length)));
  const indent = ' '.repeat(INDENT.length + width + 2);
  return rows.flatMap(([term, text]) => {
    const [first = '', ...more] = wrap(text, WIDTH - indent.length);
    const head =
      term.length <= width
        ? [`${INDENT}${term.padEnd(width)}  ${first}`]
        : [`${INDENT}${term}`, indent + first];
    return [...head, ...more.map((line) => indent + line)];
  });
}
