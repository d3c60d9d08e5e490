/**
 * Options as tables: what a command accepts stands in one place, from which parsing, --help, completion and
 * the manual page are made.
 */
import { parseArgs } from 'node:util';
import { UsageError } from './failure';

/** What a shell can offer for a value. */
export type Completion = 'file' | readonly string[];

export interface Option<T> {
  readonly kind: 'flag' | 'value' | 'list';
  /** Stands for the value in help: FILE, N, ... */
  readonly placeholder?: string;
  readonly summary: string;
  readonly completion?: Completion;
  /** The value from everything that was given for it, in order; empty when it was not. */
  readonly read: (given: readonly string[]) => T;
}

export type OptionTable = Readonly<Record<string, Option<unknown>>>;

/** What a table's options yield. */
export type Values<Options extends OptionTable> = {
  readonly [Name in keyof Options]: Options[Name] extends Option<infer T> ? T : never;
};

export interface Operand<Name extends string = string> {
  /** In capitals in help. */
  readonly name: Name;
  readonly summary: string;
  readonly completion?: Completion;
  /** What it is when it is not given; without a default it must be. */
  readonly byDefault?: string;
}

export function flag(summary: string): Option<boolean> {
  return { kind: 'flag', summary, read: (given) => given.length > 0 };
}

export function text(
  placeholder: string,
  summary: string,
  completion?: Completion,
): Option<string | undefined> {
  return { ...valued(placeholder, summary, completion), read: (given) => given.at(-1) };
}

/** A whole number from `min` to `max`. */
export function integer(
  placeholder: string,
  summary: string,
  { min = 1, max = Number.MAX_SAFE_INTEGER } = {},
): Option<number | undefined> {
  return {
    ...valued(placeholder, summary),
    read: (given) => read(given.at(-1), (word) => integerFrom(word, min, max)),
  };
}

/** Seconds, fractions allowed, as milliseconds. */
export function seconds(summary: string): Option<number | undefined> {
  const fromWord = (word: string): number => {
    const value = /^\d*\.?\d+$/.test(word) ? Number(word) : NaN;
    if (!(value > 0 && value <= MAX_SECONDS)) throw new Error(`a number of seconds up to ${MAX_SECONDS}`);
    return Math.max(1, Math.round(value * 1000));
  };
  return { ...valued('SECONDS', summary), read: (given) => read(given.at(-1), fromWord) };
}

/** A decimal number greater than 0. */
export function decimal(placeholder: string, summary: string): Option<number | undefined> {
  const fromWord = (word: string): number => {
    const value = /^\d*\.?\d+$/.test(word) ? Number(word) : NaN;
    if (!(value > 0)) throw new Error('a number greater than 0');
    return value;
  };
  return { ...valued(placeholder, summary), read: (given) => read(given.at(-1), fromWord) };
}

/** One of `choices`. */
export function oneOf<Choice extends string>(
  placeholder: string,
  choices: readonly Choice[],
  summary: string,
): Option<Choice | undefined> {
  return {
    ...valued(placeholder, summary, choices),
    read: (given) => read(given.at(-1), (word) => choiceFrom(word, choices)),
  };
}

/** Any of `choices`, given several times or separated by commas. */
export function someOf<Choice extends string>(
  placeholder: string,
  choices: readonly Choice[],
  summary: string,
): Option<Choice[]> {
  return {
    ...valued(placeholder, summary, choices),
    kind: 'list',
    read: (given) => words(given).map((word) => read(word, (each) => choiceFrom(each, choices))!),
  };
}

/** Any words, given several times or separated by commas. */
export function several(placeholder: string, summary: string, completion?: Completion): Option<string[]> {
  return { ...valued(placeholder, summary, completion), kind: 'list', read: words };
}

/** Whole numbers, given several times or separated by commas. */
export function integers(placeholder: string, summary: string): Option<number[]> {
  const fromWord = (word: string): number => integerFrom(word, 0, MAX_UINT32);
  return {
    ...valued(placeholder, summary),
    kind: 'list',
    read: (given) => words(given).map((word) => read(word, fromWord)!),
  };
}

/** Reads a command line. Throws UsageError for anything the tables do not allow. */
export function readArguments(
  args: readonly string[],
  options: OptionTable,
  operands: readonly Operand[],
): { values: Record<string, unknown>; operands: Record<string, string> } {
  const types = Object.entries(options).map(([name, { kind }]) => [
    name,
    { type: kind === 'flag' ? ('boolean' as const) : ('string' as const), multiple: true },
  ]);
  let parsed;
  try {
    parsed = parseArgs({
      args: [...args],
      options: Object.fromEntries(types) as Record<string, { type: 'string' | 'boolean'; multiple: true }>,
      allowPositionals: true,
    });
  } catch (error) {
    // Node adds a sentence about '--' that helps nobody here.
    const [sentence = ''] = (error as Error).message.split(/\. |\n/);
    throw new UsageError(sentence.charAt(0).toLowerCase() + sentence.slice(1).replace(/\.$/, ''));
  }
  return {
    values: Object.fromEntries(
      Object.entries(options).map(([name, option]) => [name, readOption(name, option, parsed.values[name])]),
    ),
    operands: readOperands(parsed.positionals, operands),
  };
}

const MAX_SECONDS = 2_000_000;
const MAX_UINT32 = 0xffffffff;

function valued(
  placeholder: string,
  summary: string,
  completion?: Completion,
): { kind: 'value'; placeholder: string; summary: string; completion?: Completion } {
  return { kind: 'value', placeholder, summary, ...(completion === undefined ? {} : { completion }) };
}

/** `convert` throws an Error that names what it expects. */
function read<T>(word: string | undefined, convert: (word: string) => T): T | undefined {
  if (word === undefined) return undefined;
  try {
    return convert(word);
  } catch (error) {
    throw new UsageError(`'${word}' where ${(error as Error).message} is expected`);
  }
}

function readOption(name: string, option: Option<unknown>, given: unknown): unknown {
  try {
    return option.read(Array.isArray(given) ? given.map(String) : []);
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`option --${name}: ${error.message}`);
    throw error;
  }
}

function readOperands(words: readonly string[], operands: readonly Operand[]): Record<string, string> {
  const surplus = words[operands.length];
  if (surplus !== undefined) throw new UsageError(`unexpected argument '${surplus}'`);
  return Object.fromEntries(
    operands.map(({ name, byDefault }, index) => {
      const word = words[index] ?? byDefault;
      if (word === undefined) throw new UsageError(`${name.toUpperCase()} is missing`);
      return [name, word];
    }),
  );
}

function integerFrom(word: string, min: number, max: number): number {
  const value = /^\d+$/.test(word) ? Number(word) : NaN;
  if (!(value >= min && value <= max)) {
    throw new Error(
      max === Number.MAX_SAFE_INTEGER ? `a number from ${min} on` : `a number from ${min} to ${max}`,
    );
  }
  return value;
}

function choiceFrom<Choice extends string>(word: string, choices: readonly Choice[]): Choice {
  const choice = choices.find((candidate) => candidate === word);
  if (choice === undefined) throw new Error(`one of ${choices.join(', ')}`);
  return choice;
}

function words(given: readonly string[]): string[] {
  return given.flatMap((word) => word.split(',')).filter((word) => word !== '');
}
