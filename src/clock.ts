/**
 * Timers and clocks, captured when this module is loaded. A test that replaces the global ones (fake timers) must not
 * stop open connections; some libraries also replace those of the module `timers`. The linter makes all code use these.
 */
import { performance } from 'node:perf_hooks';
import * as timers from 'node:timers';
import * as promises from 'node:timers/promises';

export const { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate } = timers;
/** setTimeout() as a promise. */
export const pause = promises.setTimeout;
/** setImmediate() as a promise. */
export const turn = promises.setImmediate;
/** Runs after the current call, before promises, timers and I/O. */
export const nextTick = process.nextTick.bind(process);

/** Milliseconds of the monotonic clock. */
export const monotonicMs: () => number = performance.now.bind(performance);
/** Milliseconds since 1970. */
export const wallClockMs: () => number = Date.now;
/** Add this to the monotonic clock to get milliseconds since 1970 with its resolution. */
export const { timeOrigin } = performance;
