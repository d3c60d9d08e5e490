/**
 * The queue of everything to be sent, in the order of the calls.
 *
 * It is strictly first in, first out: a job that cannot be sent yet blocks those after it, so messages of any size keep
 * their order, and a request never overtakes a message.
 */
import { CpgError } from '../errors';
import { abortReason, whenAborted } from './deadline';
import type { OutgoingMessage } from './message';

/** The limit of queued bytes: those of messages, plus the memory of the jobs themselves. */
export const MAX_QUEUED_BYTES = 128 * 1024 * 1024;
/** The memory of a job: measured on 64 bits, rounded up (test/session/outbox-memory.test.ts). */
const JOB_BYTES = 980;
/** The memory of each Uint8Array of a message, besides its bytes. */
const PART_BYTES = 300;
const CONFIRM_BYTES = 1024;
const SIGNAL_BYTES = 1200;
export const DEADLINE_BYTES = 4750;
/** Finished jobs at the front of the array before they are removed. */
const COMPACT_AFTER = 1024;

export interface Job<T = void> {
  /** Settles with the outcome. */
  readonly done: Promise<T>;
  /** The memory of this job in bytes, in addition to JOB_BYTES. */
  readonly bytes: number;
  /** False for a job that fails when the daemon takes nothing for too long; others have their own deadline. */
  readonly hasDeadline: boolean;
  /** Set when the caller no longer waits: the job is skipped. */
  cancelled: boolean;
  /** Starts or continues sending. True when all of it was sent, so that the next job may start. */
  advance(): boolean;
  /** The job will never finish. */
  fail(error: Error): void;
}

/** The memory of a queued message. */
export function messageBytes({ parts, length, confirm }: OutgoingMessage, signal?: AbortSignal): number {
  const confirmBytes = confirm === undefined ? 0 : CONFIRM_BYTES;
  return length + parts.length * PART_BYTES + confirmBytes + (signal === undefined ? 0 : SIGNAL_BYTES);
}

export class Outbox {
  readonly #onEmpty: () => void;
  #jobs: Job<unknown>[] = [];
  #first = 0;
  #queuedBytes = 0;
  #draining = false;
  #closeError: CpgError | undefined;

  /** `onEmpty` is called when the queue is empty at the end of drain(). */
  constructor(onEmpty: () => void) {
    this.#onEmpty = onEmpty;
  }

  get empty(): boolean {
    return this.#first === this.#jobs.length;
  }

  /** Queues a job and settles as it does. While it is queued, `signal` removes and rejects it. */
  async run<T>(job: Job<T>, signal: AbortSignal | undefined): Promise<T> {
    const ignore =
      signal &&
      whenAborted(signal, () => {
        job.cancelled = true;
        job.fail(abortReason(signal));
        // Deferred, because the same signal may be about to cancel the next job.
        void Promise.resolve().then(() => this.drain());
      });
    try {
      this.add(job);
      return await job.done;
    } finally {
      ignore?.();
    }
  }

  /**
   * Queues a job and sends what it can. Throws CS_ERR_TRY_AGAIN when the queue is full, and the reason once the outbox
   * is closed.
   */
  add(job: Job<unknown>): void {
    this.assertOpen();
    const bytes = job.bytes + JOB_BYTES;
    if (this.#queuedBytes + bytes > MAX_QUEUED_BYTES) {
      throw new CpgError('CS_ERR_TRY_AGAIN', `${this.#queuedBytes} bytes wait to be sent already`, {
        reason: 'outbox-full',
        remedy: "await mcast(), or use tryMcast() and the 'drain' event",
      });
    }
    this.#jobs.push(job);
    this.#queuedBytes += bytes;
    this.drain();
  }

  /** Sends as much as possible now. */
  drain(): void {
    // A finished job may add another one: this loop handles it.
    if (this.#draining) return;
    this.#draining = true;
    try {
      while (!this.empty) {
        const job = this.#jobs[this.#first]!;
        if (!job.cancelled && !job.advance()) return;
        this.#shift(job);
      }
    } finally {
      this.#draining = false;
    }
    this.#onEmpty();
  }

  /** Throws the reason if the outbox was closed, perhaps during a call that was allowed when it began. */
  assertOpen(): void {
    if (this.#closeError !== undefined) throw this.#closeError;
  }

  /** Fails every job, now and later. */
  close(error: CpgError): void {
    this.#closeError = error;
    this.failAll(error);
  }

  /** Fails and removes every job. */
  failAll(error: Error): void {
    this.#failWhere(() => true, error);
  }

  /** Fails the jobs that have no deadline of their own. */
  failMessages(error: Error): void {
    this.#failWhere((job) => !job.hasDeadline, error);
  }

  #failWhere(chosen: (job: Job<unknown>) => boolean, error: Error): void {
    const jobs = this.#jobs.slice(this.#first);
    this.#jobs = jobs.filter((job) => !chosen(job));
    this.#first = 0;
    this.#queuedBytes = this.#jobs.reduce((sum, job) => sum + job.bytes + JOB_BYTES, 0);
    for (const job of jobs) if (chosen(job)) job.fail(error);
  }

  #shift(job: Job<unknown>): void {
    // failAll() may have emptied the queue while the job ran.
    if (this.#jobs[this.#first] !== job) return;
    this.#first++;
    this.#queuedBytes -= job.bytes + JOB_BYTES;
    if (this.empty || this.#first === COMPACT_AFTER) {
      this.#jobs = this.#jobs.slice(this.#first);
      this.#first = 0;
    }
  }
}
