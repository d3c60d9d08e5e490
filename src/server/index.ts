/** corosync-cpg/server: CPG without corosync, for tests, demos and trying things out. */
export { startServer, CpgServer } from './server';
export type { ServerOptions } from './server';
export { SimulatedCluster, ClusterNode } from './cluster';
export type { ClusterOptions, SettledOptions } from './cluster';
export type { IpcType } from './connection';
export { Random } from './random';
export type { ClockMode } from './total-order';
export type { Faults } from './faults';
export type { Refusal } from './wire/handshake';
