/** What has to be removed even when the process ends without closing its servers. */
const removals = new Set<() => void>();

/** Signals that end a process which does not listen to them. */
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;
/** Who asked for them to be handled. */
let signalUsers = 0;

function removeAll(): void {
  for (const remove of removals) remove();
}

/** Calls `remove` when the process exits, unless the returned function was called before. */
export function removeOnExit(remove: () => void): () => void {
  if (removals.size === 0) process.on('exit', removeAll);
  removals.add(remove);
  return () => {
    if (removals.delete(remove) && removals.size === 0) process.off('exit', removeAll);
  };
}

/**
 * A signal that ends the process emits no 'exit': from now on it is removed then, too. To be called only when the user
 * of the library asked for it; the returned function, to be called once, ends it.
 */
export function removeOnSignals(): () => void {
  // Before all other listeners: one that was added with once() is gone when it was called.
  if (signalUsers++ === 0) for (const signal of SIGNALS) process.prependListener(signal, onSignal);
  return () => {
    if (--signalUsers === 0) ignoreSignals();
  };
}

function ignoreSignals(): void {
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

function onSignal(signal: NodeJS.Signals): void {
  // Another listener decides what becomes of the process.
  if (process.listenerCount(signal) > 1) return;
  removeAll();
  ignoreSignals();
  process.kill(process.pid, signal);
}
