/** We wake a daemon that holds events back when there is room again, without delaying anything else. */
import { once } from 'node:events';
import type { ConnectOptions } from '../../src';
import { EventReader } from '../../src/ring/event-reader';
import { ClientHarness, turns, type Pair } from '../support/fake-client';
import type { FakeConnection } from '../support/fake-daemon';
import { RingPair } from '../ring/ring-fixture';

const harness = new ClientHarness();

const WORDS = 4096;
const BYTES = 1000;

/** The daemon retries held-back events only when woken. */
async function sleepy(options: ConnectOptions = {}): Promise<Pair> {
  const pair = await harness.joined({ dispatch: 'manual', ...options }, { words: WORDS });
  pair.connection.sleepy = true;
  return pair;
}

/** Fills the ring, and leaves `waiting` messages in the daemon's memory. */
function fill({ connection }: Pair, waiting: number): number {
  let sent = 0;
  const deliver = (): void => connection.deliver(Buffer.alloc(BYTES, sent++));
  while (connection.queuedEvents === 0) deliver();
  while (connection.queuedEvents < waiting) deliver();
  return sent;
}

/** Requests since the client joined. */
const asked = ({ requests }: FakeConnection): string[] => requests.slice(2).map(({ type }) => type);

/** Messages by their fill number, in delivery order. */
function numbersOf({ client }: Pair): number[] {
  const seen: number[] = [];
  client.on('deliver', ({ message }) => seen.push(message[0]!));
  return seen;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index % 256);

/** Takes everything from the ring. */
async function takeAll(pair: Pair, seen: number[]): Promise<void> {
  const inRing = seen.length + ringful(pair);
  while (seen.length < inRing) await pair.client.dispatch('one');
}

const ringful = ({ connection }: Pair): number => connection.event.semaphore;

describe('all held-back events arrive in order, with one request for each full ring', () => {
  const MODES: [string, ConnectOptions][] = [
    ['listeners', { dispatch: 'auto' }],
    ['listeners, lent', { dispatch: 'auto', lend: true }],
    ['listeners, busy polling', { dispatch: 'auto', busyPollUs: 1000 }],
    ['manual dispatch', { dispatch: 'manual' }],
    ['a loop', { dispatch: 'auto' }],
  ];
  test.each(MODES)('%s', async (name, options) => {
    const pair = await sleepy(options);
    const { client, connection } = pair;
    let seen: number[] = [];
    if (name === 'a loop') {
      void (async () => {
        for await (const event of client) if (event.type === 'deliver') seen.push(event.message[0]!);
      })();
    } else {
      seen = numbersOf(pair);
    }
    const sent = fill(pair, 100);
    // A test that ran out of time closes the client.
    while (seen.length < sent && client.state === 'joined') {
      if (options.dispatch === 'manual') await client.dispatch('one');
      else await turns(1);
    }
    expect(seen).toEqual(upTo(sent));
    const nudges = asked(connection).length;
    expect(asked(connection)).toEqual(new Array(nudges).fill('localGet'));
    const ringfuls = Math.ceil(sent / Math.floor((WORDS * 4) / (BYTES + 200)));
    expect(nudges).toBeGreaterThan(0);
    // What is taken in pieces, as its bytes come, may be given back in pieces too.
    expect(nudges).toBeLessThan(8 * ringfuls);
  });
});

test('a client that keeps up sends nothing', async () => {
  const pair = await sleepy();
  const seen = numbersOf(pair);
  for (let round = 1; round <= 50; round++) {
    for (let index = 0; index < 8; index++) pair.connection.deliver(Buffer.alloc(BYTES));
    while (seen.length < 8 * round) await pair.client.dispatch('one');
    await turns(2);
  }
  await turns();
  expect(asked(pair.connection)).toEqual([]);
});

