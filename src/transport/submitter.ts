/**
 * Decides when staged frames are posted.
 *
 * A single frame is posted immediately if the daemon has consumed everything. Later frames of the same event loop turn
 * go out in batches: each post wakes the daemon, which on a small machine may take our CPU. Nothing announces that the
 * daemon is done, so while anything waits, the caller polls with findRoom() and post().
 */
import type { RequestWriter, SubmitState } from '../ring/request-writer';

/** The result for a frame: refused for now, staged to be posted later, or posted with all staged frames. */
export type Staging = 'full' | 'staged' | 'posted';

/** Between two polls, check the ring after staging this much; each frame counts as at least LEAST_BYTES. */
const RECHECK_BYTES = 512 * 1024;
const LEAST_BYTES = 8 * 1024;
/** How long markConsumed() stays valid: long enough to send an answer. */
const CONSUMED_FOR_MS = 1;

export class Submitter {
  readonly #ring: RequestWriter;
  readonly #wakeUp: (chunks: number) => void;
  readonly #now: () => number;
  readonly state = {
    /**
     * ready: nothing waits, and the next frame may be posted immediately; gathering: one was posted so in this turn.
     * Otherwise frames or a caller wait: busy, or flowControlled while the daemon asks us not to send.
     */
    phase: 'ready' as SubmitState | 'gathering',
    /** A frame was refused. */
    wantsRoom: false,
    /** Skip the semaphore read until this time: everything posted is known to be consumed. */
    consumedUntilMs: 0,
    /** Staged since the last check or post. */
    uncheckedBytes: 0,
  };

  /** `wakeUp` sends one byte per chunk on the service socket. */
  constructor(ring: RequestWriter, wakeUp: (chunks: number) => void, now: () => number) {
    this.#ring = ring;
    this.#wakeUp = wakeUp;
    this.#now = now;
  }

  get waiting(): boolean {
    return this.state.phase === 'busy' || this.state.phase === 'flowControlled';
  }

  /** See RequestWriter.stage(). */
  stage(head: Buffer, parts: readonly Uint8Array[], length: number): Staging {
    return this.#maySend() && this.#ring.stage(head, parts, length) ? this.#staged(length) : this.#refused();
  }

  /** See RequestWriter.stagePrepared(). */
  stagePrepared(memory: Buffer, length: number): Staging {
    return this.#maySend() && this.#ring.stagePrepared(memory, length)
      ? this.#staged(length)
      : this.#refused();
  }

  endTurn(): void {
    if (this.state.phase === 'gathering') this.state.phase = 'ready';
  }

  /** The daemon is known to have consumed everything posted. */
  markConsumed(): void {
    // If flow control starts meanwhile, the daemon leaves the next frame in the ring until it ends.
    if (!this.waiting) this.state.consumedUntilMs = this.#now() + CONSUMED_FOR_MS;
  }

  /** After a frame was refused: whether to try again. */
  findRoom(): boolean {
    const found = this.#check();
    // While the daemon works on one batch, stage the next one in the space it has freed.
    if (found === 'flowControlled' || (found === 'busy' && !this.#ring.hasQuarterFree())) return false;
    this.state.phase = 'busy';
    this.state.wantsRoom = false;
    return true;
  }

  /** Posts all staged frames if the daemon is ready; true if anything was posted. */
  post(): boolean {
    const posts = this.#ring.stagedChunks > 0 && this.#check() === 'ready';
    if (posts) this.#post();
    if (this.#ring.stagedChunks === 0 && !this.state.wantsRoom) this.state.phase = 'ready';
    else this.#wait();
    return posts;
  }

  /** Checks the ring unless the caller polls or the state is known. False under flow control. */
  #maySend(): boolean {
    if (this.state.phase === 'ready' && this.#now() > this.state.consumedUntilMs) this.#check();
    return this.state.phase !== 'flowControlled';
  }

  #check(): SubmitState {
    this.state.uncheckedBytes = 0;
    return (this.state.phase = this.#ring.submitState());
  }

  #refused(): Staging {
    this.#wait();
    this.state.wantsRoom = true;
    return 'full';
  }

  #staged(length: number): Staging {
    this.state.uncheckedBytes += Math.max(length, LEAST_BYTES);
    const single = this.state.phase === 'ready';
    const posts = single || (this.state.uncheckedBytes >= RECHECK_BYTES && this.#check() === 'ready');
    this.#wait();
    if (!posts) return 'staged';
    if (single) this.state.phase = 'gathering';
    this.#post();
    return 'posted';
  }

  #wait(): void {
    if (!this.waiting) this.state.phase = 'busy';
  }

  #post(): void {
    this.state.consumedUntilMs = 0;
    this.state.uncheckedBytes = 0;
    this.#wakeUp(this.#ring.post());
  }
}
