/**
 * Debug output, off unless asked for: DEBUG=cpg:* shows all, DEBUG=cpg:wire every message by name and field.
 * Guard anything that costs with `log.enabled`.
 */
import createDebug from 'debug';
import { groupText } from './codec/groups';

export const debugTransport = createDebug('cpg:transport');
export const debugSession = createDebug('cpg:session');
export const debugDispatcher = createDebug('cpg:dispatcher');
export const debugTap = createDebug('cpg:tap');
export const debugServer = createDebug('cpg:server');
const debugWire = createDebug('cpg:wire');

/** Whether debugMessage() shows anything: ask before making something only for it. */
export function showsMessages(): boolean {
  return debugWire.enabled;
}

/** Shows one message of the protocol; `group` as text where it is text. Costs nothing while cpg:wire is off. */
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