describe('no nudge', () => {
  test('if the user sends a request in the same turn', async () => {
    const pair = await sleepy();
    const seen = numbersOf(pair);
    const sent = fill(pair, 2);
    await takeAll(pair, seen);
    await pair.client.leave();
    while (seen.length < sent) await pair.client.dispatch('one');
    await turns();
    expect(asked(pair.connection)).toEqual(['leave']);
  });

  test('if one was enough, because nothing was held back', async () => {
    const pair = await sleepy();
    const seen = numbersOf(pair);
    while (pair.connection.event.free > 2 * BYTES) pair.connection.deliver(Buffer.alloc(BYTES));
    await takeAll(pair, seen);
    await pair.client.leave();
    await turns();
    expect(asked(pair.connection)).toEqual(['leave']);
  });

  test('between consecutive requests', async () => {
    const pair = await sleepy();
    const { client, connection } = pair;
    const seen = numbersOf(pair);
    connection.script('leave', 'silence');
    const both = client.leave().then(() => client.groups().next());
    await connection.untilTaken('leave');
    const sent = fill(pair, 2);
    await takeAll(pair, seen);
    await turns();
    connection.respond({ type: 'leave', error: 1 });
    await both;
    while (seen.length < sent) await client.dispatch('one');
    await turns();
    expect(asked(connection)).toEqual(['leave', 'iterationInitialize', 'iterationNext', 'iterationFinalize']);
  });

  test('if a message is sent', async () => {
    const pair = await sleepy();
    pair.connection.echo = false;
    const seen = numbersOf(pair);
    const sent = fill(pair, 2);
    await takeAll(pair, seen);
    await pair.client.mcast('m');
    while (seen.length < sent) await pair.client.dispatch('one');
    await turns();
    expect(asked(pair.connection)).toEqual(['mcast']);
  });

  test('between the fragments of a message', async () => {
    const pair = await harness.joined({ dispatch: 'manual' });
    const { connection } = pair;
    connection.echo = false;
    connection.sleepy = true;
    const seen = numbersOf(pair);
    connection.script('partialMcast', 'silence');
    const message = pair.client.mcast(Buffer.alloc(2 * 1024 * 1024));
    await connection.untilTaken('partialMcast');
    const sent = fill(pair, 2);
    await takeAll(pair, seen);
    await turns();
    connection.respond({ type: 'partialMcast', error: 1 });
    await message;
    while (seen.length < sent) await pair.client.dispatch('one');
    await turns();
    expect(asked(connection)).toEqual(['partialMcast', 'partialMcast', 'partialMcast']);
  });
});

test('a nudge follows the reply to a request that was read before there was room', async () => {
  const pair = await sleepy();
  const { client, connection } = pair;
  const seen = numbersOf(pair);
  connection.script('leave', 'silence');
  const leaving = client.leave();
  await connection.untilTaken('leave');
  const sent = fill(pair, 2);
  await takeAll(pair, seen);
  await turns();
  expect(asked(connection)).toEqual(['leave']);
  connection.respond({ type: 'leave', error: 1 });
  await leaving;
  while (seen.length < sent) await client.dispatch('one');
  expect(asked(connection)).toEqual(['leave', 'localGet']);
});

