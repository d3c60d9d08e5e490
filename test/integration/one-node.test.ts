/** The client on one private corosync. */
import { spawn, type SpawnOptions } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { connect, CpgError, type ConnectOptions, type CpgClient, type CpgEvent } from '../../src';
import { Nudge } from '../../src/session/nudge';
import { Collector } from '../support/collector';
import { startCorosync, type CorosyncCluster } from '../support/corosync';
import { enterNetwork } from '../support/network-namespace';
import { describeWithCorosync } from '../support/suites';

jest.setTimeout(60_000);

const MIB = 1024 * 1024;

/** What reaches the daemon, and how many files of a connection are mapped for it: three rings have two each. */
const WAYS = [
  { title: 'one node', mapped: false, datagrams: false, mappings: 0 },
  { title: 'one node, rings mapped', mapped: true, datagrams: false, mappings: 6 },
  { title: 'one node, by datagrams', mapped: false, datagrams: true, mappings: 1 },
];

for (const { title, mapped, datagrams, mappings } of WAYS)
  describeWithCorosync(title, () => {
    let cluster: CorosyncCluster;
    let address: string;
    let leaveNetwork = (): void => undefined;
    let nextPid = 500_000;
    const clients: CpgClient[] = [];

    beforeAll(async () => {
      cluster = await startCorosync({ qbIpcType: datagrams ? 'socket' : 'native' });
      ({ address } = cluster.nodes[0]!);
      // Datagrams do not leave a network namespace.
      if (datagrams) leaveNetwork = enterNetwork(cluster.nodes[0]!.netns);
    });
    afterEach(async () => {
      await Promise.all(clients.splice(0).map((client) => client.close()));
    });
    afterAll(async () => {
      leaveNetwork();
      await cluster.stop();
    });

    /** Handles of one process need pids of their own to join one group. */
    const open = async (options: ConnectOptions = {}): Promise<CpgClient> => {
      const client = await connect({ address, pid: nextPid++, mapped, ...options });
      clients.push(client);
      return client;
    };
    const member = async (group: string | Uint8Array): Promise<{ client: CpgClient; seen: Collector }> => {
      const client = await open();
      const seen = new Collector(client);
      await client.join(group);
      await seen.until('its own confchg', ({ confchgs }) => confchgs.length > 0);
      return { client, seen };
    };
    const failure = (work: Promise<unknown>): Promise<string> => work.then(() => 'no error', code);

    test(`${mappings} files are mapped`, async () => {
      await open();
      const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
      expect(maps.filter((line) => line.includes('/dev/shm/qb-'))).toHaveLength(mappings);
    });

    test('the daemon sees our pid, and announces us by it', async () => {
      const client = await open({ pid: process.pid });
      const plain = await connect({ address });
      expect(plain.pid).toBe(process.pid);
      await plain.close();
      const seen = new Collector(client);
      expect(client.state).toBe('unjoined');
      await client.join('pids');
      expect(client.state).toBe('joined');
      expect(client.group).toBe('pids');
      await seen.until('confchg', ({ confchgs }) => confchgs.length === 1);
      const self = { nodeId: 1, pid: process.pid };
      expect(seen.confchgs[0]).toEqual({
        type: 'confchg',
        group: 'pids',
        groupBytes: Buffer.from('pids'),
        members: [{ ...self, reason: 0 }],
        left: [],
        joined: [{ ...self, reason: 1 }],
      });
      expect(await client.membership()).toEqual([{ ...self, reason: 0 }]);
      expect(await client.membership('nobody')).toEqual([]);
      expect(await client.localNodeId()).toBe(1);
      expect(client.maxAtomicMessageSize).toBe(MIB - 1024);
      expect(client.flowControl).toBe(false);
      expect(client.fd).toBeGreaterThan(2);
    });

    test('messages come back in order, whatever their kind', async () => {
      const { client, seen } = await member('kinds');
      await client.mcast('text ✓');
      await client.mcast(Buffer.from('bytes'));
      await client.mcast([Buffer.from('in '), new Uint8Array(), Buffer.from('parts')]);
      await client.mcast('');
      const lent = client.alloc(5);
      lent.set(Buffer.from('alloc'));
      await client.mcast(lent, { guarantee: 'SAFE' });
      expect(client.tryMcast('tried')).toBe(true);
      await client.mcast('confirmed', { confirm: true });
      const texts = ['text ✓', 'bytes', 'in parts', '', 'alloc', 'tried', 'confirmed'];
      expect(seen.texts).toEqual(texts);
      expect(
        seen.deliveries.every(
          ({ group, nodeId, pid }) => group === 'kinds' && nodeId === 1 && pid === client.pid,
        ),
      ).toBe(true);
    });

    test('what waits for a blocked receiver arrives whole, and each full ring wakes the daemon', async () => {
      const count = 20_000;
      const { client: sender, seen } = await member('stalled');
      const receiver = await open({ dispatch: 'manual' });
      let received = 0;
      let wrong = 0;
      receiver.on('deliver', ({ message }) => {
        if (Buffer.from(message).readUInt32LE(0) !== received++ || message.length !== 1000) wrong++;
      });
      await receiver.join('stalled');
      const message = Buffer.alloc(1000);
      for (let number = 0; number < count; number++) {
        message.writeUInt32LE(number, 0);
        while (!sender.tryMcast(message)) await once(sender, 'drain');
      }
      await seen.until('all of them', ({ deliveries }) => deliveries.length === count);
      const nudges = jest.spyOn(Nudge.prototype, 'onReply');
      try {
        while (received < count) await receiver.dispatch('one');
        expect(wrong).toBe(0);
        // Each ring full would wait for the daemon to look by itself; one is there already.
        const ringfuls = (count * 1000) / MIB;
        expect(nudges.mock.calls.length).toBeGreaterThan(ringfuls / 4);
        // The queue of a socket holds a few frames, so there every pause in reading counts.
        if (!datagrams) expect(nudges.mock.calls.length).toBeLessThan(8 * ringfuls);
      } finally {
        nudges.mockRestore();
      }
    });

    test('a member that sees itself in a configuration change may send before its join is answered', async () => {
      for (let index = 0; index < 50; index++) {
        const client = await open();
        const sent = new Promise((resolve, reject) => {
          client.once('confchg', () => {
            client.mcast('state, please', { confirm: true }).then(() => resolve(client.state), reject);
          });
        });
        await client.join(`early ${index}`);
        expect(await sent).toBe('joined');
        await client.close();
      }
    });

    test('a confirmed message between unconfirmed ones of equal bytes', async () => {
      const { client, seen } = await member('transfers');
      const expected: string[] = [];
      for (let index = 0; index < 200; index++) {
        const text = index % 3 === 0 ? 'heartbeat' : `transfer ${index}`;
        expected.push('heartbeat', text, 'heartbeat');
        await client.mcast('heartbeat');
        const confirmed = client.mcast(text, { confirm: true });
        const after = client.mcast('heartbeat');
        await Promise.all([confirmed, after]);
      }
      await seen.until('all', ({ texts }) => texts.length === expected.length);
      expect(seen.texts).toEqual(expected);
    });

    test('the initial totem configuration comes on request', async () => {
      const client = await open();
      const seen = new Collector(client);
      await client.join('totem', { initialTotemConfchg: true });
      await seen.until('totem confchg', ({ totem }) => totem.length > 0);
      expect(seen.totem[0]!.members).toEqual([1]);
      expect(seen.totem[0]!.ringId.nodeId).toBe(1);
      expect(typeof seen.totem[0]!.ringId.seq).toBe('bigint');
    });

    test.each([
      ['one byte', 'g', 'g'],
      ['128 bytes', 'x'.repeat(128), 'x'.repeat(128)],
      ['a trailing NUL', 'name\0', 'name\0'],
      ['a NUL inside', 'a\0b', 'a\0b'],
      ['not UTF-8', Uint8Array.of(0xff, 0xfe, 1), Uint8Array.of(0xff, 0xfe, 1)],
    ])('a group name of %s', async (_, name, expected) => {
      const { client, seen } = await member(name);
      await client.mcast('x', { confirm: true });
      expect(seen.deliveries[0]!.group).toEqual(expected);
      expect(seen.confchgs[0]!.group).toEqual(expected);
      expect(client.group).toEqual(expected);
      expect((await client.membership(name)).map(({ pid }) => pid)).toEqual([client.pid]);
      const groups = [];
      for await (const { group, pid } of client.groups({ group: name })) groups.push([group, pid]);
      expect(groups).toEqual([[expected, client.pid]]);
    });

    test('bad names, second joins and calls without a join are refused', async () => {
      const client = await open();
      expect(await failure(client.join(''))).toBe('CS_ERR_INVALID_PARAM');
      expect(await failure(client.join('x'.repeat(129)))).toBe('CS_ERR_NAME_TOO_LONG');
      expect(await failure(client.mcast('x'))).toBe('CS_ERR_NOT_EXIST');
      expect(await failure(client.leave())).toBe('CS_ERR_NOT_EXIST');
      await client.join('only');
      expect(await failure(client.join('only'))).toBe('CS_ERR_INVALID_PARAM');
      expect(await failure(client.join('other'))).toBe('CS_ERR_INVALID_PARAM');
      expect(await failure(client.leave('other'))).toBe('CS_ERR_INVALID_PARAM');
      await client.leave('only');
      expect(client.state).toBe('left');
      expect(await failure(client.join('other'))).toBe('CS_ERR_INVALID_PARAM');
      await client.close();
      expect(await failure(client.membership('only'))).toBe('CS_ERR_BAD_HANDLE');
    });

    test('two handles of one pid cannot join one group, and the second one stays usable', async () => {
      const first = await open({ pid: 77 });
      const second = await open({ pid: 77 });
      await first.join('twice');
      expect(await failure(second.join('twice'))).toBe('CS_ERR_EXIST');
      expect(second.state).toBe('unjoined');
      await second.join('elsewhere');
    });

    test('members come, leave, finalize', async () => {
      const { client, seen } = await member('moves');
      const other = await member('moves');
      await seen.until('the join', ({ confchgs }) => confchgs.length === 2);
      expect(seen.confchgs[1]!.joined).toEqual([{ nodeId: 1, pid: other.client.pid, reason: 1 }]);
      await other.client.leave();
      await seen.until('the leave', ({ confchgs }) => confchgs.length === 3);
      expect(seen.confchgs[2]!.left).toEqual([{ nodeId: 1, pid: other.client.pid, reason: 2 }]);
      const third = await member('moves');
      await third.client.close();
      await seen.until('the end', ({ confchgs }) => confchgs.length === 5);
      expect(seen.confchgs[4]!.left).toEqual([{ nodeId: 1, pid: third.client.pid, reason: 5 }]);
      expect(seen.confchgs[4]!.members).toEqual([{ nodeId: 1, pid: client.pid, reason: 0 }]);
    });

    test('a leave right after a join, and a new handle for the next group', async () => {
      for (let round = 0; round < 5; round++) {
        const client = await open({ pid: 4242 });
        await client.join('quick');
        await client.leave();
        await client.close();
      }
    });

    test('groups, by name, one and all', async () => {
      const one = await member('groups-1');
      await member('groups-2');
      const rows = async (options: Parameters<CpgClient['groups']>[0]): Promise<unknown[]> => {
        const all = [];
        for await (const row of one.client.groups(options)) all.push(row);
        return all;
      };
      const names = (await rows({ namesOnly: true })) as { group: string; nodeId: number; pid: number }[];
      expect(names.map(({ group }) => group)).toEqual(expect.arrayContaining(['groups-1', 'groups-2']));
      expect(names.every(({ nodeId, pid }) => nodeId === 0 && pid === 0)).toBe(true);
      expect(await rows({ group: 'groups-1' })).toEqual([
        { group: 'groups-1', nodeId: 1, pid: one.client.pid },
      ]);
      expect(await rows({ group: 'no such group' })).toEqual([]);
      expect((await rows({})).length).toBeGreaterThanOrEqual(2);
      // Leaving the loop early releases the daemon's snapshot, and the handle goes on.
      for await (const row of one.client.groups()) {
        expect(row.nodeId).toBe(1);
        break;
      }
      expect(await one.client.localNodeId()).toBe(1);
    });

    test.each([MIB - 1024, MIB - 1023, 3 * MIB + 1, 10 * MIB])('a message of %d bytes', async (size) => {
      const { client } = await member('sizes');
      const other = await member('sizes');
      const message = Buffer.alloc(size, 'corosync ');
      message.writeUInt32LE(size, size - 4);
      await client.mcast(message, { confirm: true });
      await other.seen.until('the message', ({ deliveries }) => deliveries.length === 1);
      const received = other.seen.deliveries[0]!.message;
      expect(received.length).toBe(size);
      expect(sha256(received)).toBe(sha256(message));
    });

    test('64 MiB is sent, one byte more is CS_ERR_TOO_BIG', async () => {
      const { client, seen } = await member('limits');
      const message = Buffer.alloc(64 * MIB + 1, 7);
      expect(await failure(client.mcast(message))).toBe('CS_ERR_TOO_BIG');
      await client.mcast(message.subarray(1));
      await client.mcast('after');
      await seen.until('both', ({ deliveries }) => deliveries.length === 2, 50_000);
      expect(seen.deliveries[0]!.message.length).toBe(64 * MIB);
      expect(seen.texts[1]).toBe('after');
      expect(() => client.tryMcast(Buffer.alloc(MIB))).toThrow(
        expect.objectContaining({ code: 'CS_ERR_TOO_BIG' }) as Error,
      );
    });

    test('prepared memory of every small size goes out as it is', async () => {
      const { client, seen } = await member('alloc');
      const sizes = [0, 1, 2, 3, 4, 5, 100, 70_000];
      for (const size of sizes) {
        const message = client.alloc(size);
        message.fill(size);
        await client.mcast(message);
      }
      await seen.until('all', ({ deliveries }) => deliveries.length === sizes.length);
      expect(seen.deliveries.map(({ message }) => message.length)).toEqual(sizes);
      expect(
        seen.deliveries.every(({ message }, index) =>
          message.every((byte) => byte === (sizes[index]! & 255)),
        ),
      ).toBe(true);
    });

    test('100,000 messages: none lost, none twice, in order; requests in between are answered', async () => {
      const { client } = await member('flood');
      const count = 100_000;
      let expected = 0;
      let wrong = 0;
      const all = new Promise<void>((resolve) => {
        client.on('deliver', ({ message }) => {
          if (Buffer.from(message).readUInt32LE(0) !== expected) wrong++;
          if (++expected === count) resolve();
        });
      });
      const numbered = Buffer.alloc(64);
      const send = (from: number): void => {
        for (let index = from; index < count; index++) {
          numbered.writeUInt32LE(index, 0);
          if (!client.tryMcast(numbered)) {
            client.once('drain', () => send(index));
            return;
          }
        }
      };
      send(0);
      const answers = await Promise.all(Array.from({ length: 20 }, () => client.localNodeId()));
      await all;
      expect(answers.every((nodeId) => nodeId === 1)).toBe(true);
      expect({ expected, wrong }).toEqual({ expected: count, wrong: 0 });
    });

    test('mcast without waiting keeps the order, and its confirms resolve', async () => {
      const { client, seen } = await member('unawaited');
      // Each change between the two kinds costs a round trip, and each way from the daemon takes a wake-up.
      const count = datagrams ? 5000 : 50_000;
      const sent = Array.from({ length: count }, (_, index) =>
        client.mcast(String(index), { confirm: index % 2 === 0 }),
      );
      await Promise.all(sent);
      await seen.until('all', ({ deliveries }) => deliveries.length === count);
      expect(seen.texts.every((text, index) => text === String(index))).toBe(true);
    });

    test('loops get everything from the join on, and end with close()', async () => {
      const client = await open();
      await client.join('loop');
      await client.mcast('one', { confirm: true });
      const events: CpgEvent['type'][] = [];
      for await (const event of client) {
        events.push(event.type);
        if (event.type === 'deliver') void client.close();
      }
      expect(events).toEqual(['confchg', 'deliver']);
    });

    test('a slow loop loses nothing', async () => {
      const { client } = await member('slow');
      const loop = client[Symbol.asyncIterator]();
      const count = 5000;
      await Promise.all(Array.from({ length: count }, (_, index) => client.mcast(String(index))));
      for (let index = 0; index < count; index++) {
        const { value } = await loop.next();
        if (value?.type !== 'deliver' || Buffer.from(value.message).toString() !== String(index)) {
          throw new Error(`event ${index} is ${JSON.stringify(value)}`);
        }
      }
      await loop.return?.();
    });

    test('manual dispatch', async () => {
      const client = await open({ dispatch: 'manual' });
      const seen = new Collector(client);
      expect(await failure(client.dispatch('oneNonblocking'))).toBe('CS_ERR_TRY_AGAIN');
      const first = client.dispatch('one');
      await client.join('manual');
      expect(await first).toBe(1);
      expect(seen.confchgs).toHaveLength(1);
      for (const text of ['a', 'b', 'c']) await client.mcast(text);
      expect(await client.dispatch('one')).toBe(1);
      expect(seen.texts).toEqual(['a']);
      let rest = 0;
      while (rest < 2) rest += await client.dispatch('one').then(() => 1);
      expect(seen.texts).toEqual(['a', 'b', 'c']);
      expect(await client.dispatch('all')).toBe(0);
      const blocking = client.dispatch('blocking');
      await client.mcast('d');
      await seen.until('d', ({ deliveries }) => deliveries.length === 4);
      await client.close();
      expect(await blocking).toBe(1);
      const auto = await open();
      expect(await failure(auto.dispatch('all'))).toBe('CS_ERR_INVALID_PARAM');
    });

    test('an abandoned wait is aborted with the reason of the signal', async () => {
      const client = await open({ dispatch: 'manual' });
      const controller = new AbortController();
      const waiting = client.dispatch('blocking', { signal: controller.signal });
      controller.abort(new Error('enough'));
      await expect(waiting).rejects.toThrow('enough');
      await expect(client.join('x', { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
      expect(client.state).toBe('unjoined');
    });

    test('nothing of a closed connection is left', async () => {
      const before = readdirSync('/proc/self/fd').length;
      const client = await connect({ address });
      const directory = ringDirectories(cluster.nodes[0]!.pid);
      expect(directory.length).toBeGreaterThan(0);
      const marker = new Collector(client);
      await Promise.all([client.close(), client.close()]);
      await client.close();
      expect(marker.closed).toEqual([]);
      expect(readdirSync('/proc/self/fd').length).toBe(before);
      await vanished(() => ringDirectories(cluster.nodes[0]!.pid).length < directory.length);
    });

    test('50 connections at once', async () => {
      const group = 'crowd';
      const crowd = await Promise.all(Array.from({ length: 50 }, () => member(group)));
      await Promise.all(crowd.map(({ client }, index) => client.mcast(`from ${index}`)));
      await Promise.all(
        crowd.map(({ seen }) => seen.until('all', ({ deliveries }) => deliveries.length === 50)),
      );
      expect(new Set(crowd.map(({ seen }) => seen.texts.join())).size).toBe(1);
    });

    describe('an ordinary user', () => {
      const USER = 65_534;

      /** What a program of that user says: 'works', or the code of its error and what to do. */
      const run = async (before: string, options: SpawnOptions): Promise<string> => {
        const program = `
        ${before}
        const { connect } = require(${JSON.stringify(require.resolve('../../dist/index.js'))});
        connect({ address: ${JSON.stringify(address)} }).then(
          async (client) => { await client.join('user'); await client.mcast('x', { confirm: true }); await client.close(); console.log('works'); },
          (error) => console.log(error.code, error.remedy),
        );`;
        const child = spawn(process.execPath, ['-e', program], {
          ...options,
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        let output = '';
        child.stdout.on('data', (bytes: Buffer) => (output += bytes.toString()));
        await once(child, 'close');
        return output.trim();
      };

      test('needs permission, is told the stanza, and works with it', async () => {
        const node = cluster.nodes[0]!;
        const refusal = await run('', { uid: USER, gid: USER });
        expect(refusal).toMatch(/^CS_ERR_ACCESS .*uidgid \{ uid: 65534 \}/);
        // The command of the remedy, on this daemon's own directory.
        const command = /as root: (printf .*) && corosync-cfgtool -R$/.exec(refusal)![1]!;
        const etc = dirname(node.configFile);
        mkdirSync(join(etc, 'uidgid.d'));
        await node.run('sh', ['-c', command.replace('/etc/corosync', etc)]);
        await node.run('corosync-cfgtool', ['-R']);
        expect(await run('', { uid: USER, gid: USER })).toBe('works');
      });

      test('that is only the effective one is told why the rings are shut', async () => {
        // The daemon is told the real user, root, and makes the rings for it.
        expect(await run(`process.seteuid(${USER});`, {})).toMatch(/^CS_ERR_ACCESS .*effective user/);
      });
    });
  });

describeWithCorosync('one node, other ways to reach it', () => {
  test('a group of 386 members: membership() by iteration, which the daemon survives', async () => {
    const cluster = await startCorosync();
    const clients: CpgClient[] = [];
    try {
      const { address } = cluster.nodes[0]!;
      const pids = Array.from({ length: 386 }, (_, index) => 600_000 + index);
      for (const pid of pids) {
        const client = await connect({ address, pid });
        clients.push(client);
        await client.join('big');
      }
      const asker = await connect({ address });
      clients.push(asker);
      let members = await asker.membership('big');
      // Joins are taken at once, and ordered later.
      while (members.length < pids.length) members = await asker.membership('big');
      expect(members).toEqual(pids.map((pid) => ({ nodeId: 1, pid, reason: 0 })));
      const rows: number[] = [];
      for await (const { pid } of asker.groups({ group: 'big' })) rows.push(pid);
      expect(rows.sort((one, other) => one - other)).toEqual(pids);
      expect(await asker.localNodeId()).toBe(1);
    } finally {
      await Promise.all(clients.map((client) => client.close()));
      await cluster.stop();
    }
  });

  test('abstract sockets, from inside the network namespace', async () => {
    const cluster = await startCorosync({ sockets: 'abstract' });
    try {
      const program = `
        const { connect } = require(${JSON.stringify(require.resolve('../../dist/index.js'))});
        (async () => {
          const client = await connect();
          await client.join('abstract');
          for await (const event of client) {
            if (event.type === 'confchg') await client.mcast('hello');
            else break;
          }
          await client.close();
          console.log('works', client.state);
        })();`;
      const { stdout } = await cluster.nodes[0]!.run(process.execPath, ['-e', program]);
      expect(stdout).toBe('works closed\n');
    } finally {
      await cluster.stop();
    }
  });

  test('datagrams do not reach into another network namespace: that is told', async () => {
    const cluster = await startCorosync({ qbIpcType: 'socket' });
    try {
      const { address, pid } = cluster.nodes[0]!;
      await expect(connect({ address })).rejects.toMatchObject({
        code: 'CS_ERR_LIBRARY',
        reason: 'datagrams-not-there',
        remedy: expect.stringContaining('network namespace') as string,
      });
      expect(ringDirectories(pid)).toEqual([]);
    } finally {
      await cluster.stop();
    }
  });

  test('a /dev/shm that is too small is CS_ERR_NO_SPACE, with the remedy', async () => {
    const cluster = await startCorosync();
    try {
      const node = cluster.nodes[0]!;
      // Only in the node's own mount namespace.
      await node.run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', '/dev/shm']);
      const program = `
        const { connect } = require(${JSON.stringify(require.resolve('../../dist/index.js'))});
        connect({ address: ${JSON.stringify(node.address)} }).catch((error) => console.log(error.message));`;
      const { stdout } = await node.run(process.execPath, ['-e', program]);
      expect(stdout).toMatch(/CS_ERR_NO_SPACE \(15\): .*\/dev\/shm: make it larger/);
    } finally {
      await cluster.stop();
    }
  });

  test('a daemon that is killed: the reason, and its files go', async () => {
    const cluster = await startCorosync();
    try {
      const node = cluster.nodes[0]!;
      const client = await connect({ address: node.address });
      const seen = new Collector(client);
      await client.join('doomed');
      const pid = node.pid;
      expect(ringDirectories(pid)).toHaveLength(1);
      const pending = client.mcast('x'.repeat(100), { confirm: true });
      await pending;
      await node.kill();
      await seen.until('close', ({ closed }) => closed !== undefined);
      expect(seen.closed![0]).toMatchObject({ code: 'CS_ERR_LIBRARY' });
      await expect(client.mcast('more')).rejects.toMatchObject({ code: 'CS_ERR_BAD_HANDLE' });
      await client.close();
      expect(ringDirectories(pid)).toEqual([]);
      await expect(connect({ address: node.address, timeoutMs: 1000 })).rejects.toMatchObject({
        code: 'CS_ERR_LIBRARY',
      });
    } finally {
      await cluster.stop();
    }
  });

  test('a daemon that stands still: deadlines hold, and afterwards the handle works', async () => {
    const cluster = await startCorosync();
    try {
      const node = cluster.nodes[0]!;
      const client = await connect({ address: node.address, timeoutMs: 300 });
      await client.join('stopped');
      const seen = new Collector(client);
      node.pause();
      await expect(client.localNodeId()).rejects.toMatchObject({ code: 'CS_ERR_TIMEOUT' });
      await expect(client.membership()).rejects.toMatchObject({ code: 'CS_ERR_TIMEOUT' });
      await expect(client.mcast('lost?', { confirm: true })).rejects.toMatchObject({
        code: 'CS_ERR_TIMEOUT',
      });
      node.resume();
      await cluster.settled();
      expect(await client.localNodeId()).toBe(1);
      // The daemon may hold us a little longer while it forms its ring anew.
      let delivered = false;
      while (!delivered) {
        delivered = await client.mcast('still here', { confirm: true }).then(
          () => true,
          (error: unknown) => {
            if (code(error) !== 'CS_ERR_TIMEOUT') throw error;
            return false;
          },
        );
      }
      expect(seen.texts).toContain('still here');
      await client.close();
    } finally {
      await cluster.stop();
    }
  });
});

function code(error: unknown): string {
  return error instanceof CpgError ? error.code : String(error);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function ringDirectories(daemonPid: number): string[] {
  return existsSync('/dev/shm')
    ? readdirSync('/dev/shm').filter((name) => name.startsWith(`qb-${daemonPid}-`))
    : [];
}

/** The daemon removes its files some time after the hang-up; nothing tells us when. */
async function vanished(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('the ring files are still there');
}
