/** The worked example of docs/testing-your-cluster-code.md: nodes crash and networks break, maps stay equal. */
import { ReplicatedMap } from '../../examples/replicated-map/replicated-map';
import { SimulatedCluster } from '../../src/server';
import { Random } from '../../src/server/random';

const GROUP = 'stock';

let cluster: SimulatedCluster;

beforeEach(async () => {
  cluster = await SimulatedCluster.start({ nodes: 3 });
});

afterEach(() => cluster.stop());

async function mapOn(nodeId: number): Promise<ReplicatedMap> {
  return ReplicatedMap.join(await cluster.node(nodeId).connect(), GROUP, { size: 3 });
}

/** Starts all three at a time: a map alone has no majority, but it is ready. */
const mapOnEach = (): Promise<ReplicatedMap[]> => Promise.all([1, 2, 3].map(mapOn));

const isEqualTo =
  (other: ReplicatedMap) =>
  (map: ReplicatedMap): boolean =>
    JSON.stringify(map.entries) === JSON.stringify(other.entries);

test('a change on one is a change on all', async () => {
  const [one, two, three] = await mapOnEach();
  await one!.until(({ quorate }) => quorate);
  await one!.set('apples', 3);
  await two!.until((map) => map.get('apples') === 3);
  await two!.set('apples', 4);
  await three!.until((map) => map.get('apples') === 4);
  await three!.delete('apples');
  await one!.until((map) => map.get('apples') === undefined);
});

test('a late member gets what was there, also when all others write meanwhile', async () => {
  const one = await mapOn(1);
  const two = await mapOn(2);
  await two.until(({ quorate }) => quorate);
  for (let number = 0; number < 100; number++) await one.set(`old ${number}`, number);
  const writing = new AbortController();
  const written = (async () => {
    for (let number = 0; !writing.signal.aborted; number++) await two.set('counter', number);
  })();
  const three = await mapOn(3);
  expect(three.get('old 99')).toBe(99);
  writing.abort();
  await written;
  await one.set('end', true);
  await three.until((map) => map.get('end') === true);
  expect(three.entries).toEqual(one.entries);
});

test('the one that has the map dies while it sends it', async () => {
  const one = await mapOn(1);
  const two = await mapOn(2);
  await two.until(({ quorate }) => quorate);
  await one.set('key', 'value');
  // The mark and the map wait for their turn, and are lost with the node.
  cluster.node(1).inject({ delayMs: 50 });
  const joining = mapOn(3);
  await two.until(() => cluster.node(3).clients === 1);
  setTimeout(() => cluster.node(1).crash(), 20);
  const three = await joining;
  expect(three.get('key')).toBe('value');
});

test('the larger side of a broken network goes on, the smaller one follows when it heals', async () => {
  const [one, two, three] = await mapOnEach();
  await three!.until(({ quorate }) => quorate);
  await one!.until(({ quorate }) => quorate);
  await one!.set('written by', 'all');
  await two!.until((map) => map.get('written by') === 'all');
  cluster.partition([1], [2, 3]);
  await one!.until(({ quorate }) => !quorate);
  await expect(one!.set('written by', 'the smaller side')).rejects.toThrow('majority');
  await two!.set('written by', 'the larger side');
  expect(one!.get('written by')).toBe('all');
  cluster.heal();
  await one!.until((map) => map.get('written by') === 'the larger side');
  await one!.until(({ quorate }) => quorate);
  await one!.set('written by', 'all again');
  await three!.until((map) => map.get('written by') === 'all again');
});

test('a change that is overtaken by the loss of the majority is refused', async () => {
  const [one, two] = await mapOnEach();
  await one!.until(({ quorate }) => quorate);
  cluster.node(1).inject({ delayMs: 50 });
  const refused = one!.set('key', 'value');
  const noticed = expect(refused).rejects.toThrow('the majority was lost');
  await new Promise((resolve) => setTimeout(resolve, 10));
  cluster.partition([1], [2, 3]);
  await noticed;
  expect(two!.get('key')).toBeUndefined();
});

test('a node restarts, and its map is whole again', async () => {
  const [one, two] = await mapOnEach();
  await one!.until(({ quorate }) => quorate);
  for (let number = 0; number < 20; number++) await one!.set(`key ${number}`, number);
  cluster.node(3).crash();
  await two!.until((map) => isEqualTo(one!)(map));
  await cluster.node(3).restart();
  const again = await mapOn(3);
  expect(again.entries).toEqual(one!.entries);
});

test.each(Array.from({ length: 50 }, (_, index) => index + 1))(
  'whatever happens, the maps are equal in the end (seed %i)',
  async (seed) => {
    const random = new Random(seed);
    const maps = new Map<number, ReplicatedMap>();
    for (const nodeId of [1, 2, 3]) maps.set(nodeId, await mapOn(nodeId));
    const accepted = new Map<string, number>();
    for (let round = 0; round < 40; round++) {
      const map = maps.get(1 + random.below(3))!;
      const key = `key ${random.below(5)}`;
      await map.set(key, round).then(
        () => accepted.set(key, round),
        () => undefined,
      );
      if (random.next() < 0.2) cluster.partition([1 + random.below(3)], []);
      if (random.next() < 0.1) cluster.partition([1, 2], [3]);
      if (random.next() < 0.3) cluster.heal();
      if (random.next() < 0.05) {
        cluster.heal();
        const nodeId = 1 + random.below(3);
        cluster.node(nodeId).crash();
        await cluster.node(nodeId).restart();
        maps.set(nodeId, await mapOn(nodeId));
      }
    }
    cluster.heal();
    const [one, two, three] = [maps.get(1)!, maps.get(2)!, maps.get(3)!];
    await one.until(({ quorate }) => quorate);
    await one.set('end', true);
    for (const map of [two, three]) await map.until((other) => other.ready && other.get('end') === true);
    expect(two.entries).toEqual(one.entries);
    expect(three.entries).toEqual(one.entries);
    for (const [key, value] of accepted) expect(one.get(key)).toBe(value);
  },
);
