/// <reference types="node" preserve="true" />
/** corosync-cpg/tap: follow live connections of libqb services, and captures of them. */
export { Tap, MAX_CONNECTIONS } from './live/tap';
export type { TapOptions } from './live/tap';
export type { TapBatch } from './live/backlog';
export type { RingName, TapConnection } from './connections';
export type { TapFrame } from './frames';
export { Conversations, nodesOf, payloadOf } from './decode/messages';
export type { Content, TapMessage } from './decode/messages';
export { accepts, acceptsConnection, EVERYTHING } from './decode/filter';
export type { Filter } from './decode/filter';
export { describeMessage, jsonOf } from './decode/describe';
export { hexLines } from './decode/hex';
export { messageName } from './decode/services';
export { CaptureWriter } from './capture/writer';
export { CaptureReader, readCapture } from './capture/reader';
export { ReplayPlan } from './decode/replay';
export type { ReplayMessage } from './decode/replay';
export { TimelineBuilder } from './timeline/model';
export type { Step, Timeline } from './timeline/model';
export { svg } from './timeline/svg';
export { mermaid } from './timeline/mermaid';
