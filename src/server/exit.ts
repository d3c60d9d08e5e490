/** Clean-up for a process that ends without closing its servers. */
const removals = new Set<() => void>();

/** Signals that end a process without a listener for them. */
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;
/** The holders that asked for signal handling. */
let signalUsers = 0;

function removeAll(): void {
  for (const remove of removals) remove();
}

/** Calls `remove` at process exit, unless the returned function was called before. */
export function removeOnExit(remove: () => void): () => void {
  if (removals.size === 0) process.on('exit', removeAll);
  removals.add(remove);
  return () => {
    if (removals.delete(remove) && removals.size === 0) process.off('exit', removeAll);
  };
}

/**
 * A signal that ends the process emits no 'exit': from now on the clean-up runs then, too. Call this only if the library
 * user asked for it. Call the returned function once, to end it.
 */
export function removeOnSignals(): () => void {
  // Run before all other listeners: a once() listener is gone after its call.
  if (signalUsers++ === 0) for (const signal of SIGNALS) process.prependListener(signal, onSignal);
  return () => {
    if (--signalUsers === 0) ignoreSignals();
  };
}

function ignoreSignals(): void {
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

function onSignal(signal: NodeJS.Signals): void {
  // Another listener decides the fate of the process.
  if (process.listenerCount(signal) > 1) return;
  removeAll();
  ignoreSignals();
  process.kill(process.pid, signal);
}
