/**
 * src/clock.ts for tests that let the time pass: it takes the timers that are there when it is called, so that Jest's
 * fake ones count. `jest.mock('../../src/clock', () => jest.requireActual<object>('../support/fake-clock'))`.
 */
import type * as clock from '../../src/clock';

type Callback = (...given: unknown[]) => void;

const current = {
  setTimeout: (action: Callback, ms?: number, ...given: unknown[]) => setTimeout(action, ms, ...given),
  clearTimeout: (timer?: NodeJS.Timeout) => clearTimeout(timer),
  setInterval: (action: Callback, ms?: number, ...given: unknown[]) => setInterval(action, ms, ...given),
  clearInterval: (timer?: NodeJS.Timeout) => clearInterval(timer),
  setImmediate: (action: Callback, ...given: unknown[]) => setImmediate(action, ...given),
  clearImmediate: (immediate?: NodeJS.Immediate) => clearImmediate(immediate),
  nextTick: (action: Callback, ...given: unknown[]) => process.nextTick(action, ...given),
  monotonicMs: () => performance.now(),
  wallClockMs: () => Date.now(),
};

module.exports = { ...jest.requireActual<typeof clock>('../../src/clock'), ...current };
