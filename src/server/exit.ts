/** What has to be removed even when the process ends without closing its servers. */
const removals = new Set<() => void>();

/** Signals that end a process which does not listen to them. */
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

function removeAll(): void {
  for (const remove of removals) remove();
}

/** A signal that ends the process emits no 'exit'. */
function onSignal(signal: NodeJS.Signals): void {
  // Somebody else listens too, and decides what becomes of the process.
  if (process.listenerCount(signal) > 1) return;
  removeAll();
  stopListening();
  process.kill(process.pid, signal);
}

function startListening(): void {
  process.on('exit', removeAll);
  // First of all listeners: one that was added with once() is gone when it was called.
  for (const signal of SIGNALS) process.prependListener(signal, onSignal);
}

function stopListening(): void {
  process.off('exit', removeAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

/** Calls `remove` when the process ends, unless the returned function was called before. */
export function removeOnExit(remove: () => void): () => void {
  if (removals.size === 0) startListening();
  removals.add(remove);
  return () => {
    if (removals.delete(remove) && removals.size === 0) stopListening();
  };
}
