/**
 * Debug output, off unless asked for: DEBUG=cpg:* shows all, DEBUG=cpg:wire every message by name and field.
 * Guard anything that costs with `log.enabled`.
 */
import createDebug from 'debug';

export const debugTransport = createDebug('cpg:transport');
export const debugSession = createDebug('cpg:session');
export const debugDispatcher = createDebug('cpg:dispatcher');
export const debugServer = createDebug('cpg:server');
export const debugWire = createDebug('cpg:wire');
