/** What a subcommand is. */
import type { Readable } from 'node:stream';
import { flag, readArguments, text, type Operand, type OptionTable, type Values } from './options';
import type { Output } from './output';

/** The world of a command; tests give it another one. */
export interface Context {
  readonly stdin: Readable & { isTTY?: boolean };
  readonly out: Output;
  readonly err: Output;
  readonly env: NodeJS.ProcessEnv;
  /** Aborts when the command shall end early: on interrupt, or when nobody reads its output. */
  readonly signal: AbortSignal;
}

export interface Example {
  readonly command: string;
  readonly meaning: string;
}

export interface Command {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  /** Paragraphs for --help and the manual page. */
  readonly description: readonly string[];
  readonly operands: readonly Operand[];
  /** All of them, the common ones included. */
  readonly options: OptionTable;
  readonly examples: readonly Example[];
  /** Reads the arguments and returns what is to be run; throws UsageError. */
  readonly prepare: (args: readonly string[]) => (context: Context) => Promise<void>;
}

/** The options of every command. */
export const commonOptions = {
  address: text(
    'ADDRESS',
    "where the daemon listens: '@name' (abstract socket) or '/path'; default $CPG_ADDRESS, else @cpg",
    'file',
  ),
  json: flag('print one JSON object a line'),
  help: flag('show this help'),
};

export type CommonOptions = typeof commonOptions;

interface Definition<Options extends OptionTable, Name extends string> {
  readonly name: string;
  readonly summary: string;
  readonly description: readonly string[];
  readonly operands?: readonly Operand<Name>[];
  readonly options?: Options;
  readonly examples: readonly Example[];
  readonly run: (
    context: Context,
    values: Values<Options> & Values<CommonOptions>,
    operands: Readonly<Record<Name, string>>,
  ) => Promise<void>;
}

/** Ties a command's options and operands to the values its run() gets. */
export function defineCommand<Options extends OptionTable, Name extends string = never>(
  definition: Definition<Options, Name>,
): Command {
  const { operands = [], run, ...rest } = definition;
  // A command may say more about a common option than the common table does.
  const options: OptionTable = { ...definition.options, ...commonOptions, ...definition.options };
  return {
    ...rest,
    operands,
    options,
    prepare: (args) => {
      const read = readArguments(args, options, operands);
      const values = read.values as Values<Options> & Values<CommonOptions>;
      return (context) => run(context, values, read.operands as Record<Name, string>);
    },
  };
}
