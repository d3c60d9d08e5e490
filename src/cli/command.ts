/** The shape of a subcommand. */
import type { Readable } from 'node:stream';
import { flag, readArguments, text, type Operand, type OptionTable, type Values } from './options';
import type { Output } from './output';

/** The surroundings of a command; tests give it another one. */
export interface Context {
  readonly stdin: Readable & { isTTY?: boolean };
  readonly out: Output;
  /** Never fails: it drops text that cannot be written. */
  readonly err: Output;
  /** The outputs that must be complete: `out`, and the files that the command opens. */
  readonly outputs: Output[];
  readonly env: NodeJS.ProcessEnv;
  /** Aborts on interrupt, or when nobody reads the output. */
  readonly signal: AbortSignal;
}

export interface Example {
  readonly command: string;
  readonly meaning: string;
}

/** 'complete': the result is complete, even if the user ended the command. */
export type Outcome = 'complete' | void;

/** A command with its parsed arguments. */
export interface Action {
  readonly run: (context: Context) => Promise<Outcome>;
  /** The daemon's address, if given on the command line. */
  readonly address: string | undefined;
}

export interface Command {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  /** Paragraphs for --help and the manual page. */
  readonly description: readonly string[];
  readonly operands: readonly Operand[];
  /** All options, including the common ones. */
  readonly options: OptionTable;
  readonly examples: readonly Example[];
  /** Parses the arguments; throws UsageError. */
  readonly prepare: (args: readonly string[]) => Action;
}

/** The options of commands that print only text. */
export const textOptions = { help: flag('show this help') };

/** The options of commands with data. */
export const dataOptions = { json: flag('print one JSON object per line'), ...textOptions };

/** The options of commands that talk to a daemon. */
export const daemonOptions = {
  address: text(
    'ADDRESS',
    "where the daemon listens: '@name' (abstract socket) or '/path'; default $CPG_ADDRESS, else @cpg",
    'file',
  ),
  ...dataOptions,
};

/** Short options, the same in all commands. */
const LETTERS: Readonly<Record<string, string>> = {
  help: 'h',
  write: 'w',
  read: 'r',
  group: 'g',
  count: 'n',
  nodes: 'n',
};

interface Definition<Options extends OptionTable, Common extends OptionTable, Name extends string> {
  readonly name: string;
  readonly summary: string;
  readonly description: readonly string[];
  readonly operands?: readonly Operand<Name>[];
  readonly options?: Options;
  /** The common options: see above. */
  readonly common?: Common;
  readonly examples: readonly Example[];
  readonly run: (
    context: Context,
    values: Values<Options> & Values<Common>,
    operands: Readonly<Record<Name, string>>,
  ) => Promise<Outcome>;
}

/** Ties a command's options and operands to the values its run() gets. */
export function defineCommand<
  Options extends OptionTable,
  Name extends string = never,
  Common extends OptionTable = typeof daemonOptions,
>(definition: Definition<Options, Common, Name>): Command {
  const { operands = [], run, common = daemonOptions, ...rest } = definition;
  // A command may say more about a common option than the common table does.
  const table: OptionTable = { ...definition.options, ...common, ...definition.options };
  const options = Object.fromEntries(
    Object.entries(table).map(([name, option]) => [name, { ...option, letter: LETTERS[name] }]),
  );
  return {
    ...rest,
    operands,
    options,
    prepare: (args) => {
      const read = readArguments(args, options, operands);
      const values = read.values as Values<Options> & Values<Common>;
      return {
        run: (context) => run(context, values, read.operands as Record<Name, string>),
        address: read.values['address'] as string | undefined,
      };
    },
  };
}
