/**
 * Containers of one pod on a real corosync: the daemon and each program are pid 1 of sibling pid namespaces, and share
 * the network namespace and /dev/shm. The daemon then sees no pid of its clients.
 */
import type { ChildProcess } from 'node:child_process';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { startCorosync, type CorosyncCluster, type CorosyncNode } from '../support/corosync';
import { startPeer, type Peer } from '../support/peer';
import { describeWithCorosync, describeWithPeer } from '../support/suites';

jest.setTimeout(60_000);

const library = require.resolve('../../dist/index.js');
const dist = dirname(library);

/** A member that says what it sees, a line of JSON each; commands are lines too. */
const MEMBER = `
const { connect } = require(${JSON.stringify(library)});
const tell = (what) => process.stdout.write(JSON.stringify(what) + '\\n');
const [address, group, pid] = process.argv.slice(1);
const main = async () => {
  const client = await connect({ address, ...(pid === undefined ? {} : { pid: Number(pid) }) });
  const list = (addresses) => addresses.map(({ pid }) => pid);
  client.on('confchg', ({ members, left }) => tell({ members: list(members), left: list(left) }));
  client.on('deliver', ({ pid, message }) => {
    tell({ text: Buffer.from(message).toString(), from: pid, own: pid === client.pid });
  });
  await client.join(group);
  tell({ joined: client.pid, process: process.pid });
  for await (const line of require('node:readline').createInterface({ input: process.stdin })) {
    await client.mcast(line, { confirm: true });
    tell({ confirmed: line });
  }
  await client.close();
};
main().catch(({ code, message }) => tell({ code, message }));
`;

interface Told {
  members?: number[];
  left?: number[];
  text?: string;
  from?: number;
  own?: boolean;
  joined?: number;
  process?: number;
  confirmed?: string;
  code?: string;
  message?: string;
}

