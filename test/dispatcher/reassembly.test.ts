/** Fragments put together: per sender, bounded per message and in all. */
import fc from 'fast-check';
import { MAX_MESSAGE_BYTES, type CpgWireEvent } from '../../src/codec';
import { MAX_REASSEMBLY_BYTES, Reassembly } from '../../src/dispatcher/reassembly';
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
beforeEach(() => {
  reassembly = new Reassembly();
});

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
        const own = new Reassembly();
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

test('the end of a message whose beginning we did not get is passed over', () => {
  expect(add(CONTINUED, 'de', 8)).toBeUndefined();
  expect(add(LAST, 'fgh', 8)).toBeUndefined();
  add(FIRST, 'a', 2);
  expect(add(LAST, 'b', 2)).toBe('ab');
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

describe('fragments that do not fit are CS_ERR_MESSAGE_ERROR, and the message is dropped', () => {
  test.each([
    ['longer than announced', () => add(CONTINUED, 'abcdef', 8)],
    ['longer than announced at the end', () => add(LAST, 'abcdef', 8)],
    ['shorter than announced at the end', () => add(LAST, 'abcd', 8)],
    ['of another whole', () => add(CONTINUED, 'd', 9)],
  ])('%s', (_, bad) => {
    add(FIRST, 'abc', 8);
    expect(thrownBy(bad)).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(add(LAST, 'defgh', 8)).toBeUndefined();
    add(FIRST, 'x', 2);
    expect(add(LAST, 'y', 2)).toBe('xy');
  });

  test('a first one longer than its whole', () => {
    expect(thrownBy(() => add(FIRST, 'abc', 2))).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
  });
});

describe('bounds', () => {
  const first = (messageLength: number, pid: number): string | undefined =>
    add(FIRST, 'x', messageLength, 1, pid);

  test('a message over 64 MiB is CS_ERR_TOO_BIG before memory is taken for it', () => {
    const allocate = jest.spyOn(Buffer, 'allocUnsafeSlow');
    try {
      for (const length of [MAX_MESSAGE_BYTES + 1, 0xffffffff]) {
        expect(thrownBy(() => first(length, 1))).toMatchObject(cpgError('CS_ERR_TOO_BIG'));
      }
      expect(allocate).not.toHaveBeenCalled();
    } finally {
      allocate.mockRestore();
    }
    expect(first(MAX_MESSAGE_BYTES, 1)).toBeUndefined();
  });

  test('all senders together: what is over it is refused, the others go on', () => {
    const senders = MAX_REASSEMBLY_BYTES / MAX_MESSAGE_BYTES;
    for (let pid = 0; pid < senders; pid++) first(MAX_MESSAGE_BYTES, pid);
    expect(thrownBy(() => first(1, 99))).toMatchObject(cpgError('CS_ERR_TOO_BIG'));
    // The end of the refused one is passed over.
    expect(add(LAST, '', 1, 1, 99)).toBeUndefined();
    // Room comes back by a leave, by a new beginning, and by an error.
    reassembly.forget(1, 0);
    expect(first(1, 99)).toBeUndefined();
    expect(thrownBy(() => first(MAX_MESSAGE_BYTES, 100))).toMatchObject(cpgError('CS_ERR_TOO_BIG'));
    first(10, 1);
    expect(first(MAX_MESSAGE_BYTES - 11, 100)).toBeUndefined();
    expect(thrownBy(() => add(LAST, 'x', 10, 1, 1))).toMatchObject(cpgError('CS_ERR_MESSAGE_ERROR'));
    expect(first(MAX_MESSAGE_BYTES - 1, 1)).toBeUndefined();
  });
});
