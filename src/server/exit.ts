/** What has to be removed even when the process exits without closing its servers. */
const removals = new Set<() => void>();

function removeAll(): void {
  for (const remove of removals) remove();
}

/** Calls `remove` when the process exits, unless the returned function was called before. */
export function removeOnExit(remove: () => void): () => void {
  if (removals.size === 0) process.on('exit', removeAll);
  removals.add(remove);
  return () => {
    removals.delete(remove);
    if (removals.size === 0) process.off('exit', removeAll);
  };
}
