/** Snapshots of groups and members, kept by the daemon and read row by row. */
import type { CpgRequest } from '../codec/requests';
import { debugSession as debug } from '../debug';
import { CpgError, isCpgError } from '../errors';
import type { RequestChannel, SuccessfulReply } from './request-channel';

/** The limit of open snapshots per client: the daemon keeps each until it is released. */
const MAX_ITERATIONS = 256;

export class Iterations {
  readonly #requests: RequestChannel;
  #open = 0;

  constructor(requests: RequestChannel) {
    this.#requests = requests;
  }

  /** The rows of a snapshot, which is released when the loop over them ends. `what` names the call. */
  async *rows(
    what: string,
    iterationType: number,
    group: Uint8Array,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<SuccessfulReply<'iterationNext'>, void> {
    if (this.#open >= MAX_ITERATIONS) throw tooMany(what);
    this.#open++;
    try {
      const handle = await this.#begin(what, iterationType, group, signal);
      let settled = false;
      try {
        for (;;) {
          const row = await this.#next(what, handle, signal);
          if (row === undefined) break;
          settled = true;
          yield row;
          settled = false;
        }
        settled = true;
      } finally {
        // After a failed request the daemon may hang: do not make the caller wait for another one.
        const released = this.#release(handle);
        if (settled) await released;
      }
    } finally {
      this.#open--;
    }
  }

  async #begin(
    what: string,
    iterationType: number,
    group: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<bigint> {
    const begin: CpgRequest = { type: 'iterationInitialize', group, iterationType };
    let begun: Promise<SuccessfulReply<'iterationInitialize'>> | undefined;
    try {
      const { handle } = await this.#requests.call(what, signal, (limit) => {
        begun = this.#requests.ask(what, begin, 'iterationInitialize', limit);
        return begun;
      });
      return handle;
    } catch (error) {
      // A late reply still means that the daemon has a snapshot.
      void begun?.then(
        (late) => this.#release(late.handle),
        () => undefined,
      );
      throw error;
    }
  }

  /** Undefined after the last row. */
  async #next(
    what: string,
    handle: bigint,
    signal: AbortSignal | undefined,
  ): Promise<SuccessfulReply<'iterationNext'> | undefined> {
    try {
      return await this.#requests.query(what, { type: 'iterationNext', handle }, 'iterationNext', signal);
    } catch (error) {
      if (isCpgError(error) && error.code === 'CS_ERR_NO_SECTIONS') return undefined;
      throw error;
    }
  }

  async #release(handle: bigint): Promise<void> {
    const release: CpgRequest = { type: 'iterationFinalize', handle };
    await this.#requests
      .query('groups', release, 'iterationFinalize')
      .catch((error: unknown) => debug('iteration %s: %s', handle, String(error)));
  }
}

function tooMany(what: string): CpgError {
  return new CpgError('CS_ERR_NO_RESOURCES', `${what}: ${MAX_ITERATIONS} loops over groups() are open`, {
    remedy: 'run loops to their end, or leave them: each holds a snapshot in the daemon',
  });
}
