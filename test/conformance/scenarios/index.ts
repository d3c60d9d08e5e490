import { oneNode } from './one-node';
import type { Scenario } from './scenario';
import { threeNodes } from './three-nodes';

export const scenarios: readonly Scenario[] = [...oneNode, ...threeNodes];
export type { Scenario } from './scenario';
