/** A table for the documentation. Nothing but "yes" stands in it without a word of why below. */
export class Table {
  failed = false;
  readonly #lines: string[][] = [];
  /** For each note, what it is about. */
  readonly #notes = new Map<string, string[]>();

  constructor(
    private readonly heads: readonly string[],
    private readonly columns: readonly string[],
  ) {}

  /** With `required` a failure in this row is one of the table. */
  row(name: string, required = true, ...more: string[]): Row {
    const cells: string[] = [...this.heads, ...this.columns].map((_, index) => [name, ...more][index] ?? '');
    this.#lines.push(cells);
    return {
      name,
      set: (column, result) => {
        cells[this.heads.length + this.columns.indexOf(column)] = result;
      },
      note: (column, text) => {
        // Names of connections have the numbers of processes in them, which differ from run to run.
        const note = `${column}: ${text.replaceAll(/\bqb-\d[\w-]*/g, 'qb-…')}`;
        this.#notes.set(note, [...(this.#notes.get(note) ?? []), name]);
      },
      fail: () => {
        if (required) this.failed = true;
      },
    };
  }

  text(): string {
    const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
    const head = [...this.heads, ...this.columns];
    const lines = [line(head), line(head.map(() => '---')), ...this.#lines.map(line)];
    const notes = [...this.#notes].map(([note, names]) => `- ${names.join('; ')}: ${note}`);
    return [...lines, '', ...notes].join('\n').trimEnd();
  }
}

export interface Row {
  readonly name: string;
  set: (column: string, result: string) => void;
  note: (column: string, text: string) => void;
  fail: () => void;
}
