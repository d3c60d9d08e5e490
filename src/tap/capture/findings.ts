/** Skipped parts of a capture: a count of each kind, and the place of its first. */

const KINDS = {
  /** Other link types, or exported PDUs of other protocols. */
  foreign: { lost: false, noun: 'packet', state: 'of other protocols' },
  unknown: { lost: false, noun: 'block', state: 'of unknown types' },
  disorder: {
    lost: false,
    noun: 'frame',
    state: 'behind later ones of its ring, so replies may be paired wrongly; reordercap puts them in order',
  },
  snapped: { lost: true, noun: 'packet', state: 'cut to a snap length' },
  damaged: { lost: true, noun: 'packet', state: 'damaged' },
  parts: { lost: true, noun: 'frame', state: 'in part only' },
  simple: { lost: true, noun: 'packet', state: 'in blocks without a time' },
  missing: { lost: true, noun: 'frame', state: 'that the statistics at the end count and that is not there' },
} as const;

type Kind = keyof typeof KINDS;

/** One kind of skipped parts. */
export interface Finding {
  /** Its kind, count and first place. */
  readonly text: string;
  readonly count: number;
  /** Whether it lost frames of ours. */
  readonly lost: boolean;
}

interface Entry {
  count: number;
  readonly first: string;
}

export class Findings {
  readonly #entries = new Map<Kind, Entry>();

  /** Keeps `place` and `detail` of the first of each kind. */
  add(kind: Kind, place: string, detail = '', count = 1): void {
    const entry = this.#entries.get(kind);
    if (entry !== undefined) entry.count += count;
    else this.#entries.set(kind, { count, first: `${place}${detail === '' ? '' : `: ${detail}`}` });
  }

  count(kind: Kind): number {
    return this.#entries.get(kind)?.count ?? 0;
  }

  get all(): Finding[] {
    return [...this.#entries].map(([kind, { count, first }]) => {
      const { lost, noun, state } = KINDS[kind];
      return { text: `${count} ${noun}${count === 1 ? '' : 's'} ${state} (first: ${first})`, count, lost };
    });
  }
}
