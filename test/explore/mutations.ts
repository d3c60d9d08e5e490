/**
 * Each rule of the rings broken on purpose: the explorer must find every one of them.
 *
 * Omitted, because nothing breaks: writing the chunks, write_pt and the semaphore of a post in another order before the
 * bytes are sent (libqb does not read before it is woken; our embedded server does), and reclaiming events before their
 * bytes have come (consumed chunks have been posted, which is all that libqb's side requires).
 */
import { Magic, RingHeader as Header, WORD_BYTES } from '../../src/ring/layout';
import type { RingStorage } from '../../src/ring/storage';
import type { Staging, Submitter } from '../../src/transport/submitter';
import type { Configuration, Mutation } from './systems';

const REQUEST: Configuration = { ring: 'request', words: 9, at: 7, lengths: [5, 1, 4] };
const EVENT: Configuration = { ring: 'event', words: 9, at: 7, lengths: [5, 1, 4], socket: 1, ahead: true };
const TORN: Configuration = { ring: 'event', words: 9, at: 4, lengths: [0, 4, 5], socket: 1, torn: true };
const RESPONSE: Configuration = { ring: 'response', words: 9, at: 7, lengths: [5, 1, 4] };

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'post-at-any-semaphore',
    breaks: 'post only at semaphore 0',
    on: REQUEST,
    storage: (storage) => reading(storage, Header.semaphore, () => 0),
  },
  {
    name: 'post-under-flow-control',
    breaks: 'do not post while the daemon asks us not to',
    on: { ...REQUEST, lengths: [5, 1], holds: 1 },
    storage: (storage) => reading(storage, Header.userData, () => 0),
  },
  {
    name: 'semaphore-before-write-pointer',
    breaks: 'post: write_pt, then the semaphore',
    on: REQUEST,
    storage: (storage) => swapped(storage, Header.writePointer, Header.semaphore),
  },
  {
    name: 'byte-before-data',
    breaks: 'post: the chunks are written before the bytes are sent',
    on: REQUEST,
    request: (system) => {
      const { requests, ring, wakeUp } = system;
      const post = requests.post.bind(requests);
      const write = ring.write.bind(ring);
      let held: (() => void)[] = [];
      requests.post = () => {
        held = [];
        return post();
      };
      ring.write = (pointer, bytes, length) => {
        const copy = Buffer.from(bytes.subarray(0, length));
        held.push(() => write(pointer, copy));
      };
      system.wakeUp = (count) => {
        wakeUp(count);
        for (const writeHeld of held) writeHeld();
      };
    },
  },
  {
    name: 'byte-before-chunk',
    breaks: 'post: the semaphore, then the bytes',
    on: REQUEST,
    request: (system) => {
      const { requests, wakeUp } = system;
      const post = requests.post.bind(requests);
      requests.post = () => {
        wakeUp(requests.stagedChunks);
        return post();
      };
      system.wakeUp = () => undefined;
    },
  },
  {
    name: 'one-byte-a-batch',
    breaks: 'post: a byte for each chunk',
    on: REQUEST,
    request: (system) => {
      const { wakeUp } = system;
      system.wakeUp = () => wakeUp(1);
    },
  },
  {
    name: 'a-byte-too-many',
    breaks: 'post: no byte without a chunk',
    on: REQUEST,
    request: (system) => {
      const { wakeUp } = system;
      system.wakeUp = (count) => wakeUp(count + 1);
    },
  },
  {
    name: 'fill-to-the-last-word',
    breaks: 'a writer leaves a margin, so that equal pointers mean empty',
    on: { ...REQUEST, words: 10, lengths: [5, 1, 4, 1] },
    request: ({ ring }) => {
      const distance = ring.distance.bind(ring);
      ring.distance = (from, to) => distance(from, to) + 2;
    },
  },
  {
    name: 'proof-too-early',
    breaks: 'markConsumed() only when all that was posted has come back',
    on: { ...REQUEST, lengths: [5, 1], words: 12, proof: true },
    request: (system) => {
      system.allCameBack = () => true;
    },
  },
  {
    name: 'proof-outlives-posting',
    breaks: 'what is known of the daemon ends with the next posting',
    on: { ...REQUEST, lengths: [1, 1, 1], words: 12, proof: true },
    request: (system) => {
      const { wakeUp, submitter } = system;
      system.wakeUp = (count) => {
        wakeUp(count);
        submitter.markConsumed();
      };
    },
  },
  {
    name: 'refused-and-forgotten',
    breaks: 'after a frame was refused the ring is polled for room',
    on: REQUEST,
    request: ({ submitter }) => afterStaging(submitter, 'full', () => (submitter.state.wantsRoom = false)),
  },
  {
    name: 'staged-and-forgotten',
    breaks: 'while frames are staged the ring is polled',
    on: { ...REQUEST, words: 12 },
    request: ({ submitter }) => afterStaging(submitter, 'staged', () => (submitter.state.phase = 'ready')),
  },
  {
    name: 'event-reclaim-order',
    breaks: 'reclaim: the semaphore to 0, then read_pt',
    on: EVENT,
    storage: (storage) => swapped(storage, Header.semaphore, Header.readPointer),
  },
  {
    name: 'event-no-reset',
    breaks: 'reclaim: the semaphore goes to 0',
    on: EVENT,
    storage: semaphoreLeftAlone,
  },
  {
    name: 'event-by-write-pointer',
    breaks: 'a chunk is there by its byte or by the semaphore, not by write_pt',
    on: EVENT,
    event: ({ events, ring }) => {
      events.peek = () => {
        ring.readPointers();
        events.state.seen = ring.writePointer === events.state.pointer ? 0 : 1;
        return events.available > 0;
      };
    },
  },
  {
    name: 'event-peek-counts-consumed',
    breaks: 'peek(): what was consumed since the reset does not count',
    on: { ...EVENT, lengths: [5, 1], largestFrame: 4, words: 14 },
    event: ({ events, ring }) => {
      events.peek = () => {
        events.state.seen = ring.semaphore();
        return events.available > 0;
      };
    },
  },
  {
    name: 'event-semaphore-read-alone',
    breaks: 'the semaphore is read with its waiters, eight bytes at once',
    on: { ...TORN, at: 7, lengths: [4, 0, 5], ahead: true },
    storage: (storage) =>
      changed(storage, {
        readHeader: (offset, words, count) =>
          storage.readHeader(offset, words, offset === Header.semaphore ? 1 : count),
      }),
  },
  {
    name: 'event-read-pointer-written-alone',
    breaks: 'reclaim: read_pt is written with word_size, eight bytes at once',
    on: TORN,
    storage: (storage) =>
      changed(storage, {
        writeHeader: (offset, words, count) =>
          storage.writeHeader(offset, words, offset === Header.readPointer ? 1 : count),
      }),
  },
  {
    name: 'response-by-magic',
    breaks: 'a reply is there by the semaphore, not by its magic',
    on: RESPONSE,
    storage: (storage, memory) =>
      reading(storage, Header.semaphore, () => {
        const magic = Buffer.alloc(WORD_BYTES);
        const index = (memory.state.readPointer + 1) % memory.state.data.length;
        memory.read(magic, 0, WORD_BYTES, index * WORD_BYTES);
        return magic.readUInt32LE() === Magic.COMMITTED ? 1 : 0;
      }),
  },
  {
    name: 'response-by-write-pointer',
    breaks: 'a reply is there by the semaphore, not by write_pt',
    on: RESPONSE,
    storage: (storage, memory) =>
      reading(storage, Header.semaphore, () => {
        const pointer = new Uint32Array(1);
        memory.readHeader(Header.writePointer, pointer, 1);
        return pointer[0] === memory.state.readPointer ? 0 : 1;
      }),
  },
  {
    name: 'response-order',
    breaks: 'take: the semaphore to 0, then read_pt',
    on: RESPONSE,
    storage: (storage) => swapped(storage, Header.semaphore, Header.readPointer),
  },
  {
    name: 'response-no-reset',
    breaks: 'take: the semaphore goes to 0',
    on: RESPONSE,
    storage: semaphoreLeftAlone,
  },
];

