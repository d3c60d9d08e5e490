/**
 * What waits to be sent, in the order of the calls.
 *
 * Everything goes out strictly first in, first out: a job that cannot go now keeps what is behind it
 * waiting, so messages keep their order whatever their size, and a request never overtakes a message.
 */
import { CpgError } from '../errors';
import { abortReason, whenAborted } from './deadline';
import type { OutgoingMessage } from './message';

/** Bytes that may wait here: those of messages, and what jobs take themselves. */
export const MAX_QUEUED_BYTES = 128 * 1024 * 1024;
/** What a job takes: measured on 64 bits, rounded up (test/session/outbox-memory.test.ts). */
const JOB_BYTES = 980;
/** What each Uint8Array of a message takes beside its bytes. */
const PART_BYTES = 300;
const CONFIRM_BYTES = 1024;
const SIGNAL_BYTES = 1200;
/** A deadline of its own. */
export const DEADLINE_BYTES = 4750;
/** Finished places at the front of the array that are dropped at once. */
const COMPACT_AFTER = 1024;

export interface Job<T = void> {
  /** What becomes of it. */
  readonly done: Promise<T>;
  /** Bytes this job keeps in memory, beside what every job does. */
  readonly bytes: number;
  /** False for a job that fails when the daemon takes nothing for too long; others have a deadline. */
  readonly hasDeadline: boolean;
  /** Set once nobody waits for it any more: it is skipped. */
  cancelled: boolean;
  /** Sends, or goes on sending. True when all of it went out, so that the next job may go. */
  advance(): boolean;
  /** The job will never be finished. */
  fail(error: Error): void;
}

/** What a message that waits keeps in memory. */
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

  /** `onEmpty` is called when drain() has found, or left, nothing that waits. */
  constructor(onEmpty: () => void) {
    this.#onEmpty = onEmpty;
  }

  get empty(): boolean {
    return this.#first === this.#jobs.length;
  }

  /** Queues a job; resolves as it does. While it waits here, `signal` takes it out and rejects it. */
  async run<T>(job: Job<T>, signal: AbortSignal | undefined): Promise<T> {
    const ignore =
      signal &&
      whenAborted(signal, () => {
        job.cancelled = true;
        job.fail(abortReason(signal));
        // Later, because the same signal may be about to cancel what comes next.
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
   * Queues a job and sends what can be sent. Throws CS_ERR_TRY_AGAIN when too much waits already, and why it was closed
   * after that.
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

  /** Sends what can be sent now. */
  drain(): void {
    // A job that finishes may cause another one to be added: one loop does it all.
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

  /** Throws why the outbox was closed, if it was: under a call that was allowed when it began. */
  assertOpen(): void {
    if (this.#closeError !== undefined) throw this.#closeError;
  }

  /** Fails every job, and all that come later. */
  close(error: CpgError): void {
    this.#closeError = error;
    this.failAll(error);
  }

  /** Fails every job and forgets it. */
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
