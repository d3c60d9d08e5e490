/** Commands on the standard input of cpg serve. */
import { PassThrough, Readable } from 'node:stream';
import { CliProcess, interrupted, startCli, type Finished } from './harness';

jest.setTimeout(60_000);

interface Served {
  say: (line: string) => void;
  /** Resolves when the whole of standard error matches. */
  answered: (pattern: RegExp) => Promise<void>;
  addresses: () => Promise<string[]>;
  end: () => Promise<Finished>;
}

let served: Served | undefined;
afterEach(async () => {
  await served?.end();
  served = undefined;
});

function serve(args: string[], stdin?: Readable, terminal = false): Served {
  const input = new PassThrough();
  const interrupt = new AbortController();
  const running = startCli(['serve', ...args], {
    stdin: stdin ?? input,
    interrupt: interrupt.signal,
    terminal,
  });
  return (served = {
    say: (line) => input.write(`${line}\n`),
    answered: (pattern) => running.until(pattern, 'stderr'),
    addresses: async () => {
      await running.until(/\n/);
      interrupt.abort(interrupted());
      return (await running.finished).stdout.trimEnd().split('\n');
    },
    end: async () => {
      interrupt.abort(interrupted());
      return running.finished;
    },
  });
}

test('partition, heal, crash, restart and status', async () => {
  const { say, answered, end } = serve(['--nodes', '3']);
  say('partition 1 / 2,3');
  await answered(/^network: 1 \/ 2,3\n$/);
  say('status');
  await answered(
    /node 1: 0 clients, \/.*\nnode 2: 0 clients, \/.*\nnode 3: .*\nnetwork: 1 \/ 2,3\nno groups\n$/,
  );
  say('heal');
  await answered(/network: 1,2,3\n$/);
  say('crash 2');
  await answered(/node 2 crashed\n$/);
  say('status');
  await answered(/node 2: does not run, .*\n.*\nnetwork: 1,3\nno groups\n$/);
  say('restart 2');
  await answered(/node 2 runs\n$/);
  say('  partition   3 ');
  await answered(/network: 1 \/ 2 \/ 3\n$/);
  const { code, stdout } = await end();
  expect(code).toBe(130);
  // Data is addresses alone.
  expect(stdout.trimEnd().split('\n')).toHaveLength(3);
});

test('status shows the groups of each side', async () => {
  const server = CliProcess.start(['serve', '--nodes', '2']);
  await server.until(/\n.*\n/);
  const addresses = server.stdout.trimEnd().split('\n');
  const members = addresses.map((address) =>
    CliProcess.start(['join', 'orders', '--stay', '--address', address]),
  );
  await Promise.all(members.map((member) => member.until(/\n/)));
  try {
    server.write('status\n');
    await server.until(/node 1: 1 client, .*\n.*\nnetwork: 1,2\ngroup orders: 1\.\d+ 2\.\d+\n$/, 'stderr');
    server.write('partition 1/2\nstatus\n');
    await server.until(/network: 1 \/ 2\ngroup orders on 1: 1\.\d+\ngroup orders on 2: 2\.\d+\n$/, 'stderr');
    server.write('crash 1\nstatus\n');
    await server.until(/network: 2\ngroup orders: 2\.\d+\n$/, 'stderr');
  } finally {
    server.child.kill('SIGINT');
    await server.done();
    await Promise.all(members.map((member) => member.done()));
  }
});

test.each([
  [
    'frobnicate',
    /^cpg: 'frobnicate' is not a command; try: partition, heal, crash, restart, status, help\n$/,
  ],
  ['constructor', /^cpg: 'constructor' is not a command/],
  ['\u001b[31mred', /^cpg: '\\\S+\[31mred' is not a command/],
  ['crash', /^cpg: a node is missing; try: crash N\n$/],
  ['crash 4', /^cpg: '4' is none of the nodes 1, 2, 3; try: crash N\n$/],
  ['crash 1 2', /^cpg: '1 2' is none of the nodes 1, 2, 3; try: crash N\n$/],
  ['crash -1', /^cpg: '-1' is none of the nodes/],
  ['restart x', /^cpg: 'x' is none of the nodes 1, 2, 3; try: restart N\n$/],
  ['partition', /^cpg: a node is missing; try: partition 1 \/ 2,3\n$/],
  ['partition 1 / /', /^cpg: a node is missing; try: partition/],
  ['partition 1 / 1,2', /^cpg: node 1 is named twice; try: partition 1 \/ 2,3\n$/],
  ['partition 2,2', /^cpg: node 2 is named twice; try: partition/],
  ['restrat 1', /^cpg: 'restrat' is not a command; did you mean 'restart'\?; try: partition, heal, /],
  ['heal all', /^cpg: 'all' is too much; try: heal\n$/],
  ['status 1', /^cpg: '1' is too much; try: status\n$/],
  ['help', /^partition 1 \/ 2,3 {2}split the network.*\nheal .*\n/],
])('%j is answered', async (line, answer) => {
  const { say, answered } = serve(['--nodes', '3']);
  say('');
  say(line);
  await answered(answer);
  say('heal');
  await answered(/network: 1,2,3\n$/);
});

test('a node that does not run cannot crash', async () => {
  const { say, answered } = serve(['--nodes', '2']);
  say('crash 1');
  say('crash 1');
  await answered(/node 1 crashed\ncpg: node 1 does not run; try: crash N\n$/);
});

test.each([
  ['with a last newline', 'partition 1 / 2\n'],
  ['without one', 'partition 1 / 2'],
])('the end of input does not end the server: %s', async (_, input) => {
  const server = CliProcess.start(['serve', '--nodes', '2']);
  server.write(input);
  server.end();
  await server.until(/network: 1 \/ 2\n$/, 'stderr');
  const [address] = server.stdout.split('\n');
  const member = CliProcess.start(['join', 'g', '--address', address!], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  expect(await member.done()).toMatchObject({ code: 0 });
  server.child.kill('SIGTERM');
  expect(await server.done()).toMatchObject({ code: 143 });
});

test('input that cannot be read does not end it either', async () => {
  const { answered, addresses } = serve([], Readable.from([Buffer.alloc(100_000, 'x')]));
  await answered(/^cpg: .*CS_ERR_TOO_BIG/);
  expect(await addresses()).toHaveLength(1);
});

test('on a terminal it suggests next steps, but not with --json', async () => {
  const first = serve(['--nodes', '2'], undefined, true);
  await first.answered(
    /cpg join orders --address \/.*\n.*cpg join orders --address \/.*-2\n.*partition 1 \/ 2.*status/,
  );
  await first.end();
  const other = serve(['--json'], undefined, true);
  other.say('heal');
  await other.answered(/^network: 1\n$/);
});
