/** Reassembly of fragments per sender, with the same result for all receivers of the same fragments. */
import fc from 'fast-check';
import { MAX_MESSAGE_BYTES, type CpgWireEvent } from '../../src/codec';
import { Reassembly } from '../../src/dispatcher/reassembly';
import type { CpgError } from '../../src/errors';
import { cpgError, thrownBy } from '../support/errors';
import { assertProperty } from '../support/property';

type Fragment = Extract<CpgWireEvent, { type: 'partialDeliver' }>;

const [FIRST, CONTINUED, LAST] = [1, 2, 3] as const;

function fragment(fragmentType: number, text: string, messageLength: number, nodeId = 1, pid = 10): Fragment {
  return {
    type: 'partialDeliver',
    group: Buffer.from('g'),
    messageLength,
    nodeId,
    pid,
    fragmentType,
    fragment: Buffer.from(text),
  };
}

const text = (message: Uint8Array | undefined): string | undefined =>
  message === undefined ? undefined : Buffer.from(message).toString();

let reassembly: Reassembly;
let errors: CpgError[];
const withLimit = (maxBytes: number): void => {
  errors = [];
  reassembly = new Reassembly(maxBytes, (error) => errors.push(error));
};
beforeEach(() => withLimit(Infinity));

const add = (...args: Parameters<typeof fragment>): string | undefined =>
  text(reassembly.add(fragment(...args)));

test('first, continued, last', () => {
  expect(add(FIRST, 'abc', 8)).toBeUndefined();
  expect(add(CONTINUED, 'de', 8)).toBeUndefined();
  expect(add(LAST, 'fgh', 8)).toBe('abcdefgh');
});

test('the message is a copy: frames are only valid while they are handled', () => {
  const frame = fragment(FIRST, 'abc', 6);
  reassembly.add(frame);
  frame.fragment.fill(0);
  expect(add(LAST, 'def', 6)).toBe('abcdef');
});

test('senders are kept apart, by node and by pid', () => {
  add(FIRST, 'a1', 4, 1, 10);
  add(FIRST, 'b1', 4, 2, 10);
  add(FIRST, 'c1', 4, 1, 20);
  expect(add(LAST, 'b2', 4, 2, 10)).toBe('b1b2');
  expect(add(LAST, 'c2', 4, 1, 20)).toBe('c1c2');
  expect(add(LAST, 'a2', 4, 1, 10)).toBe('a1a2');
});

test('any interleaving of senders gives each its messages', async () => {
  await assertProperty(
    fc.property(
      fc.array(fc.tuple(fc.nat(3), fc.string({ minLength: 3, maxLength: 30 })), { maxLength: 12 }),
      fc.nat(),
      (messages, seed) => {
        const own = new Reassembly(Infinity, () => undefined);
        const queues = [0, 1, 2, 3].map((sender) =>
          messages
            .filter(([from]) => from === sender)
            .flatMap(([, message]) => {
              const length = Buffer.byteLength(message);
              const bytes = Buffer.from(message).toString('latin1');
              const piece = (type: number, from: number, to?: number): Fragment => ({
                ...fragment(type, '', length, 1 + (sender >> 1), sender & 1),
                fragment: Buffer.from(bytes.slice(from, to), 'latin1'),
              });
              return [piece(FIRST, 0, 1), piece(CONTINUED, 1, 2), piece(LAST, 2)];
            }),
        );
        const got: (string | undefined)[][] = [[], [], [], []];
        let turn = seed;
        for (;;) {
          const waiting = [0, 1, 2, 3].filter((sender) => queues[sender]!.length > 0);
          if (waiting.length === 0) break;
          turn = (Math.imul(turn, 1103515245) + 12345) >>> 0;
          const sender = waiting[(turn >>> 16) % waiting.length]!;
          const message = own.add(queues[sender]!.shift()!);
          if (message !== undefined) got[sender]!.push(text(message));
        }
        for (const sender of [0, 1, 2, 3]) {
          expect(got[sender]).toEqual(
            messages.filter(([from]) => from === sender).map(([, message]) => message),
          );
        }
      },
    ),
  );
});

test('the end of a message whose beginning we missed is ignored', () => {
  expect(add(CONTINUED, 'de', 8)).toBeUndefined();
  expect(add(LAST, 'fgh', 8)).toBeUndefined();
  add(FIRST, 'a', 2);
  expect(add(LAST, 'b', 2)).toBe('ab');
  expect(errors).toEqual([]);
});

test('a new first one drops what was unfinished', () => {
  add(FIRST, 'old', 6);
  add(FIRST, 'new', 6);
  expect(add(LAST, 'est', 6)).toBe('newest');
});

