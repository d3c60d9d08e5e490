/** Workloads that measure a client and its daemon. Each proves that nothing was lost. */
export {
  FLOOD_SIZES,
  flood,
  floodCount,
  warmupCount,
  type FloodOptions,
  type FloodResult,
  type Sending,
} from './flood';
export { holdIdle, type IdleOptions, type IdleResult } from './idle';
export { latency, type LatencyOptions, type LatencyResult } from './latency';
export { receive, type ReceiveOptions, type ReceiveResult } from './receive';
