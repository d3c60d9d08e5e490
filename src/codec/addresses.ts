/**
 * Members and lists of members.
 *
 *     mar_cpg_address_t   nodeid uint32 @0   pid uint32 @8   reason uint32 @16      24 bytes
 */
import { listOf, plainObject } from '../arguments';
import { asBuffer, malformed, Table, uint32 } from './fields';

/** One member of a group in a list: `mar_cpg_address_t`. */
export interface CpgAddress {
  /** Its node, a uint32. */
  nodeId: number;
  /** The pid it announced on join, a uint32. */
  pid: number;
  /** Why it is listed: one of {@link Reason}; 0 in lists of members. */
  reason: number;
}

/** cpg_reason_t. */
export const Reason = { UNDEFINED: 0, JOIN: 1, LEAVE: 2, NODEDOWN: 3, NODEUP: 4, PROCDOWN: 5 } as const;
/** A reason for a configuration change. */
export type Reason = (typeof Reason)[keyof typeof Reason];

const address = new Table<CpgAddress>('address', uint32('nodeId'), uint32('pid'), uint32('reason'));

/** The table checks their fields. */
export const ADDRESSES = listOf('an array of addresses: { nodeId, pid, reason }', plainObject);

export const ADDRESS_BYTES = address.size;
// A confchg (configuration change) of a large group has hundreds of members, so they are read in place.
const NODE_ID = address.offsetOf('nodeId');
const PID = address.offsetOf('pid');
const REASON = address.offsetOf('reason');

export function decodeAddresses(bytes: Uint8Array, offset: number, count: number): CpgAddress[] {
  if (count > Math.floor((bytes.length - offset) / ADDRESS_BYTES)) {
    throw malformed(`a list of ${count} members`, `at most what ${bytes.length - offset} bytes hold`);
  }
  const buffer = asBuffer(bytes);
  const list: CpgAddress[] = [];
  for (let at = offset, end = offset + count * ADDRESS_BYTES; at < end; at += ADDRESS_BYTES) {
    list.push({
      nodeId: buffer.readUInt32LE(at + NODE_ID),
      pid: buffer.readUInt32LE(at + PID),
      reason: buffer.readUInt32LE(at + REASON),
    });
  }
  return list;
}

/** Writes the list and returns the offset after it. */
export function encodeAddresses(list: readonly CpgAddress[], bytes: Uint8Array, offset: number): number {
  return list.reduce((at, member) => at + address.encode(member, bytes, at), offset);
}