test('a sender that leaves is forgotten, and only that one', () => {
  add(FIRST, 'a1', 4, 1, 10);
  add(FIRST, 'b1', 4, 1, 20);
  reassembly.forget(1, 10);
  reassembly.forget(9, 9);
  expect(add(LAST, 'a2', 4, 1, 10)).toBeUndefined();
  expect(add(LAST, 'b2', 4, 1, 20)).toBe('b1b2');
});

test('empty fragments add nothing', () => {
  add(FIRST, '', 3);
  add(CONTINUED, '', 3);
  add(CONTINUED, 'abc', 3);
  add(CONTINUED, '', 3);
  expect(add(LAST, '', 3)).toBe('abc');
  add(FIRST, '', 0);
  expect(add(LAST, '', 0)).toBe('');
  expect(errors).toEqual([]);
});

describe('fragments that do not fit are CS_ERR_MESSAGE_ERROR once, and the message is dropped', () => {
  test.each([
    ['longer than announced', () => add(CONTINUED, 'abcdef', 8)],
    ['longer than announced at the end', () => add(LAST, 'abcdef', 8)],
    ['a whole one behind a part', () => add(LAST, 'abcdefgh', 8)],
    ['shorter than announced at the end', () => add(LAST, 'abcd', 8)],
    ['of another whole', () => add(CONTINUED, 'd', 9)],
    ['the last of another whole', () => add(LAST, 'defgh', 9)],
  ])('%s', (_, bad) => {
    add(FIRST, 'abc', 8);
    expect(bad()).toBeUndefined();
    expect(errors).toMatchObject([cpgError('CS_ERR_MESSAGE_ERROR')]);
    expect(add(CONTINUED, 'de', 8)).toBeUndefined();
    expect(add(LAST, 'fgh', 8)).toBeUndefined();
    add(FIRST, 'x', 2);
    expect(add(LAST, 'y', 2)).toBe('xy');
    expect(errors).toHaveLength(1);
  });

  test('a first one longer than its whole', () => {
    expect(add(FIRST, 'abc', 2)).toBeUndefined();
    expect(add(LAST, 'c', 2)).toBeUndefined();
    expect(errors).toMatchObject([cpgError('CS_ERR_MESSAGE_ERROR')]);
  });
});

test('a message over 64 MiB is CS_ERR_TOO_BIG once, and the next one is fine', () => {
  for (const length of [MAX_MESSAGE_BYTES + 1, 0xffffffff]) {
    errors = [];
    for (const type of [FIRST, CONTINUED, CONTINUED, LAST]) expect(add(type, 'x', length)).toBeUndefined();
    expect(errors).toMatchObject([cpgError('CS_ERR_TOO_BIG')]);
  }
  add(FIRST, 'x', 2);
  expect(add(LAST, 'y', 2)).toBe('xy');
});

