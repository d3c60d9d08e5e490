/**
 * When staged frames are posted.
 *
 * A single frame is posted at once if the daemon has taken everything. What follows in the same turn of the event loop
 * goes out in batches: each posting wakes the daemon, which on a small machine may take our CPU for that. Nothing
 * announces that the daemon is done, so while anything waits, the caller polls with findRoom() and post().
 */
import type { RequestWriter, SubmitState } from '../ring/request-writer';

/** What became of a frame: refused for now, staged to be posted later, or posted with all that was staged. */
export type Staging = 'full' | 'staged' | 'posted';

/** Between two polls, look at the ring after this much was staged; each frame counts for LEAST_BYTES at least. */
const RECHECK_BYTES = 512 * 1024;
const LEAST_BYTES = 8 * 1024;
/** How long the daemon is taken to be done once it is known to be: long enough for an answer. */
const KNOWN_FOR_MS = 1;

export class Submitter {
  readonly #ring: RequestWriter;
  readonly #wakeUp: (chunks: number) => void;
  readonly #now: () => number;
  readonly state = {
    /**
     * ready: nothing waits, the next frame may be posted at once; gathering: that was done in this turn. Otherwise
     * frames or a caller wait: busy, or flowControlled while the daemon asks us not to send.
     */
    phase: 'ready' as SubmitState | 'gathering',
    /** A frame was refused. */
    wantsRoom: false,
    /** Skip the look at the ring until this time: everything posted is known to be taken. */
    takenUntilMs: 0,
    /** Staged since the last look or posting. */
    uncheckedBytes: 0,
  };

  /** `wakeUp` sends so many bytes on the service socket. */
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

  /** There is proof that the daemon has taken all that was posted. */
  markConsumed(): void {
    // Flow control may come meanwhile: the daemon then leaves the next frame in the ring until it is over.
    if (!this.waiting) this.state.takenUntilMs = this.#now() + KNOWN_FOR_MS;
  }

  /** After a frame was refused: whether it is worth trying again. */
  findRoom(): boolean {
    const found = this.#look();
    // While the daemon works on one batch, the next one can be laid out in what it has freed.
    if (found === 'flowControlled' || (found === 'busy' && !this.#ring.hasQuarterFree())) return false;
    this.state.phase = 'busy';
    this.state.wantsRoom = false;
    return true;
  }

  /** Posts what is staged, if the daemon is ready for it; true when anything was posted. */
  post(): boolean {
    const posts = this.#ring.stagedChunks > 0 && this.#look() === 'ready';
    if (posts) this.#post();
    if (this.#ring.stagedChunks === 0 && !this.state.wantsRoom) this.state.phase = 'ready';
    else this.#wait();
    return posts;
  }

  /** Looks, unless a poll does or the answer is known. False while flow control holds us. */
  #maySend(): boolean {
    if (this.state.phase === 'ready' && this.#now() > this.state.takenUntilMs) this.#look();
    return this.state.phase !== 'flowControlled';
  }

  #look(): SubmitState {
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
    const posts = single || (this.state.uncheckedBytes >= RECHECK_BYTES && this.#look() === 'ready');
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
    this.state.takenUntilMs = 0;
    this.state.uncheckedBytes = 0;
    this.#wakeUp(this.#ring.post());
  }
}
