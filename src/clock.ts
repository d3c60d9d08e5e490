/**
 * Timers and clocks, captured when this module is loaded. A test that replaces the global ones (fake timers) must not
 * stop connections that are open; some libraries replace those of the module `timers`, too. All code takes them from
 * here: the linter holds it.
 */
import { performance } from 'node:perf_hooks';
import * as timers from 'node:timers';
import * as promises from 'node:timers/promises';

export const { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate } = timers;
/** setTimeout() as a promise. */
export const pause = promises.setTimeout;
/** setImmediate() as a promise. */
export const turn = promises.setImmediate;
/** Before everything else that waits, after the microtasks of the present call. */
export const nextTick = process.nextTick.bind(process);

/** Milliseconds of the monotonic clock. */
export const monotonicMs: () => number = performance.now.bind(performance);
/** Milliseconds since 1970. */
export const wallClockMs: () => number = Date.now;
/** What to add to the monotonic clock for milliseconds since 1970 with its resolution. */
export const { timeOrigin } = performance;
