/**
 * What waits to be sent, in the order of the calls.
 *
 * Everything goes out strictly first in, first out: a job that cannot go now keeps what is behind it
 * waiting, so messages keep their order whatever their size, and a request never overtakes a message.
 */
import type { Transport } from '../transport/transport';
import { CpgError } from '../errors';

/** Bytes that may wait here, message bytes plus a flat charge for each job. */
export const MAX_QUEUED_BYTES = 128 * 1024 * 1024;
const JOB_BYTES = 256;
/** Finished places at the front of the array that are dropped at once. */
const COMPACT_AFTER = 1024;

export interface Job {
  /** Bytes this job keeps in memory. */
  readonly bytes: number;
  /** False for a job that fails when the daemon takes nothing for too long; others have a deadline. */
  readonly hasDeadline: boolean;
  /** Set once nobody waits for it any more: it is skipped. */
  cancelled: boolean;
  /** Sends, or goes on sending. True when all of it went out, so that the next job may go. */
  advance(transport: Transport): boolean;
  /** The job will never be finished. */
  fail(error: Error): void;
}

export class Outbox {
  readonly #transport: Transport;
  #jobs: Job[] = [];
  #first = 0;
  #queuedBytes = 0;
  #draining = false;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  get empty(): boolean {
    return this.#first === this.#jobs.length;
  }

  /** Queues a job and sends what can be sent. Throws CS_ERR_TRY_AGAIN when too much waits already. */
  add(job: Job): void {
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
        if (!job.cancelled && !job.advance(this.#transport)) return;
        this.#shift(job);
      }
    } finally {
      this.#draining = false;
    }
  }

  /** Fails every job and forgets it. */
  failAll(error: Error): void {
    this.#failWhere(() => true, error);
  }

  /** Fails the jobs that have no deadline of their own. */
  failMessages(error: Error): void {
    this.#failWhere((job) => !job.hasDeadline, error);
  }

  #failWhere(chosen: (job: Job) => boolean, error: Error): void {
    const jobs = this.#jobs.slice(this.#first);
    this.#jobs = jobs.filter((job) => !chosen(job));
    this.#first = 0;
    this.#queuedBytes = this.#jobs.reduce((sum, job) => sum + job.bytes + JOB_BYTES, 0);
    for (const job of jobs) if (chosen(job)) job.fail(error);
  }

  #shift(job: Job): void {
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
