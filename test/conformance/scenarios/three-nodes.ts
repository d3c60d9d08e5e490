/** What members see of other nodes: their coming and going, and one order of everything. */
import { DELIVER_INITIAL_TOTEM_CONF } from '../../../src/codec/requests';
import type { Actor, Stage } from '../stage';
import type { Scenario } from './scenario';

/** One member of each node in one group: n1, n2, n3 with the pids 101, 201, 301. */
async function oneEach(stage: Stage, group: string): Promise<Record<1 | 2 | 3, Actor>> {
  const actors = {
    1: await stage.enter('n1', 1),
    2: await stage.enter('n2', 2),
    3: await stage.enter('n3', 3),
  };
  await stage.step('n1 joins', () => actors[1].join(group, 101));
  await stage.step('n2 joins', () => actors[2].join(group, 201));
  await stage.step('n3 joins', () => actors[3].join(group, 301));
  return actors;
}

export const threeNodes: Scenario[] = [
  {
    name: 'members-of-three-nodes',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2, 3: n3 } = await oneEach(stage, 'g');
      const late = await stage.enter('late', 2);
      await stage.step('a second member of node 2, with a low pid', () => late.join('g', 7));
      await stage.step('everybody sends', async () => {
        await n1.mcast('from n1');
        await n1.mcast('again from n1');
      });
      await stage.step('n2 sends', () => n2.mcast('from n2'));
      await stage.step('n3 sends in fragments', async () => {
        await n3.fragment('FIRST', 'from ', 7);
        await n3.fragment('LAST', 'n3', 7);
      });
      await stage.step('questions', async () => {
        await n1.membership('g');
        await n3.localNodeId();
        await n3.iterate('ALL');
      });
      await stage.step('n2 leaves', () => n2.leave('g', 201));
      await stage.step('late dies', () => stage.kill(late));
      await stage.step('n2 hears of it, and goes', () => stage.kill(n2));
      await stage.step('n3 goes', () => stage.kill(n3));
    },
  },
  {
    name: 'the-same-pid-on-two-nodes',
    nodes: 3,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 2);
      await stage.step('a joins', () => a.join('g', 42));
      await stage.step('b joins', () => b.join('g', 42));
      await stage.step('a dies', () => stage.kill(a));
      const c = await stage.enter('c', 1);
      await stage.step('c takes its place', () => c.join('g', 42));
      await stage.step('b leaves', () => b.leave('g', 42));
    },
  },
  {
    name: 'partition-and-merge',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2, 3: n3 } = await oneEach(stage, 'g');
      await stage.step('before', () => n1.mcast('before'));
      await stage.step('1 | 2 3', () => stage.environment.partition([1], [2, 3]));
      await stage.step('each side talks', async () => {
        await n1.mcast('alone');
        await n2.mcast('together');
      });
      await stage.step('and asks', async () => {
        await n1.membership('g');
        await n3.membership('g');
        await n3.iterate('ONE_GROUP', 'g');
      });
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('after', () => n3.mcast('after'));
      await stage.step('1 2 | 3', () => stage.environment.partition([1, 2], [3]));
      await stage.step('heal again', () => stage.environment.heal());
      await stage.step('1 | 2 | 3', () => stage.environment.partition([1], [2], [3]));
      await stage.step('heal all', () => stage.environment.heal());
    },
  },
  {
    name: 'from-one-side-to-the-other',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2, 3: n3 } = await oneEach(stage, 'g');
      await stage.step('1 2 | 3', () => stage.environment.partition([1, 2], [3]));
      await stage.step('1 | 2 3', () => stage.environment.partition([1], [2, 3]));
      await stage.step('who is where', async () => {
        await n1.membership('g');
        await n2.membership('g');
        await n3.mcast('to 2 and 3');
      });
      await stage.step('heal', () => stage.environment.heal());
    },
  },
  {
    name: 'partition-with-several-groups-and-members',
    nodes: 3,
    run: async (stage) => {
      const groups = ['b', 'a', 'B', '\u00fc', 'aa'];
      for (const nodeId of [3, 1, 2]) {
        for (const [index, group] of groups.entries()) {
          const actor = await stage.enter(`n${nodeId} ${group}`, nodeId);
          await stage.step(`n${nodeId} joins ${group}`, () => actor.join(group, 100 * nodeId + index));
        }
        const second = await stage.enter(`n${nodeId} second in a`, nodeId);
        await stage.step(`n${nodeId} second joins a`, () => second.join('a', 100 * nodeId + 50));
      }
      await stage.step('1 3 | 2', () => stage.environment.partition([1, 3], [2]));
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('1 | 2 3', () => stage.environment.partition([1], [2, 3]));
      await stage.step('heal again', () => stage.environment.heal());
    },
  },
  {
    name: 'changes-while-apart',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2, 3: n3 } = await oneEach(stage, 'g');
      const leaver = await stage.enter('leaver', 2);
      await stage.step('leaver joins', () => leaver.join('g', 202));
      await stage.step('apart', () => stage.environment.partition([1], [2, 3]));
      await stage.step('n2 dies', () => stage.kill(n2));
      await stage.step('leaver leaves', () => leaver.leave('g', 202));
      const fresh = await stage.enter('fresh', 3);
      await stage.step('fresh joins', () => fresh.join('g', 302));
      const here = await stage.enter('here', 1);
      await stage.step('here joins', () => here.join('g', 102));
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('questions', async () => {
        await n1.membership('g');
        await n3.membership('g');
      });
    },
  },
  {
    name: 'crash-and-restart',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2 } = await oneEach(stage, 'g');
      await stage.step('node 3 crashes', () => stage.environment.crash(3));
      await stage.step('life goes on', () => n1.mcast('two of us'));
      await stage.step('node 3 returns, empty', () => stage.environment.restart(3));
      const again = await stage.enter('n3 again', 3);
      await stage.step('with a new pid', () => again.join('g', 302));
      await stage.step('and the old one', async () => {
        const old = await stage.enter('n3 old pid', 3);
        await old.join('g', 301);
      });
      await stage.step('the node with the lowest id crashes', () => stage.environment.crash(1));
      await stage.step('the rest', () => n2.membership('g'));
      await stage.step('it returns', () => stage.environment.restart(1));
    },
  },
  {
    name: 'crash-and-restart-while-apart',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2 } = await oneEach(stage, 'g');
      await stage.step('apart', () => stage.environment.partition([1], [2, 3]));
      await stage.step('node 3 crashes', () => stage.environment.crash(3));
      await stage.step('node 3 returns, empty', () => stage.environment.restart(3));
      const again = await stage.enter('n3 again', 3);
      await stage.step('with a new pid', () => again.join('g', 302));
      const old = await stage.enter('n3 old pid', 3);
      await stage.step('and the old one', () => old.join('g', 301));
      await stage.step('who is where', async () => {
        await n1.membership('g');
        await n2.membership('g');
      });
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('all of them', () => n1.membership('g'));
    },
  },
  {
    name: 'orderly-shutdown',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1 } = await oneEach(stage, 'g');
      const left = await stage.enter('left', 3);
      await stage.step('left joins', () => left.join('g', 302));
      await stage.step('left leaves', () => left.leave('g', 302));
      await stage.step('node 3 shuts down', () => stage.environment.shutDown(3));
      await stage.step('who is left', () => n1.membership('g'));
      await stage.step('it returns', () => stage.environment.restart(3));
    },
  },
  {
    name: 'rings-and-who-hears-of-them',
    nodes: 3,
    run: async (stage) => {
      const unjoined = await stage.enter('unjoined', 1);
      const asks = await stage.enter('asks', 1);
      const finalized = await stage.enter('finalized', 1);
      await stage.step('asks joins', () => asks.join('g', 101, DELIVER_INITIAL_TOTEM_CONF));
      await stage.step('finalize', () => finalized.finalize());
      await stage.step('apart', () => stage.environment.partition([1], [2, 3]));
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('one joins late', () => unjoined.join('h', 102, DELIVER_INITIAL_TOTEM_CONF));
    },
  },
  {
    name: 'fragments-and-the-network',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1, 2: n2 } = await oneEach(stage, 'g');
      await stage.step('two senders on two nodes', async () => {
        await n1.fragment('FIRST', 'n1-', 6);
        await n1.fragment('LAST', 'end', 6);
      });
      await stage.step('begun', async () => {
        await n1.fragment('FIRST', 'lost', 8);
      });
      await stage.step('cut', () => stage.environment.partition([1], [2, 3]));
      await stage.step('interrupted', async () => {
        await n1.fragment('LAST', 'ever', 8);
        await n2.fragment('FIRST', 'not ', 8);
        await n2.fragment('LAST', 'lost', 8);
      });
      await stage.step('begun alone', () => n1.fragment('FIRST', 'also', 8));
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('interrupted by the merge', () => n1.fragment('LAST', 'lost', 8));
    },
  },
  {
    name: 'iteration-over-a-partition',
    nodes: 3,
    run: async (stage) => {
      const { 1: n1 } = await oneEach(stage, 'g');
      let handle = 0n;
      await stage.step('begin', async () => {
        handle = await n1.beginIteration('ONE_GROUP', 'g');
        await n1.nextRow(handle);
      });
      await stage.step('cut', () => stage.environment.partition([1], [2, 3]));
      await stage.step('the snapshot stays', async () => {
        await n1.nextRow(handle);
        await n1.nextRow(handle);
        await n1.nextRow(handle);
        await n1.endIteration(handle);
        await n1.iterate('ONE_GROUP', 'g');
      });
      await stage.step('heal', () => stage.environment.heal());
    },
  },
  {
    name: 'names-that-differ-behind-a-zero',
    nodes: 3,
    run: async (stage) => {
      const names = { one: 'z\0one', two: 'z\0two' };
      for (const [index, [name, group]] of Object.entries(names).entries()) {
        for (const nodeId of [1, 2]) {
          const actor = await stage.enter(`${name} on ${nodeId}`, nodeId);
          await stage.step(`${name} joins on ${nodeId}`, () => actor.join(group, 100 * nodeId + index));
        }
      }
      await stage.step('apart', () => stage.environment.partition([1], [2, 3]));
      await stage.step('heal', () => stage.environment.heal());
    },
  },
  {
    name: 'a-ghost-and-the-network',
    nodes: 3,
    leavesGhosts: true,
    run: async (stage) => {
      const { 1: n1, 2: n2, 3: n3 } = await oneEach(stage, 'g');
      await stage.step('n2 becomes a ghost', () => n2.leave('nothing', 201));
      await stage.step('and dies', () => stage.kill(n2));
      await stage.step('all see it', async () => {
        await n1.membership('g');
        await n3.membership('g');
      });
      await stage.step('apart', () => stage.environment.partition([1, 3], [2]));
      await stage.step('heal', () => stage.environment.heal());
      await stage.step('its node crashes', () => stage.environment.crash(2));
      await stage.step('its node returns', () => stage.environment.restart(2));
    },
  },
];
