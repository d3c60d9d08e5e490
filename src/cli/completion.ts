/** Completion scripts, from the tables. */
import type { Command } from './command';
import type { Completion, Option } from './options';

/** What is offered for a value. */
type Offer = { kind: 'file' } | { kind: 'words'; words: readonly string[] } | { kind: 'nothing' };

function offer(completion: Completion | undefined): Offer {
  if (completion === undefined) return { kind: 'nothing' };
  return completion === 'file' ? { kind: 'file' } : { kind: 'words', words: completion };
}

/** -w and --write. */
function forms(name: string, { letter }: Option<unknown>): string[] {
  return [...(letter === undefined ? [] : [`-${letter}`]), `--${name}`];
}

export function bash(commands: readonly Command[]): string {
  const cases = commands.map((command) => {
    const options = Object.entries(command.options);
    const values = options
      .filter(([, { kind }]) => kind !== 'flag')
      .map(
        ([name, option]) =>
          `      ${forms(name, option).join('|')}) ${bashOffer(offer(option.completion))}; return ;;`,
      );
    const words = options.flatMap(([name, option]) => forms(name, option)).join(' ');
    return [
      `    ${command.name})`,
      '      case "$prev" in',
      ...values.map((line) => `  ${line}`),
      '      esac',
      `      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '${words}' -- "$cur"))`,
      `      else ${bashOffer(offer(command.operands[0]?.completion))}; fi ;;`,
    ].join('\n');
  });
  return `# bash completion for cpg
_cpg() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')} help -h --help --version' -- "$cur"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
    help) COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')}' -- "$cur")) ;;
${cases.join('\n')}
  esac
}
complete -o filenames -F _cpg cpg
`;
}

function bashOffer(what: Offer): string {
  switch (what.kind) {
    case 'file':
      return 'COMPREPLY=($(compgen -f -- "$cur"))';
    case 'words':
      return `COMPREPLY=($(compgen -W '${what.words.join(' ')}' -- "$cur"))`;
    case 'nothing':
      return ':';
  }
}

export function zsh(commands: readonly Command[]): string {
  const list = commands.map(
    ({ name, summary }) => `    ${zshQuoted(`${name}:${summary.replaceAll(':', '\\:')}`)}`,
  );
  const cases = commands.map(({ name, options, operands }) => {
    const specs = Object.entries(options).flatMap(([each, option]) => {
      const { kind, summary, completion, placeholder } = option;
      const words = forms(each, option);
      // One that may be given several times, or else either form once.
      const repeated = kind === 'list' ? '*' : `(${words.join(' ')})`;
      const value = kind === 'flag' ? '' : `:${placeholder ?? 'value'}:${zshOffer(offer(completion))}`;
      return words.map((word) =>
        zshQuoted(`${repeated}${word}[${summary.replace(/[[\]:]/g, '\\$&')}]${value}`),
      );
    });
    const places = operands.map((operand, index) =>
      zshQuoted(`${index + 1}:${operand.name}:${zshOffer(offer(operand.completion))}`),
    );
    return `    ${name}) _arguments ${[...specs, ...places].join(' \\\n      ')} ;;`;
  });
  return `#compdef cpg
_cpg() {
  local -a commands
  commands=(
${list.join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  local command=\${words[2]}
  shift words
  ((CURRENT--))
  case "$command" in
${cases.join('\n')}
  esac
}
compdef _cpg cpg
`;
}

function zshOffer(what: Offer): string {
  if (what.kind === 'file') return '_files';
  return what.kind === 'words' ? `(${what.words.join(' ')})` : ' ';
}

function zshQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function fish(commands: readonly Command[]): string {
  const lines = commands.flatMap(({ name, summary, options, operands }) => [
    `complete -c cpg -n __fish_use_subcommand -a ${name} -d ${fishQuoted(summary)}`,
    ...Object.entries(options).map(([option, { kind, letter, summary: text, completion }]) => {
      const short = letter === undefined ? '' : ` -s ${letter}`;
      const value = kind === 'flag' ? '' : ` -r${fishOffer(offer(completion))}`;
      return `complete -c cpg -n '__fish_seen_subcommand_from ${name}' -l ${option}${short}${value} -d ${fishQuoted(text)}`;
    }),
    ...operands
      .filter(({ completion }) => completion !== undefined)
      .map(
        ({ completion }) =>
          `complete -c cpg -n '__fish_seen_subcommand_from ${name}'${fishOffer(offer(completion))}`,
      ),
  ]);
  return `# fish completion for cpg\ncomplete -c cpg -f\n${lines.join('\n')}\n`;
}

function fishOffer(what: Offer): string {
  if (what.kind === 'file') return ' -F';
  return what.kind === 'words' ? ` -a '${what.words.join(' ')}'` : '';
}

function fishQuoted(text: string): string {
  return `'${text.replace(/['\\]/g, '\\$&')}'`;
}