class Member {
  readonly told: Told[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #isOver = false;
  #errors = '';
  #look: () => void = () => undefined;

  constructor(node: CorosyncNode, group: string, pid?: number) {
    const args = [node.address, group, ...(pid === undefined ? [] : [String(pid)])];
    this.#child = node.container.spawn(process.execPath, ['-e', MEMBER, ...args], { stdio: 'pipe' });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.#errors += text));
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.told.push(JSON.parse(line) as Told);
      this.#look();
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('close', () => {
        this.#isOver = true;
        this.#look();
        resolve();
      });
    });
  }

  static async join(node: CorosyncNode, group: string): Promise<Member> {
    const member = new Member(node, group);
    members.push(member);
    await member.until(({ joined }) => joined !== undefined);
    return member;
  }

  get pid(): number {
    return this.told.find(({ joined }) => joined !== undefined)!.joined!;
  }

  /** What it tells, or told, that is like this. */
  until(wanted: (told: Told) => boolean): Promise<Told> {
    return new Promise((resolve, reject) => {
      this.#look = () => {
        const found = this.told.find(wanted);
        if (found !== undefined) resolve(found);
        else if (this.#isOver) reject(new Error(`it ended: ${JSON.stringify(this.told)} ${this.#errors}`));
      };
      this.#look();
    });
  }

  send(text: string): Promise<Told> {
    this.#child.stdin!.write(`${text}\n`);
    return this.until(({ confirmed }) => confirmed === text);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

let cluster: CorosyncCluster;
let node: CorosyncNode;
const members: Member[] = [];
const peers: Peer[] = [];

function suite(body: () => void): () => void {
  return () => {
    beforeAll(async () => {
      cluster = await startCorosync({ contained: true });
      node = cluster.nodes[0]!;
    });
    afterEach(async () => {
      await Promise.all([...members.splice(0), ...peers.splice(0)].map((one) => one.kill()));
    });
    afterAll(() => cluster.stop());
    body();
  };
}

describeWithCorosync(
  'siblings of the daemon',
  suite(() => {
    test('two members have two pids by which each knows the other and itself', async () => {
      const one = await Member.join(node, 'pod');
      const two = await Member.join(node, 'pod');
      const { stdout } = await node.run('ls', ['/dev/shm']);
      // This is the case that it is about: the daemon is pid 1, and sees no pid.
      expect(stdout.match(/^qb-1-0-/gm)).toHaveLength(2);
      for (const { told, pid } of [one, two]) {
        expect(told).toContainEqual({ joined: pid, process: 1 });
        expect(pid).toBeGreaterThan(2 ** 22);
        expect(pid).toBeLessThan(2 ** 31);
      }
      expect(one.pid).not.toBe(two.pid);
      const both = [one.pid, two.pid].sort((a, b) => a - b);
      await one.until((told) => told.members?.length === 2);
      for (const member of [one, two]) {
        expect(member.told.findLast((told) => told.members !== undefined)!.members).toEqual(both);
      }

      await one.send('from one');
      await two.send('from two');
      for (const [member, other] of [
        [one, 'from two'],
        [two, 'from one'],
      ] as const) {
        await member.until(({ text }) => text === other);
        expect(member.told.filter(({ text }) => text !== undefined)).toEqual([
          { text: 'from one', from: one.pid, own: member === one },
          { text: 'from two', from: two.pid, own: member === two },
        ]);
      }

      await one.kill();
      expect(await two.until(({ left }) => left?.length === 1)).toEqual({
        members: [two.pid],
        left: [one.pid],
      });
    });

    test('cpg info says that the daemon sees no pid, and cpg tap finds a member by the pid it announces', async () => {
      const cpg = join(dist, 'cli', 'main.js');
      const place = ['--address', node.address];
      const { stdout } = await node.run('unshare', [
        ...['--pid', '--fork', '--kill-child', '--mount-proc', process.execPath, cpg, 'info'],
        ...place,
      ]);
      expect(stdout).toMatch(/^our pid +not seen by the daemon/m);

      const one = await Member.join(node, 'tapped');
      const two = await Member.join(node, 'tapped');
      await one.send('from one');
      await two.send('from two');
      const look = ['tap', '--history', '--json', '--message', 'mcast', '--timeout', '1'];
      const tapped = async (pid: number): Promise<unknown[]> => {
        const tap = await node.run(process.execPath, [cpg, ...look, '--pid', `${pid}`]);
        return tap.stdout
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => (JSON.parse(line) as { message: string }).message);
      };
      expect(await tapped(one.pid)).toEqual(['from one']);
      expect((await tapped(0)).sort()).toEqual(['from one', 'from two']);
    });

    test('cpg tap names the daemon by its rings, not by a pid that is another process here', async () => {
      const cpg = join(dist, 'cli', 'main.js');
      const one = await Member.join(node, 'named');
      await one.send('hello');
      const args = [cpg, 'tap', '--history', '--message', 'mcast', '--timeout', '1', '--pid', `${one.pid}`];
      const outside = await node.run(process.execPath, args);
      expect(outside.stdout).toMatch(/ > corosync\[1\] mcast named 5 bytes: hello/);
      expect(outside.stderr).toMatch(
        /qb-1-0-.*: pid 1 of its daemon is of another pid namespace, here it is \d+/,
      );
      // Here pid 1 is the tap, and the daemon is not to be seen.
      const unshare = ['--pid', '--fork', '--kill-child', '--mount-proc', process.execPath, ...args];
      const sibling = await node.run('unshare', unshare);
      expect(sibling.stdout).toMatch(/ > \[1\] mcast named 5 bytes: hello/);
      expect(sibling.stderr).toMatch(/qb-1-0-.*: its daemon \(pid 1\) is gone, or in another pid namespace/);
    });

    test('a pid that was given and is taken is refused, with advice', async () => {
      for (const group of ['given', 'given']) members.push(new Member(node, group, 1));
      const outcomes = await Promise.all(
        members.map((member) =>
          member.until(({ joined, code }) => joined !== undefined || code !== undefined),
        ),
      );
      expect(outcomes).toContainEqual({ joined: 1, process: 1 });
      expect(outcomes).toContainEqual({
        code: 'CS_ERR_EXIST',
        message: expect.stringMatching(/pid 1 .*another pid namespace.*option pid/) as string,
      });
    });
  }),
);

describeWithPeer(
  'siblings of the daemon, and libcpg',
  suite(() => {
    test('a libcpg program, which says that it is pid 1, beside ours', async () => {
      const peer = await startPeer(node.container, 'mixed');
      peers.push(peer);
      expect(peer.pid).toBe(1);
      const ours = [await Member.join(node, 'mixed'), await Member.join(node, 'mixed')];
      await peer.untilMembers(3);
      const pids = ours.map(({ pid }) => pid).sort((a, b) => a - b);
      expect(peer.members).toBe([1, ...pids].map((pid) => `1:${pid}`).join());
      await ours[0]!.send('ours');
      peer.send('theirs');
      await peer.untilDelivered(2);
      expect(peer.deliveries.map(({ pid }) => pid)).toEqual([ours[0]!.pid, 1]);
      for (const member of ours) {
        expect(await member.until(({ text }) => text === 'theirs')).toEqual({
          text: 'theirs',
          from: 1,
          own: false,
        });
      }
      await peer.quit();
      expect(await ours[1]!.until(({ left }) => left?.length === 1)).toEqual({ members: pids, left: [1] });
    });
  }),
);
