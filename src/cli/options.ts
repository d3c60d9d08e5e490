/**
 * Options as tables: what a command accepts stands in one place, from which parsing, --help, completion and
 * the manual page are made.
 */
import { parseArgs } from 'node:util';
import { nearest } from '../arguments';
import { parseGroup } from '../codec/groups';
import { MAX_GROUP_NAME_BYTES } from '../codec/limits';
import { isCpgError } from '../errors';
import { counted } from '../text';
import { UsageError } from './failure';

/** What a shell can offer for a value. */
export type Completion = 'file' | readonly string[];

export interface Option<T> {
  readonly kind: 'flag' | 'value' | 'list';
  /** The short form: w for -w. */
  readonly letter?: string | undefined;
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
  /** An option that may be given instead. */
  readonly orOption?: string;
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

/** A group, as printed. */
export function group(summary: string): Option<Uint8Array | undefined> {
  return {
    ...valued('GROUP', summary),
    read: (given) => (given.length === 0 ? undefined : wholeGroup(given.at(-1)!)),
  };
}

/** Groups, given several times; a comma may be part of a name. */
export function groups(summary: string): Option<Uint8Array[]> {
  return {
    ...valued('GROUP', `${summary}; may be given several times`),
    kind: 'list',
    read: (given) => given.map(wholeGroup),
  };
}

/** The bytes of a group on the command line. Throws UsageError. */
export function groupFrom(word: string): Uint8Array {
  // Node puts U+FFFD for bytes that are no UTF-8: that would be a group of another name.
  if (word.includes('\ufffd'))
    throw new UsageError(
      `'${word}' holds bytes that are no UTF-8: write the name in hex (0x...), or \\xNN for each`,
    );
  try {
    return parseGroup(word);
  } catch (error) {
    if (isCpgError(error)) throw new UsageError(`${error.what}: ${error.remedy}`);
    throw error;
  }
}

function wholeGroup(word: string): Uint8Array {
  const name = groupFrom(word);
  if (name.length > 0 && name.length <= MAX_GROUP_NAME_BYTES) return name;
  throw new UsageError(
    `a name of ${counted(name.length, 'byte')} where 1 to ${MAX_GROUP_NAME_BYTES} are expected`,
  );
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
  const { given, words } = sorted(args, options);
  const values: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(options))
    values[name] = readOption(name, option, given.get(name) ?? []);
  return { values, operands: readOperands(words, operands, given) };
}

/** What was given for each option, and the words that belong to none. */
function sorted(
  args: readonly string[],
  options: OptionTable,
): { given: Map<string, string[]>; words: string[] } {
  const types = Object.entries(options).map(([name, { kind, letter }]) => [
    name,
    { type: kind === 'flag' ? 'boolean' : 'string', ...(letter === undefined ? {} : { short: letter }) },
  ]);
  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(types) as Record<string, { type: 'string' | 'boolean' }>,
    // Its own complaints are about programs, not about command lines.
    strict: false,
    tokens: true,
  });
  const given = new Map<string, string[]>();
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value);
    if (token.kind !== 'option') continue;
    const { name, rawName, value, inlineValue } = token;
    const option = Object.hasOwn(options, name) ? options[name] : undefined;
    if (option === undefined) throw unknownOption(rawName, Object.keys(options));
    if (option.kind === 'flag' && value !== undefined)
      throw new UsageError(`option '--${name}' does not take an argument`);
    if (option.kind !== 'flag' && value === undefined) throw missingValue(name);
    if (inlineValue === false && isOption(value, options))
      throw missingValue(name, `; a value that begins with '-' is given as --${name}=${value}`);
    given.set(name, [...(given.get(name) ?? []), value ?? '']);
  }
  return { given, words };
}

/** The end of a complaint about a word that is not known. */
export function didYouMean(near: string | undefined): string {
  return near === undefined ? '' : `; did you mean '${near}'?`;
}

function unknownOption(rawName: string, known: readonly string[]): UsageError {
  const near = rawName.startsWith('--') ? nearest(rawName.slice(2), known) : undefined;
  return new UsageError(`unknown option '${rawName}'${didYouMean(near && `--${near}`)}`);
}

function missingValue(name: string, more = ''): UsageError {
  return new UsageError(`option '--${name} <value>' argument missing${more}`);
}

/** -1 is no option, but a value that is wrong in most places. */
function isOption(word: string, options: OptionTable): boolean {
  const letter = /^-([^-])/.exec(word)?.[1];
  const isKnown = letter !== undefined && Object.values(options).some((option) => option.letter === letter);
  return isKnown || word.startsWith('--');
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
    if (error instanceof UsageError) throw error;
    throw new UsageError(`'${word}' where ${(error as Error).message} is expected`);
  }
}

function readOption(name: string, option: Option<unknown>, given: readonly string[]): unknown {
  try {
    return option.read(given);
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`option --${name}: ${error.message}`);
    throw error;
  }
}

function readOperands(
  words: readonly string[],
  operands: readonly Operand[],
  given: ReadonlyMap<string, readonly string[]>,
): Record<string, string> {
  const left = [...words];
  const read = operands.map(({ name, byDefault, orOption = '' }) => {
    const word = given.get(orOption)?.at(-1) ?? left.shift() ?? byDefault;
    if (word === undefined) throw new UsageError(`${name.toUpperCase()} is missing`);
    return [name, word] as const;
  });
  const [surplus] = left;
  if (surplus !== undefined) throw new UsageError(`unexpected argument '${surplus}'`);
  return Object.fromEntries(read);
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
  if (choice !== undefined) return choice;
  throw new UsageError(
    `'${word}' where one of ${choices.join(', ')} is expected${didYouMean(nearest(word, choices))}`,
  );
}

/** What commas separate. An empty list is a mistake: it would mean everything. */
function words(given: readonly string[]): string[] {
  return given.flatMap((list) => {
    const all = list.split(',').filter((word) => word !== '');
    if (all.length === 0) throw new UsageError(`'${list}' names nothing`);
    return all;
  });
}
