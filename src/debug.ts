/**
 * Debug output, off by default: DEBUG=cpg:* enables all of it, DEBUG=cpg:wire every message with its fields.
 * Guard expensive arguments with `log.enabled`.
 */
import type { Debugger } from 'debug';
import { createRequire } from 'node:module';
import { groupText } from './codec/groups';

const createDebug = loadDebug();

/**
 * Loads the package debug at run time: it calls require() for Node modules, which a bundle in ES modules cannot. So
 * bundlers leave it out, and a bundle shows nothing unless debug is installed beside it.
 */
function loadDebug(): (name: string) => Debugger {
  try {
    return createRequire(__filename)('debug') as (name: string) => Debugger;
  } catch {
    if (/(^|[\s,])(\*|cpg)/.test(process.env['DEBUG'] ?? ''))
      process.emitWarning('DEBUG: corosync-cpg shows nothing, since the package debug is not installed');
    const silent = Object.assign(() => undefined, { enabled: false });
    return () => silent as unknown as Debugger;
  }
}

export const debugTransport = createDebug('cpg:transport');
export const debugSession = createDebug('cpg:session');
export const debugDispatcher = createDebug('cpg:dispatcher');
export const debugTap = createDebug('cpg:tap');
export const debugServer = createDebug('cpg:server');
const debugWire = createDebug('cpg:wire');

/** Whether debugMessage() shows anything: check before computing something only for it. */
export function showsMessages(): boolean {
  return debugWire.enabled;
}

/** Shows one protocol message, with `group` as text if it is valid UTF-8. Free while cpg:wire is off. */
export function debugMessage(direction: '>' | '<', message: { type: string; group?: Uint8Array }): void {
  if (!showsMessages()) return;
  const { type, group, ...fields } = message;
  debugWire(
    '%s %s %o',
    direction,
    type,
    group === undefined ? fields : { group: groupText(group), ...fields },
  );
}
