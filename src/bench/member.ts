/** A client in its own group, with a record of the deliveries. */
import { once } from 'node:events';
import { connect, type ConnectOptions, type CpgClient } from '../client';
import { CpgError } from '../errors';

/** Every message begins with its number, a little-endian uint32, to detect lost and duplicate messages. */
export const NUMBER_BYTES = 4;

export interface WorkloadOptions {
  readonly connect: ConnectOptions;
  readonly group: string | Uint8Array;
  readonly signal: AbortSignal;
}

/** Totals of the deliveries. */
export interface Delivered {
  readonly received: number;
  /** Deliveries with another number than the next: lost, duplicate, out of order, or foreign. */
  readonly wrong: number;
  /** Checksum of the sequence of numbers: equal for members that saw the same sequence. */
  readonly checksum: string;
}

export class BenchMember {
  readonly client: CpgClient;
  received = 0;
  #wrong = 0;
  #checksum = 0;
  #awaited = Infinity;
  #onAwaited: () => void = () => undefined;
  #failure: Error | undefined;

  private constructor(client: CpgClient) {
    this.client = client;
    client.on('deliver', ({ message }) => this.#count(message));
    client.on('close', (reason) => {
      this.#failure = reason ?? new CpgError('CS_ERR_BAD_HANDLE', 'bench: the connection was closed');
      this.#onAwaited();
    });
  }

  /** Connects, joins, waits for the confchg, runs `work`, and always closes. */
  static async during<T>(
    { connect: options, group, signal }: WorkloadOptions,
    work: (member: BenchMember) => Promise<T>,
  ): Promise<T> {
    const client = await connect({ ...options, signal });
    const onAbort = (): void => void client.close();
    try {
      const member = new BenchMember(client);
      const joined = once(client, 'confchg', { signal });
      await client.join(group, { signal });
      await joined;
      signal.addEventListener('abort', onAbort);
      return await work(member);
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      signal.removeEventListener('abort', onAbort);
      await client.close();
    }
  }

  /** Resets the counters. */
  reset(): void {
    this.received = 0;
    this.#wrong = 0;
    this.#checksum = 0;
  }

  get delivered(): Delivered {
    return { received: this.received, wrong: this.#wrong, checksum: String(this.#checksum) };
  }

  /** Resolves after `count` deliveries since reset(); rejects when the connection ends. */
  untilDelivered(count: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#awaited = Infinity;
        this.#onAwaited = () => undefined;
        if (this.#failure === undefined) resolve();
        else reject(this.#failure);
      };
      if (this.#failure !== undefined || this.received >= count) {
        settle();
        return;
      }
      this.#awaited = count;
      this.#onAwaited = settle;
    });
  }

  #count(message: Uint8Array): void {
    const number = message.length < NUMBER_BYTES ? -1 : numberOf(message);
    if (number !== this.received) this.#wrong++;
    this.#checksum = (Math.imul(this.#checksum, 31) + number) >>> 0;
    this.received++;
    if (this.received >= this.#awaited) this.#onAwaited();
  }
}

export function putNumber(message: Uint8Array, number: number): void {
  message[0] = number;
  message[1] = number >>> 8;
  message[2] = number >>> 16;
  message[3] = number >>> 24;
}

export function numberOf(message: Uint8Array): number {
  return (message[0]! | (message[1]! << 8) | (message[2]! << 16) | (message[3]! << 24)) >>> 0;
}

/** CPU time of this process, user and system, since `since`. */
export function cpuMicros(since?: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since);
  return user + system;
}