/** The same storage with some methods of its own. */
function changed(storage: RingStorage, changes: Partial<RingStorage>): RingStorage {
  return {
    readHeader: (...args) => storage.readHeader(...args),
    writeHeader: (...args) => storage.writeHeader(...args),
    read: (...args) => storage.read(...args),
    write: (...args) => storage.write(...args),
    writeParts: (...args) => storage.writeParts(...args),
    close: () => storage.close(),
    ...changes,
  };
}

/** One word of the header reads as `value` says. */
function reading(storage: RingStorage, at: number, value: () => number): RingStorage {
  return changed(storage, {
    readHeader: (offset, words, count) => {
      storage.readHeader(offset, words, count);
      const index = (at - offset) / WORD_BYTES;
      if (index >= 0 && index < count) words[index] = value();
    },
  });
}

/** The word at `early` is written right after the one at `late`. */
function swapped(storage: RingStorage, early: number, late: number): RingStorage {
  let held = 0;
  return changed(storage, {
    writeHeader: (offset, words, count) => {
      if (offset === early) {
        held = words[0]!;
        return;
      }
      storage.writeHeader(offset, words, count);
      if (offset === late) storage.writeHeader(early, Uint32Array.of(held), 1);
    },
  });
}

function semaphoreLeftAlone(storage: RingStorage): RingStorage {
  return changed(storage, {
    writeHeader: (offset, words, count) => {
      if (offset !== Header.semaphore) storage.writeHeader(offset, words, count);
    },
  });
}

function afterStaging(submitter: Submitter, staging: Staging, work: () => void): void {
  const stage = submitter.stage.bind(submitter);
  const stagePrepared = submitter.stagePrepared.bind(submitter);
  const act = (result: Staging): Staging => {
    if (result === staging) work();
    return result;
  };
  submitter.stage = (...args) => act(stage(...args));
  submitter.stagePrepared = (...args) => act(stagePrepared(...args));
}