describe('memory', () => {
  const MIB = 1024 * 1024;
  const piece = Buffer.alloc(MIB, 'abcdefg');
  const addPiece = (type: number, messageLength: number, pid = 10, bytes = piece): Uint8Array | undefined =>
    reassembly.add({ ...fragment(type, '', messageLength, 1, pid), fragment: bytes });

  /** Bytes of all memory that was allocated. */
  const allocations = (work: () => void): number => {
    const allocate = jest.spyOn(Buffer, 'allocUnsafeSlow');
    try {
      work();
      return allocate.mock.calls.reduce((sum, [bytes]) => sum + bytes, 0);
    } finally {
      allocate.mockRestore();
    }
  };

  test('follows the bytes received, not the claimed length', () => {
    for (const pieces of [0, 1, 2, 3, 5, 8, 13, 21, 31]) {
      const taken = allocations(() => {
        addPiece(FIRST, MAX_MESSAGE_BYTES, 10, Buffer.alloc(0));
        for (let count = 0; count < pieces; count++) addPiece(CONTINUED, MAX_MESSAGE_BYTES);
      });
      expect(taken).toBeLessThanOrEqual(2 * pieces * MIB);
    }
  });

  test('of a whole message of 64 MiB is moved once', () => {
    let message: Uint8Array | undefined;
    const taken = allocations(() => {
      addPiece(FIRST, MAX_MESSAGE_BYTES);
      for (let count = 0; count < 62; count++) addPiece(CONTINUED, MAX_MESSAGE_BYTES);
      message = addPiece(LAST, MAX_MESSAGE_BYTES);
    });
    expect(taken).toBeLessThanOrEqual(1.5 * MAX_MESSAGE_BYTES);
    expect(Buffer.concat(Array.from({ length: 64 }, () => piece)).equals(message!)).toBe(true);
  });

  test('of one byte at a time is not taken for each', () => {
    const taken = allocations(() => {
      for (let count = 0; count < 10_000; count++) {
        addPiece(count === 0 ? FIRST : CONTINUED, MIB, 10, piece.subarray(0, 1));
      }
    });
    expect(taken).toBeLessThanOrEqual(20_000);
  });

  test('of all senders is bounded only by the limit, and then it is CS_ERR_NO_MEMORY', () => {
    withLimit(20 * MIB);
    for (let pid = 0; pid < 20; pid++) addPiece(FIRST, MAX_MESSAGE_BYTES, pid);
    // The last fragment of a message is no part of an unfinished one.
    addPiece(FIRST, 2 * MIB, 0);
    expect(addPiece(LAST, 2 * MIB, 0)).toHaveLength(2 * MIB);
    addPiece(FIRST, MAX_MESSAGE_BYTES, 20);
    // Room comes back by a leave, by a new first fragment, and by an error.
    reassembly.forget(1, 1);
    addPiece(FIRST, MAX_MESSAGE_BYTES, 21);
    addPiece(FIRST, MAX_MESSAGE_BYTES, 2, Buffer.alloc(0));
    addPiece(FIRST, MAX_MESSAGE_BYTES, 22);
    addPiece(LAST, MAX_MESSAGE_BYTES, 3);
    addPiece(FIRST, MAX_MESSAGE_BYTES, 23);
    expect(errors).toMatchObject([cpgError('CS_ERR_MESSAGE_ERROR')]);
    expect(thrownBy(() => addPiece(CONTINUED, MAX_MESSAGE_BYTES, 4, piece.subarray(0, 1)))).toMatchObject({
      ...cpgError('CS_ERR_NO_MEMORY'),
      remedy: expect.stringContaining('maxReassemblyBytes') as string,
    });
  });

  test('that cannot be allocated is CS_ERR_NO_MEMORY', () => {
    const allocate = jest.spyOn(Buffer, 'allocUnsafeSlow').mockImplementation(() => {
      throw new RangeError('Array buffer allocation failed');
    });
    try {
      expect(thrownBy(() => addPiece(FIRST, MAX_MESSAGE_BYTES))).toMatchObject(cpgError('CS_ERR_NO_MEMORY'));
    } finally {
      allocate.mockRestore();
    }
  });
});

describe('two receivers', () => {
  const SENDERS = 3;
  /** What a sender does next: begins a message of so many fragments, goes on, gives up by a new one, or leaves. */
  const step = fc.record({
    sender: fc.nat(SENDERS - 1),
    kind: fc.constantFrom('begin', 'go on', 'go on', 'go on', 'leave'),
    pieces: fc.array(fc.string({ maxLength: 300 }), { minLength: 2, maxLength: 5 }),
  });

  /** The history as all receivers see it. */
  function history(steps: (typeof step extends fc.Arbitrary<infer T> ? T : never)[]): (Fragment | number)[] {
    const rest: Fragment[][] = Array.from({ length: SENDERS }, () => []);
    return steps.flatMap(({ sender, kind, pieces }): (Fragment | number)[] => {
      const length = Buffer.byteLength(pieces.join(''));
      if (kind === 'leave') {
        rest[sender] = [];
        return [sender];
      }
      if (kind === 'begin') {
        rest[sender] = pieces.map((text, index) =>
          fragment(
            index === 0 ? FIRST : index === pieces.length - 1 ? LAST : CONTINUED,
            text,
            length,
            1,
            sender,
          ),
        );
      }
      const next = rest[sender]!.shift();
      return next === undefined ? [] : [next];
    });
  }

  /** What a receiver delivers that has this much room, and joins before the given event. */
  function delivered(events: readonly (Fragment | number)[], from = 0): string[] {
    const own = new Reassembly(Infinity, (error) => {
      throw error;
    });
    return events.slice(from).flatMap((event, index) => {
      if (typeof event === 'number') {
        own.forget(1, event);
        return [];
      }
      const message = own.add(event);
      return message === undefined ? [] : [`${from + index} ${event.pid} ${text(message)}`];
    });
  }

  test('that joined at different times deliver the same messages of those that began after both had joined', async () => {
    await assertProperty(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(), (steps, seed) => {
        const events = history(steps);
        const from = events.length === 0 ? 0 : seed % events.length;
        const early = delivered(events);
        const late = delivered(events, from);
        expect(delivered(events)).toEqual(early);
        // Where the message delivered by this event began.
        const begin = (at: number): number => {
          const { pid } = events[at] as Fragment;
          return events.findLastIndex(
            (event, index) =>
              index <= at && typeof event !== 'number' && event.pid === pid && event.fragmentType === FIRST,
          );
        };
        const expected = early.filter((line) => {
          const at = parseInt(line, 10);
          return begin(at) >= from;
        });
        expect(late).toEqual(expected);
      }),
      { numRuns: 500 },
    );
  });
});