describe('while flow control holds requests back', () => {
  async function held(): Promise<{ pair: Pair; seen: number[]; sent: number }> {
    const pair = await sleepy();
    pair.connection.echo = false;
    const seen = numbersOf(pair);
    const sent = fill(pair, 2);
    pair.connection.request.flowControl = 1;
    await takeAll(pair, seen);
    await turns();
    expect(asked(pair.connection)).toEqual([]);
    return { pair, seen, sent };
  }

  test('it waits, and is sent when that ends', async () => {
    const { pair, seen, sent } = await held();
    pair.connection.request.flowControl = 0;
    while (seen.length < sent) await pair.client.dispatch('one');
    expect(asked(pair.connection)).toEqual(['localGet']);
  });

  test("the user's message is sent instead", async () => {
    const { pair, seen, sent } = await held();
    const { client, connection } = pair;
    expect(client.tryMcast('refused')).toBe(false);
    const drained = once(client, 'drain');
    const all = Promise.all([client.mcast('a'), client.leave()]);
    await turns();
    connection.request.flowControl = 0;
    await all;
    await drained;
    while (seen.length < sent) await client.dispatch('one');
    await turns();
    expect(asked(connection)).toEqual(['mcast', 'leave']);
  });

  test('it is dropped if the daemon has retried meanwhile', async () => {
    const { pair, seen, sent } = await held();
    pair.connection.wakeUp();
    while (seen.length < sent) await pair.client.dispatch('one');
    pair.connection.request.flowControl = 0;
    await turns();
    await pair.client.localNodeId();
    expect(asked(pair.connection)).toEqual(['localGet']);
  });
});

describe('a daemon that does not answer it', () => {
  test('has one request to answer, still gets messages, and is no error', async () => {
    const pair = await sleepy();
    const { client, connection } = pair;
    const errors: unknown[] = [];
    client.on('error', (error) => errors.push(error));
    connection.echo = false;
    connection.script('localGet', 'silence');
    const seen = numbersOf(pair);
    fill(pair, 40);
    for (let round = 0; round < 3; round++) {
      await takeAll(pair, seen);
      await turns();
    }
    await client.mcast('m');
    await connection.untilTaken('mcast');
    expect(asked(connection)).toEqual(['localGet', 'mcast']);
    connection.respond({ type: 'localGet', error: 6 });
    await client.close();
    expect(errors).toEqual([]);
  });
});

describe('the ring was crowded', () => {
  const CAPACITY = WORDS * 4;
  /** Puts frames of these lengths, takes all of them, and gives their place back at once. */
  function pass(pair: RingPair, ring: EventReader, ...lengths: number[]): boolean {
    for (const length of lengths) expect(pair.theirs.put(Buffer.alloc(length))).toBe(true);
    ring.credit(lengths.length);
    while (ring.available > 0) ring.consume(Infinity, () => true);
    ring.reclaim();
    return ring.wasCrowded;
  }
  let pair: RingPair;
  let ring: EventReader;
  beforeEach(() => {
    pair = new RingPair('event', WORDS);
    ring = new EventReader(pair.ours);
  });
  afterEach(() => pair.close());

  const many = (bytes: number): number[] => new Array<number>(Math.floor(bytes / 108)).fill(100);

  test.each([
    ['half full', CAPACITY / 2, false],
    ['three quarters full', (CAPACITY * 3) / 4, false],
    ['nearly full', CAPACITY - 200, true],
  ])('%s: of small events', (_, bytes, crowded) => {
    expect(pass(pair, ring, ...many(bytes))).toBe(crowded);
  });

  test('if another large event had no room, until large events are long past', () => {
    expect(pass(pair, ring, 6000)).toBe(false);
    expect(pass(pair, ring, ...many(6000))).toBe(false);
    expect(pass(pair, ring, 6000, ...many(6000))).toBe(true);
    ring.noteWakeUp();
    for (let round = 0; round < 20; round++) pass(pair, ring, ...many(6000));
    ring.noteWakeUp();
    expect(pass(pair, ring, ...many(12_000))).toBe(false);
  });

  test('the daemon holds nothing back once it was woken or has used the space', () => {
    expect(pass(pair, ring, ...many(CAPACITY - 200))).toBe(true);
    expect(ring.holdsBack()).toBe(true);
    ring.noteWakeUp();
    expect(ring.holdsBack()).toBe(false);
    expect(pass(pair, ring, ...many(CAPACITY - 200))).toBe(true);
    pair.theirs.put(Buffer.alloc(10));
    expect(ring.holdsBack()).toBe(false);
    expect(ring.wasCrowded).toBe(false);
  });
});
