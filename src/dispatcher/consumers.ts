/**
 * Who gets the events: listeners at once, each loop through a cursor of its own in the log. While there are neither
 * (`await join()` usually comes before `for await`), a cursor is held for the next of them: the backlog. When it is full,
 * nothing is read for a while; then it is dropped, because an unread ring would fill the daemon's memory.
 */
import { clearTimeout, setImmediate, setTimeout } from '../clock';
import { debugDispatcher as debug } from '../debug';
import { asError, CpgError } from '../errors';
import { EventLog, type Cursor } from './event-log';
import { EventLoop } from './event-loop';
import type { CpgEvent } from '../events';

/** Who gets the events, apart from the loops. */
export interface EventSink {
  /** True while anything listens to any kind of event. */
  readonly listening: boolean;
  /** Returns whether anything listened. May throw what a user's listener throws. */
  emit(event: CpgEvent): boolean;
  /** Something about one message, or a user's listener, went wrong; the connection goes on. */
  report(error: Error): void;
}

/** How long a full backlog waits for a consumer. */
const BACKLOG_PATIENCE_MS = 1000;
/** While a confirmation is awaited, which comes after the events that are queued, so many times more may be queued. */
const CONFIRMATION_FACTOR = 16;

export class Consumers {
  readonly #sink: EventSink;
  readonly #keepsBacklog: boolean;
  readonly #onRoom: () => void;
  readonly #log: EventLog;
  readonly #loops = new Set<EventLoop>();
  #backlog: Cursor | undefined;
  #patience: NodeJS.Timeout | undefined;
  /** A backlog was dropped; until a consumer comes there is no other. */
  #dropped = false;
  #stopped = false;

  /** `onRoom` is called when a consumer that was full is not full any more, or is gone. */
  constructor(sink: EventSink, keepsBacklog: boolean, onRoom: () => void) {
    this.#sink = sink;
    this.#keepsBacklog = keepsBacklog;
    this.#onRoom = onRoom;
    this.#log = new EventLog(onRoom);
  }

  /** Nothing more is given to anybody. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Events are needed after give() has returned. */
  get keeping(): boolean {
    return this.#loops.size > 0 || this.#backlog !== undefined || this.#isNobodyThere();
  }

  /** No consumer has too much before it. */
  hasRoom(confirmationAwaited: boolean): boolean {
    return this.#stopped || !this.#log.hasFullCursor(confirmationAwaited ? CONFIRMATION_FACTOR : 1);
  }

  give(event: CpgEvent): void {
    this.#log.append(event);
    for (const loop of this.#loops) loop.wake();
    if (this.#backlog !== undefined) this.#watchBacklog(this.#backlog);
    else if (!this.#emit(event) && this.#isNobodyThere()) {
      this.#backlog = this.#log.open();
      this.#log.append(event);
    }
  }

  /** Gives listeners what came before them. */
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

  /** A listener was added. Returns whether flush() has something for it. */
  onListening(): boolean {
    this.#reportDropped();
    return this.#backlog !== undefined;
  }

  /** A loop over the backlog and all that follows. */
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

  /** From now on nothing is given; loops keep what they have. */
  stop(): void {
    this.flush();
    this.#stopped = true;
    clearTimeout(this.#patience);
  }

  /** As stop(), and loops end after what they have; they throw `reason` if there is one. */
  end(reason?: CpgError): void {
    this.stop();
    for (const loop of this.#loops) loop.end(reason);
  }

  #isNobodyThere(): boolean {
    return this.#keepsBacklog && !this.#dropped && this.#loops.size === 0 && !this.#feedsListeners();
  }

  #feedsListeners(): boolean {
    return !this.#stopped && this.#sink.listening;
  }

  #cursorForLoop(): Cursor {
    if (this.#backlog === undefined) return this.#log.open();
    // Listeners that were added in this turn get it too.
    return this.#feedsListeners() ? this.#log.open(this.#backlog) : this.#claimBacklog(this.#backlog);
  }

  #claimBacklog(backlog: Cursor): Cursor {
    this.#backlog = undefined;
    clearTimeout(this.#patience);
    this.#patience = undefined;
    return backlog;
  }

  /** A consumer is gone. What the last one has left is for the next. */
  #release(cursor: Cursor): void {
    if (this.#backlog === undefined && this.#isNobodyThere()) {
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
      debug('nothing consumes events: they are dropped from now on');
      this.#log.close(this.#claimBacklog(backlog));
      this.#dropped = true;
      this.#onRoom();
    }, BACKLOG_PATIENCE_MS);
  }

  /** Once, and later, so that a consumer that comes now can listen for errors too. */
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
