/** Records what a client is told, and waits for it. */
import type { CpgClient, ConfchgEvent, CpgError, DeliverEvent, TotemConfchgEvent } from '../../src';

const DEFAULT_WAIT_MS = 20_000;

export class Collector {
  readonly confchgs: ConfchgEvent[] = [];
  readonly deliveries: DeliverEvent[] = [];
  readonly totem: TotemConfchgEvent[] = [];
  readonly errors: Error[] = [];
  /** The arguments of 'close', once it came. */
  closed: [reason?: CpgError] | undefined;
  readonly #watchers = new Set<() => void>();

  constructor(client: CpgClient) {
    client.on('confchg', (event) => this.#add(this.confchgs, event));
    client.on('deliver', (event) => this.#add(this.deliveries, event));
    client.on('totemConfchg', (event) => this.#add(this.totem, event));
    client.on('error', (error) => this.#add(this.errors, error));
    client.on('close', (...reason) => {
      this.closed = reason;
      this.#changed();
    });
  }

  /** The messages as text. */
  get texts(): string[] {
    return this.deliveries.map(({ message }) => Buffer.from(message).toString('utf8'));
  }

  /** Resolves when the condition holds after some event. */
  until(what: string, condition: (collector: this) => boolean, timeoutMs = DEFAULT_WAIT_MS): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#watchers.delete(watcher);
        reject(new Error(`waited ${timeoutMs} ms for ${what}; got ${this.#summary()}`));
      }, timeoutMs);
      const watcher = (): void => {
        if (!condition(this)) return;
        clearTimeout(timer);
        this.#watchers.delete(watcher);
        resolve();
      };
      this.#watchers.add(watcher);
      watcher();
    });
  }

  #add<T>(list: T[], item: T): void {
    list.push(item);
    this.#changed();
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher();
  }

  #summary(): string {
    const { confchgs, deliveries, totem, errors, closed } = this;
    return `${confchgs.length} confchgs, ${deliveries.length} deliveries, ${totem.length} totem confchgs, errors [${errors.join(', ')}], ${closed === undefined ? 'open' : `closed (${String(closed[0])})`}`;
  }
}
