/** What a client can ask of one node, in every state. */
import { DELIVER_INITIAL_TOTEM_CONF, Guarantee } from '../../../src/codec/requests';
import { requestHeader } from '../../../src/codec/header';
import { overlongName } from '../stage';
import type { Scenario } from './scenario';

const KIB = 1024;

export const oneNode: Scenario[] = [
  {
    name: 'every-request-in-every-state',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      await stage.step('not joined', async () => {
        await a.localNodeId();
        await a.leave('g', 101);
        await a.mcast('dropped');
        await a.fragment('FIRST', 'one', 6);
        await a.fragment('LAST', 'two', 6);
        await a.membership('g');
        await a.iterate('NAME_ONLY');
        await a.iterate('ONE_GROUP', 'g');
      });
      await stage.step('join', () => a.join('g', 101));
      await stage.step('joined', async () => {
        await a.join('g', 101);
        await a.join('g', 102);
        await a.join('h', 101);
        await a.mcast('one');
        await a.membership('g');
        await a.fragment('FIRST', 'first', 10);
        await a.fragment('LAST', 'last.', 10);
        await a.iterate('ALL');
      });
      await stage.step('leave', () => a.leave('g', 101));
      await stage.step('left', async () => {
        await a.leave('g', 101);
        await a.join('g', 101);
        await a.join('h', 101);
        await a.join('h', 102);
        await a.mcast('dropped');
        await a.fragment('FIRST', 'one', 6);
        await a.fragment('LAST', 'two', 6);
        await a.membership('g');
        await a.localNodeId();
      });
      await stage.step('finalize', () => a.finalize());
      await stage.step('finalized', async () => {
        await a.finalize();
        await a.localNodeId();
        await a.membership('g');
        await a.leave('g', 101);
      });
    },
  },
  {
    name: 'requests-before-the-join-is-delivered',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const watcher = await stage.enter('watcher', 1);
      await stage.step('watch', () => watcher.join('g', 201));
      await stage.step('join and go on', async () => {
        await a.join('g', 101);
        await a.mcast('at once');
        await a.fragment('FIRST', 'frag', 8, { retryInterrupt: true });
        await a.leave('g', 101);
      });
    },
  },
  {
    name: 'handles-of-one-process',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      await stage.step('the same group', async () => {
        await a.join('g', 101);
        await b.join('g', 101);
      });
      await stage.step('different groups', () => b.join('h', 101));
      await stage.step('the first one dies', () => stage.kill(a));
      const c = await stage.enter('c', 1);
      await stage.step('a third takes its place', () => c.join('g', 101));
      await stage.step('leaves', () => c.leave('g', 101));
      const d = await stage.enter('d', 1);
      await stage.step('and still has the name', () => d.join('g', 101));
      await stage.step('until it is gone', async () => {
        await stage.kill(c);
        await d.join('g', 101);
      });
    },
  },
  {
    name: 'one-that-left-hears-on',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('g', 102);
      });
      await stage.step('leave', () => a.leave('g', 101));
      await stage.step('the others go on', async () => {
        await b.mcast('do you hear?');
        await b.fragment('FIRST', 'do ', 6);
        await b.fragment('LAST', 'you', 6);
      });
      const c = await stage.enter('c', 1);
      await stage.step('another comes', () => c.join('g', 103));
      await stage.step('and goes', () => stage.kill(c));
      await stage.step('finalize', () => a.finalize());
      await stage.step('now it is quiet', () => b.mcast('silence'));
    },
  },
  {
    name: 'ways-to-go',
    nodes: 1,
    run: async (stage) => {
      const watcher = await stage.enter('watcher', 1);
      await stage.step('watch', () => watcher.join('g', 500));
      const goings = { kill: 101, finalizeAndKill: 102, leaveAndKill: 103 };
      for (const [how, pid] of Object.entries(goings)) {
        const actor = await stage.enter(how, 1);
        await stage.step(`${how}: join`, () => actor.join('g', pid));
        if (how === 'finalizeAndKill') await stage.step('finalize', () => actor.finalize());
        if (how === 'leaveAndKill') await stage.step('leave', () => actor.leave('g', pid));
        await stage.step(`${how}: gone`, () => stage.kill(actor));
        await stage.step(`${how}: after`, () => watcher.membership('g'));
      }
    },
  },
  {
    name: 'names-at-their-limits',
    nodes: 1,
    run: async (stage) => {
      const names: [string, Uint8Array][] = [
        ['one byte', Buffer.from('n')],
        ['128 bytes', Buffer.alloc(128, 'x')],
        ['no text', Buffer.from([0xff, 0xfe, 0x80])],
        ['a zero inside', Buffer.from('a\0b')],
        ['a zero at the end', Buffer.from('a\0')],
        ['a zero alone', Buffer.from([0])],
      ];
      let pid = 100;
      for (const [what, name] of names) {
        const actor = await stage.enter(what, 1);
        pid++;
        await stage.step(what, async () => {
          await actor.join(name, pid);
          await actor.mcast('in it');
          await actor.membership(name);
        });
      }
      const a = await stage.enter('a', 1);
      await stage.step('all of them', async () => {
        await a.iterate('NAME_ONLY');
        await a.iterate('ALL');
        await a.iterate('ONE_GROUP', Buffer.from('a\0'));
        await a.membership('');
        await a.iterate('ONE_GROUP', '');
      });
      await stage.step('too long', async () => {
        const group = Buffer.alloc(128, 'y');
        await a.raw('join', overlongName({ type: 'join', group, pid: 900, flags: 0 }, 129));
        await a.raw('membership', overlongName({ type: 'membershipGet', group }, 129));
        await a.raw('leave', overlongName({ type: 'leave', group, pid: 900 }, 129));
      });
    },
  },
  {
    name: 'pids-and-their-order',
    nodes: 1,
    run: async (stage) => {
      for (const [name, pid] of Object.entries({
        middle: 500,
        low: 0,
        high: 0xffffffff,
        second: 501,
        one: 1,
      })) {
        const actor = await stage.enter(name, 1);
        await stage.step(name, () => actor.join('g', pid));
      }
      const a = await stage.enter('a', 1);
      await stage.step('members', async () => {
        await a.membership('g');
        await a.iterate('ONE_GROUP', 'g');
      });
    },
  },
  {
    name: 'messages',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      const other = await stage.enter('other', 1);
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('g', 102);
        await other.join('h', 103);
      });
      await stage.step('sizes', async () => {
        for (const size of [0, 1, 3, 4, 5, 1000, 64 * KIB, KIB * KIB - KIB])
          await a.mcast(Buffer.alloc(size, 'm'));
      });
      await stage.step('guarantees', async () => {
        for (const [name, guarantee] of Object.entries(Guarantee)) await a.mcast(name, guarantee);
        await a.mcast('unknown', 77);
      });
      await stage.step('order of one sender', async () => {
        for (let number = 0; number < 200; number++) await b.mcast(`number ${number}`);
      });
    },
  },
  {
    name: 'fragments',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('g', 102);
      });
      await stage.step('two senders at a time', async () => {
        await a.fragment('FIRST', 'a1', 6);
        await b.fragment('FIRST', 'b1', 6);
        await a.fragment('CONTINUED', 'a2', 6);
        await b.fragment('CONTINUED', 'b2', 6);
        await b.fragment('LAST', 'b3', 6);
        await a.fragment('LAST', 'a3', 6);
      });
      await stage.step('an ordinary message between', async () => {
        await a.fragment('FIRST', 'a1', 4);
        await a.mcast('between');
        await a.fragment('LAST', 'a2', 4);
      });
      await stage.step('out of order, and lengths that do not add up', async () => {
        await a.fragment('LAST', 'x', 6);
        await a.fragment('CONTINUED', 'y', 6);
        await a.fragment('FIRST', 'z', 0);
        await a.fragment('FIRST', 'again', 7);
        await a.fragment('LAST', '', 7);
      });
      const c = await stage.enter('c', 1);
      await stage.step('interrupted by a join', async () => {
        await a.fragment('FIRST', 'a1', 6);
        await c.join('g', 103);
      });
      await stage.step('interrupted', async () => {
        await a.fragment('CONTINUED', 'a2', 6);
        await a.fragment('LAST', 'a3', 6);
        await c.fragment('CONTINUED', 'never begun', 6);
        await a.fragment('FIRST', 'anew', 8);
        await a.fragment('LAST', 'here', 8);
      });
      await stage.step('interrupted by a death', async () => {
        await a.fragment('FIRST', 'a1', 4);
        await stage.kill(c);
      });
      await stage.step('interrupted again', () => a.fragment('LAST', 'a2', 4));
      const d = await stage.enter('d', 1);
      await stage.step('another group changes', async () => {
        await a.fragment('FIRST', 'a1', 4);
        await d.join('h', 104);
      });
      await stage.step('not interrupted', () => a.fragment('LAST', 'a2', 4));
    },
  },
  {
    name: 'large-fragments',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      const size = KIB * KIB - KIB;
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('g', 102);
      });
      await stage.step('as large as fragments are', async () => {
        await a.fragment('FIRST', Buffer.alloc(size, 'a'), 2 * size + 1);
        await b.fragment('FIRST', Buffer.alloc(size, 'b'), 2 * size);
        await a.fragment('CONTINUED', Buffer.alloc(size, 'c'), 2 * size + 1);
        await b.fragment('LAST', Buffer.alloc(size, 'd'), 2 * size);
        await a.fragment('LAST', 'e', 2 * size + 1);
      });
      await stage.step('interrupted in the middle', async () => {
        await a.fragment('FIRST', Buffer.alloc(size, 'a'), 2 * size);
        await stage.kill(b);
      });
      await stage.step('and told so', () => a.fragment('LAST', Buffer.alloc(size, 'b'), 2 * size));
    },
  },
  {
    name: 'iterations-across-a-leave-and-finalize',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('g', 102);
      });
      let begun = 0n;
      await stage.step('begin', async () => {
        begun = await a.beginIteration('ALL');
        await a.nextRow(begun);
      });
      await stage.step('leave', () => a.leave('g', 101));
      await stage.step('go on', () => a.nextRow(begun).then(() => undefined));
      await stage.step('finalize', () => a.finalize());
      await stage.step('go on all the same', async () => {
        await a.nextRow(begun);
        await a.endIteration(begun);
        await a.iterate('ONE_GROUP', 'g');
      });
    },
  },
  {
    name: 'iterations',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      const members = await Promise.all(['m1', 'm2', 'm3', 'm4', 'm5'].map((name) => stage.enter(name, 1)));
      await stage.step('members of three groups', async () => {
        for (const [index, group] of ['x', 'y', 'x', 'z', 'x'].entries())
          await members[index]!.join(group, 101 + index);
      });
      await stage.step('kinds', async () => {
        await a.iterate('NAME_ONLY');
        await a.iterate('ALL');
        await a.iterate('ONE_GROUP', 'x');
        await a.iterate('ONE_GROUP', 'nobody');
      });
      let handle = 0n;
      await stage.step('begin', async () => {
        handle = await a.beginIteration('ONE_GROUP', 'x');
        await a.nextRow(handle);
      });
      await stage.step('changes', async () => {
        await stage.kill(members[2]!);
        await a.join('x', 200);
      });
      await stage.step('the snapshot stays', async () => {
        await a.nextRow(handle);
        await a.nextRow(handle);
        await a.nextRow(handle);
      });
      await stage.step('and begins anew behind its end', async () => {
        await a.nextRow(handle);
        await a.nextRow(handle);
      });
      await stage.step('another may use it', async () => {
        await b.nextRow(handle);
        await b.endIteration(handle);
      });
      await stage.step('gone', async () => {
        await a.nextRow(handle);
        await a.endIteration(handle);
        await a.nextRow(0n);
      });
      let orphan = 0n;
      await stage.step('its owner goes', async () => {
        orphan = await a.beginIteration('ONE_GROUP', 'x');
        await stage.kill(a);
        await b.nextRow(orphan);
      });
    },
  },
  {
    name: 'the-first-ring',
    nodes: 1,
    run: async (stage) => {
      const asks = await stage.enter('asks', 1);
      const asksNot = await stage.enter('asks not', 1);
      const flags = await stage.enter('other flags', 1);
      await stage.step('with the flag', () => asks.join('g', 101, DELIVER_INITIAL_TOTEM_CONF));
      await stage.step('without', () => asksNot.join('g', 102));
      await stage.step('flags nobody knows', () => flags.join('g', 103, 0xfffffffe));
      await stage.step('after that', () => asksNot.mcast('no more rings'));
    },
  },
  {
    name: 'unknown-requests',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      await stage.step('join', () => a.join('g', 101));
      await stage.step('ids nobody knows', async () => {
        for (const id of [13, 14, 99, 0x7fffffff, -1, -2, -100]) {
          const frame = Buffer.alloc(requestHeader.size);
          requestHeader.encode({ id, size: frame.length }, frame);
          await a.raw(`request ${id}`, frame);
        }
      });
      await stage.step('and all goes on', async () => {
        await a.mcast('still here');
        await a.localNodeId();
      });
    },
  },
  {
    name: 'finalized-and-still-there',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      const late = await stage.enter('late', 1);
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('g', 102);
      });
      await stage.step('finalize', () => a.finalize());
      await stage.step('it still speaks', async () => {
        await a.mcast('I am not gone');
        await a.fragment('FIRST', 'nor ', 8);
        await a.fragment('LAST', 'here', 8);
        await a.membership('g');
        await a.iterate('ONE_GROUP', 'g');
      });
      await stage.step('and leaves', () => a.leave('g', 101));
      await stage.step('finalized before a join', () => late.finalize());
      await stage.step('joins', () => late.join('g', 103));
      await stage.step('and never learns that it did', async () => {
        await late.ask({ type: 'leave', group: Buffer.from('g'), pid: 103 });
        await late.mcast('but the others do');
        await late.membership('g');
      });
      await stage.step('until it goes', () => stage.kill(late));
    },
  },
  {
    name: 'gone-at-once',
    nodes: 1,
    run: async (stage) => {
      const watcher = await stage.enter('watcher', 1);
      await stage.step('watch', () => watcher.join('g', 500));
      const hasty = await stage.enter('hasty', 1);
      await stage.step('join, send and die', async () => {
        await hasty.join('g', 101);
        await hasty.mcast('famous last words');
        await hasty.localNodeId();
        await stage.kill(hasty);
      });
      const unjoined = await stage.enter('unjoined', 1);
      await stage.step('die without a join', () => stage.kill(unjoined));
    },
  },
  {
    name: 'odd-values',
    nodes: 1,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      await stage.step('join', async () => {
        await a.join('g', 101);
        await b.join('h', 102);
      });
      await stage.step('kinds of iteration nobody knows', async () => {
        for (const iterationType of [0, 4, 77]) {
          await a.iterateKind(iterationType, 'g');
        }
      });
      await stage.step('kinds of fragments nobody knows', async () => {
        for (const fragmentType of [1, 0, 4, 77]) {
          const fragment = Buffer.from('odd');
          await a.ask({ type: 'partialMcast', guarantee: 9, messageLength: 3, fragmentType, fragment });
        }
      });
      await stage.step('handles nobody has', async () => {
        await a.nextRow(0xffffffffffffffffn);
        await a.endIteration(0n);
      });
    },
  },
  {
    name: 'leave-of-something-else',
    nodes: 1,
    leavesGhosts: true,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      const c = await stage.enter('c', 1);
      await stage.step('join', async () => {
        await a.join('real', 101);
        await b.join('real', 102);
        await c.join('other', 103);
      });
      await stage.step('another group', () => a.leave('other', 101));
      await stage.step('it stays', async () => {
        await a.mcast('dropped');
        await b.membership('real');
        await b.mcast('to a ghost');
      });
      await stage.step('for ever', () => stage.kill(a));
      await stage.step('even so', () => b.membership('real'));
      await stage.step('another pid', () => b.leave('real', 999));
      await stage.step('also stays', () => c.membership('real'));
      await stage.step('somebody else', () => c.leave('other', 101));
    },
  },
  {
    name: 'the-empty-name',
    nodes: 1,
    leavesGhosts: true,
    run: async (stage) => {
      const a = await stage.enter('a', 1);
      const b = await stage.enter('b', 1);
      await stage.step('pid 0 seems to be there', () => a.join('', 0));
      await stage.step('join', async () => {
        await a.join('', 101);
        await b.join('', 102);
      });
      await stage.step('talk', () => a.mcast('to nobody in particular'));
      await stage.step('die', () => stage.kill(a));
      await stage.step('nobody noticed', () => b.membership(''));
      await stage.step('a leave is noticed', () => b.leave('', 102));
    },
  },
];
