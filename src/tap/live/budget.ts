/** Limits work to a share of one CPU, averaged over a few seconds: a rest follows each piece of work. */

/** CPU time that may be used in advance: code that runs for the first time takes ten times as long as later. */
const ADVANCE_MS = 400;
/** Work that takes longer is not the tap's alone, which works in short pieces: its process has other things to do. */
const MAX_COST_MS = 25;

export class Budget {
  readonly #share: number;
  /** When all work so far will be paid for. */
  #paidAtMs = -Infinity;

  constructor(share: number) {
    this.#share = share;
  }

  /** Adds work that took this much CPU time and ended now. */
  charge(cpuMs: number, nowMs: number): void {
    const costMs = Math.min(cpuMs, MAX_COST_MS);
    const earliestMs = nowMs - ADVANCE_MS / this.#share;
    this.#paidAtMs = Math.max(this.#paidAtMs, earliestMs) + costMs / this.#share;
  }

  /** Time until the share allows more work. */
  restMs(nowMs: number): number {
    return Math.max(0, this.#paidAtMs - nowMs);
  }

  /** The rest that pays for work of so much CPU time, when nothing is used in advance. */
  restFor(cpuMs: number): number {
    return Math.min(cpuMs, MAX_COST_MS) * (1 / this.#share - 1);
  }
}
