/** Reads the recordings of fixtures/ (see the README there). */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const FIXTURES = resolve(__dirname, '..', '..', 'fixtures');

export type FrameDirection = 'handshake-request' | 'handshake-response' | 'request' | 'response' | 'event';

export interface FrameAddress {
  nodeid: number;
  pid: number;
  reason: number;
}

/** What a C compiler reads from the frame. Only the fields of its message are there; group names are in hex. */
export interface FrameValues {
  error?: number;
  group?: string;
  nodeid?: number;
  pid?: number;
  flags?: number;
  guarantee?: number;
  msglen?: number;
  fraglen?: number;
  type?: number;
  /** 64 bits, in decimal. */
  handle?: string;
  members?: FrameAddress[] | number[];
  left?: FrameAddress[];
  joined?: FrameAddress[];
  ring?: { nodeid: number; seq: string };
  connection_type?: number;
  max_msg_size?: number;
  /** 64 bits, in decimal. */
  connection?: string;
  /** The three ring names of the handshake. */
  request?: string;
  response?: string;
  event?: string;
}

export interface Frame {
  /** What was going on in the recorded program. */
  step: string;
  dir: FrameDirection;
  /** The message, by the name it has in layout.json; a response has that of its request. */
  name: string;
  /** Whether libcpg's API showed the same values. */
  confirmed: boolean;
  values: FrameValues;
  bytes: Buffer;
}

export interface Field {
  offset: number;
  size: number;
}

export interface Layout {
  size: number;
  fields: Record<string, Field>;
}

export interface LayoutFacts {
  installed: Record<string, Layout>;
  parts: Record<string, Layout>;
  requests: Record<string, Layout>;
  responses: Record<string, Layout>;
  events: Record<string, Layout>;
  request_ids: Record<string, number>;
  response_ids: Record<string, number>;
  event_ids: Record<string, number>;
  cs_error_t: Record<string, number>;
  cs_dispatch_flags_t: Record<string, number>;
  cpg_guarantee_t: Record<string, number>;
  cpg_reason_t: Record<string, number>;
  cpg_iteration_type_t: Record<string, number>;
  cpg_flow_control_state_t: Record<string, number>;
  constants: Record<string, number>;
}

interface StoredFrame extends Omit<Frame, 'bytes'> {
  length: number;
  bytes: [offset: number, hex: string][];
  pattern?: { at: number; count: number; from: number; seed: number };
  sha256?: string;
}

/** The offsets, sizes and constants a C compiler found. */
export function loadLayout(): LayoutFacts {
  return JSON.parse(readFileSync(join(FIXTURES, 'layout.json'), 'utf8')) as LayoutFacts;
}

export type ForeignMachine = 'little-64' | 'little-32' | 'big-64' | 'big-32';
export type ForeignAnswer = 'accepted' | 'datagrams' | 'refused';

/** Handshake answers of daemons on other machines, as a C compiler lays them out. */
export function loadForeign(): Record<ForeignMachine, Record<ForeignAnswer, Buffer>> {
  const text = readFileSync(join(FIXTURES, 'foreign.json'), 'utf8');
  type Stored = Record<ForeignMachine, Record<ForeignAnswer, Pick<StoredFrame, 'length' | 'bytes'>>>;
  const { answers } = JSON.parse(text) as { answers: Stored };
  const restored = (machine: ForeignMachine): Record<ForeignAnswer, Buffer> => {
    const { accepted, datagrams, refused } = answers[machine];
    return { accepted: restore(accepted), datagrams: restore(datagrams), refused: restore(refused) };
  };
  return {
    'little-64': restored('little-64'),
    'little-32': restored('little-32'),
    'big-64': restored('big-64'),
    'big-32': restored('big-32'),
  };
}

/** Everything libcpg and the daemon said to each other in one scenario, in order. */
export function loadCapture(name: 'one-node' | 'three-nodes'): Frame[] {
  const text = readFileSync(join(FIXTURES, `capture-${name}.json`), 'utf8');
  const { frames } = JSON.parse(text) as { frames: StoredFrame[] };
  return frames.map(({ step, dir, name: message, confirmed, values, ...stored }) => {
    return { step, dir, name: message, confirmed, values, bytes: restore(stored) };
  });
}

function restore(stored: Pick<StoredFrame, 'length' | 'bytes' | 'pattern' | 'sha256'>): Buffer {
  const bytes = Buffer.alloc(stored.length);
  for (const [offset, hex] of stored.bytes) bytes.write(hex, offset, 'hex');
  if (stored.pattern) {
    const { at, count, from, seed } = stored.pattern;
    for (let i = 0; i < count; i++) bytes[at + i] = (31 * (from + i) + seed) & 0xff;
  }
  const { sha256 } = stored;
  if (sha256 !== undefined && createHash('sha256').update(bytes).digest('hex') !== sha256) {
    throw new Error('a fixture does not restore to the recorded bytes');
  }
  return bytes;
}
