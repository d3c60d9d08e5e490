/**
 * Events that consumers have still to take. An event is here once, however many wait for it, and leaves with the slowest
 * cursor:
 *
 *     oldest                     newest
 *       e7    e8    e9    e10   e11
 *             ^                       ^
 *             a slow loop             a loop that waits
 */
import type { CpgEvent } from '../events';

export const MAX_QUEUED_EVENTS = 1024;
export const MAX_QUEUED_EVENT_BYTES = 4 * 1024 * 1024;

/** How far a consumer has come: events and bytes of messages since the log began. */
export interface Cursor {
  events: number;
  bytes: number;
}

export class EventLog {
  readonly #events: CpgEvent[] = [];
  readonly #cursors = new Set<Cursor>();
  readonly #end: Cursor = { events: 0, bytes: 0 };
  readonly #onRoom: () => void;

  /** `onRoom` is called when an event is taken by a cursor that was full. */
  constructor(onRoom: () => void) {
    this.#onRoom = onRoom;
  }

  /** A cursor at the end, or where another one is. */
  open(at: Readonly<Cursor> = this.#end): Cursor {
    const cursor = { ...at };
    this.#cursors.add(cursor);
    return cursor;
  }

  /** What this cursor alone had before it is forgotten. */
  close(cursor: Cursor): void {
    this.#cursors.delete(cursor);
    this.#forgetTaken();
  }

  /** Nothing is kept without a cursor. */
  append(event: CpgEvent): void {
    if (this.#cursors.size === 0) return;
    this.#events.push(event);
    this.#end.events++;
    this.#end.bytes += eventBytes(event);
  }

  /** The next event of a cursor, if there is one. */
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

  /** A cursor has as much before it as a consumer may leave there, or `times` as much. */
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

  /** The number of the first event that is kept. */
  get #oldest(): number {
    return this.#end.events - this.#events.length;
  }

  /** At least half of the array at a time, because removing the first of a long one moves all others. */
  #forgetTaken(): void {
    let slowest = this.#end.events;
    for (const { events } of this.#cursors) slowest = Math.min(slowest, events);
    const taken = slowest - this.#oldest;
    if (taken === 0 || 2 * taken < this.#events.length) return;
    if (taken === 1) this.#events.shift();
    else this.#events.splice(0, taken);
  }
}

/** What an event keeps in memory, roughly. */
function eventBytes(event: CpgEvent): number {
  return event.type === 'deliver' ? event.message.length : 0;
}
