/**
 * The consumers of events: listeners, which are called immediately, and loops, each with its own cursor into the log.
 * While there are none (`await join()` usually comes before `for await`), the backlog is a cursor for the next one. A
 * full backlog pauses the reading; after a second it is dropped, because an unread ring would fill the daemon's memory.
 */
import { clearTimeout, setImmediate, setTimeout } from '../clock';
import { debugDispatcher as debug } from '../debug';
import { asError, CpgError } from '../errors';
import { EventLog, type Cursor } from './event-log';
import { EventLoop } from './event-loop';
import type { CpgEvent } from '../events';

/** Receives events for the listeners. */
export interface EventSink {
  /** True while anything listens to any kind of event. */
  readonly listening: boolean;
  /** Returns whether anything listened. May throw what a user's listener throws. */
  emit(event: CpgEvent): boolean;
  /** Reports a problem with one message or a user's listener; the connection continues. */
  report(error: Error): void;
}

/** How long a full backlog waits for a consumer. */
const BACKLOG_PATIENCE_MS = 1000;
/**
 * A loop that awaits `confirm` cannot drain its queue, and the confirming delivery is queued after it: meanwhile the
 * limits are this many times higher.
 */
const CONFIRMATION_FACTOR = 16;

export class Consumers {
  readonly #sink: EventSink;
  readonly #keepsBacklog: boolean;
  readonly #onRoom: () => void;
  readonly #log: EventLog;
  readonly #loops = new Set<EventLoop>();
  #backlog: Cursor | undefined;
  #patience: NodeJS.Timeout | undefined;
  /** A backlog was dropped; there is no new one until a consumer comes. */
  #dropped = false;
  #stopped = false;

  /** `onRoom` is called when a full consumer has room again or is gone. */
  constructor(sink: EventSink, keepsBacklog: boolean, onRoom: () => void) {
    this.#sink = sink;
    this.#keepsBacklog = keepsBacklog;
    this.#onRoom = onRoom;
    this.#log = new EventLog(onRoom);
  }

  /** No more events are given to consumers. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Events are needed after give() has returned. */
  get keeping(): boolean {
    return this.#loops.size > 0 || this.#backlog !== undefined || this.#needsBacklog();
  }

  /** No consumer has too much queued. */
  hasRoom(confirmationAwaited: boolean): boolean {
    return this.#stopped || !this.#log.hasFullCursor(confirmationAwaited ? CONFIRMATION_FACTOR : 1);
  }

  give(event: CpgEvent): void {
    this.#log.append(event);
    for (const loop of this.#loops) loop.wake();
    if (this.#backlog !== undefined) this.#watchBacklog(this.#backlog);
    else if (!this.#emit(event) && this.#needsBacklog()) {
      this.#backlog = this.#log.open();
      this.#log.append(event);
    }
  }

  /** Gives the backlog to listeners. */
  flush(): void {
    if (this.#backlog === undefined) return;
    const backlog = this.#claimBacklog(this.#backlog);
    while (this.#feedsListeners()) {
      const event = this.#log.take(backlog);
      if (event === undefined) break;
      this.#emit(event);
    }
    this.#release(backlog);
  }

  /** A listener was added. Returns whether flush() has events for it. */
  onListening(): boolean {
    this.#reportDropped();
    return this.#backlog !== undefined;
  }

  /** A loop over the backlog and all later events. */
  loop(signal: AbortSignal | undefined): EventLoop {
    const loop = new EventLoop(this.#log, this.#cursorForLoop(), (cursor) => {
      this.#loops.delete(loop);
      this.#release(cursor);
      this.#onRoom();
    });
    this.#loops.add(loop);
    this.#reportDropped();
    if (signal !== undefined) loop.watch(signal);
    return loop;
  }

  /** Gives no more events; loops keep what they have queued. */
  stop(): void {
    this.flush();
    this.#stopped = true;
    clearTimeout(this.#patience);
  }

  /** Like stop(), and loops end after their queued events; they throw `reason` if there is one. */
  end(reason?: CpgError): void {
    this.stop();
    for (const loop of this.#loops) loop.end(reason);
  }

  #needsBacklog(): boolean {
    return this.#keepsBacklog && !this.#dropped && this.#loops.size === 0 && !this.#feedsListeners();
  }

  #feedsListeners(): boolean {
    return !this.#stopped && this.#sink.listening;
  }

  #cursorForLoop(): Cursor {
    if (this.#backlog === undefined) return this.#log.open();
    // Listeners added in this turn get it too.
    return this.#feedsListeners() ? this.#log.open(this.#backlog) : this.#claimBacklog(this.#backlog);
  }

  #claimBacklog(backlog: Cursor): Cursor {
    this.#backlog = undefined;
    clearTimeout(this.#patience);
    this.#patience = undefined;
    return backlog;
  }

  /** A consumer is gone. The next one gets what the last one left. */
  #release(cursor: Cursor): void {
    if (this.#backlog === undefined && this.#needsBacklog()) {
      this.#backlog = cursor;
      this.#watchBacklog(cursor);
    } else this.#log.close(cursor);
  }

  #watchBacklog(backlog: Cursor): void {
    if (this.#stopped || !this.#log.isFull(backlog)) return;
    this.#patience ??= setTimeout(() => {
      this.#patience = undefined;
      // flush() follows.
      if (this.#feedsListeners()) return;
      this.#dropBacklog(backlog);
    }, BACKLOG_PATIENCE_MS);
  }

  #dropBacklog(backlog: Cursor): void {
    debug('nothing consumes events: they are dropped from now on');
    this.#log.close(this.#claimBacklog(backlog));
    this.#dropped = true;
    this.#onRoom();
  }

  /** Reports once, and deferred, so that the new consumer can also add an error listener. */
  #reportDropped(): void {
    if (!this.#dropped) return;
    this.#dropped = false;
    const error = new CpgError('CS_ERR_QUEUE_FULL', 'events that nothing consumed were dropped', {
      reason: 'unread-events',
      remedy: 'begin to listen before join(), or right after it',
    });
    setImmediate(() => this.#sink.report(error));
  }

  #emit(event: CpgEvent): boolean {
    try {
      return this.#sink.emit(event);
    } catch (error) {
      this.#sink.report(asError(error));
      return true;
    }
  }
}
