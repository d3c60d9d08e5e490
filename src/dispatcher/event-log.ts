/**
 * Events that consumers have not taken yet. An event is stored once for all cursors, and removed when the slowest
 * cursor has passed it:
 *
 *     oldest                     newest
 *       e7    e8    e9    e10   e11
 *             ^                       ^
 *             a slow loop             a waiting loop
 */
import type { CpgEvent } from '../events';

export const MAX_QUEUED_EVENTS = 1024;
export const MAX_QUEUED_EVENT_BYTES = 4 * 1024 * 1024;

/** The position of a consumer: events and message bytes since the log began. */
export interface Cursor {
  events: number;
  bytes: number;
}

export class EventLog {
  readonly #events: CpgEvent[] = [];
  readonly #cursors = new Set<Cursor>();
  readonly #end: Cursor = { events: 0, bytes: 0 };
  readonly #onRoom: () => void;

  /** `onRoom` is called when a full cursor takes an event. */
  constructor(onRoom: () => void) {
    this.#onRoom = onRoom;
  }

  /** Opens a cursor at the end, or at the position of another one. */
  open(at: Readonly<Cursor> = this.#end): Cursor {
    const cursor = { ...at };
    this.#cursors.add(cursor);
    return cursor;
  }

  /** Removes a cursor, and the events that only it had still to take. */
  close(cursor: Cursor): void {
    this.#cursors.delete(cursor);
    this.#forgetTaken();
  }

  /** Appends an event; without a cursor it is dropped. */
  append(event: CpgEvent): void {
    if (this.#cursors.size === 0) return;
    this.#events.push(event);
    this.#end.events++;
    this.#end.bytes += eventBytes(event);
  }

  /** Takes the next event of a cursor, if there is one. */
  take(cursor: Cursor): CpgEvent | undefined {
    const event = this.#events[cursor.events - this.#oldest];
    if (event === undefined) return undefined;
    const wasFull = this.isFull(cursor);
    cursor.events++;
    cursor.bytes += eventBytes(event);
    this.#forgetTaken();
    if (wasFull) this.#onRoom();
    return event;
  }

  /** Whether a cursor has reached the limit of queued events, or `times` that limit. */
  isFull(cursor: Cursor, times = 1): boolean {
    return (
      this.#end.events - cursor.events >= times * MAX_QUEUED_EVENTS ||
      this.#end.bytes - cursor.bytes >= times * MAX_QUEUED_EVENT_BYTES
    );
  }

  hasFullCursor(times: number): boolean {
    if (this.#events.length === 0) return false;
    for (const cursor of this.#cursors) if (this.isFull(cursor, times)) return true;
    return false;
  }

  /** The number of the oldest stored event. */
  get #oldest(): number {
    return this.#end.events - this.#events.length;
  }

  /** Removes at least half of the array at a time, because removing the first of a long one moves all others. */
  #forgetTaken(): void {
    let slowest = this.#end.events;
    for (const { events } of this.#cursors) slowest = Math.min(slowest, events);
    const taken = slowest - this.#oldest;
    if (taken === 0 || 2 * taken < this.#events.length) return;
    if (taken === 1) this.#events.shift();
    else this.#events.splice(0, taken);
  }
}

/** The approximate memory of an event. */
function eventBytes(event: CpgEvent): number {
  return event.type === 'deliver' ? event.message.length : 0;
}
