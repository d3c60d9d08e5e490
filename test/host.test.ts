/** The library's effects on its process: none that outlast it, and none without a request. */
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { builtCli } from './cli/harness';

const DIST = JSON.stringify(dirname(dirname(builtCli())));

/** Runs `body` with the library in a separate process and returns its `report`. */
function inProcess(body: string): Record<string, unknown> {
  const script = `
    const { EventEmitter, getEventListeners, getMaxListeners } = require('node:events');
    const host = () => ({
      listeners: Object.fromEntries(
        process.eventNames().map((name) => [String(name), process.listenerCount(name)]),
      ),
      globals: Object.getOwnPropertyNames(globalThis),
      prototypes: [Object, Array, Promise, Buffer, Uint8Array, EventEmitter, AbortSignal].map((made) =>
        Reflect.ownKeys(made.prototype).map(String),
      ),
      limits: [Buffer.poolSize, EventEmitter.defaultMaxListeners, Error.stackTraceLimit],
      system: [process.cwd(), process.umask(), require('node:os').getPriority(), process.title],
      env: { ...process.env },
    });
    const report = {};
    (async () => {
      ${body}
      console.log(JSON.stringify(report));
    })();`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as Record<string, unknown>;
}

test('a server, clients and a tap do not change the process, and let it exit', () => {
  const { before, during, after, resources } = inProcess(`
    report.before = host();
    const { connect } = require(${DIST});
    const { SimulatedCluster } = require(${DIST} + '/server');
    const { Tap } = require(${DIST} + '/tap');
    require(${DIST} + '/codec');
    const cluster = await SimulatedCluster.start({ nodes: 2 });
    const clients = [];
    for (const options of [{}, { lend: true }, { busyPollUs: 100 }])
      clients.push(await connect({ address: cluster.node(1).address, ...options }));
    const stop = new AbortController();
    const tapped = (async () => {
      for await (const batch of new Tap({ signal: stop.signal }).batches()) void batch;
    })();
    for (const client of clients) {
      await client.join('g');
      await client.mcast(Buffer.alloc(40_000), { confirm: true });
      await client.mcast(Buffer.alloc(2_000_000), { confirm: true });
    }
    report.during = host();
    stop.abort();
    await tapped;
    for (const client of clients) await client.close();
    await cluster.stop();
    await new Promise(setImmediate);
    report.after = host();
    report.resources = process.getActiveResourcesInfo().filter((name) => /Timeout|Immediate/.test(name));
  `);
  expect(after).toEqual(before);
  // To remove files, one listener for the clients and one for the servers.
  const { listeners } = before as { listeners: object };
  expect(during).toEqual({ ...(before as object), listeners: { ...listeners, exit: 2 } });
  expect(resources).toEqual([]);
});

test('no memory is used beyond what messages need', () => {
  const { largest } = inProcess(`
    report.largest = 0;
    for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow']) {
      const allocate = Buffer[name];
      Buffer[name] = (size, ...fill) => {
        report.largest = Math.max(report.largest, size);
        return allocate(size, ...fill);
      };
    }
    const { startServer } = require(${DIST} + '/server');
    const server = await startServer();
    const client = await server.connect();
    await client.join('g');
    for (const bytes of [100, 8_000, 40_000, 300_000])
      for (let count = 0; count < 10; count++) await client.mcast(Buffer.alloc(bytes), { confirm: true });
    await server.close();
  `);
  expect(largest).toBeLessThanOrEqual(512 * 1024);
});

test('many calls with one signal share one listener, change no limit, and cause no warning', () => {
  const during = { listeners: 1, limit: 10 };
  expect(
    inProcess(`
      const warnings = (report.warnings = []);
      process.on('warning', (warning) => warnings.push(warning.name));
      const { startServer } = require(${DIST} + '/server');
      const server = await startServer();
      const client = await server.connect();
      await client.join('g');
      const controller = new AbortController();
      const { signal } = controller;
      const seen = () => ({ listeners: getEventListeners(signal, 'abort').length, limit: getMaxListeners(signal) });
      const many = (call, length) => Promise.allSettled(Array.from({ length }, call));
      const calls = {
        queries: () => client.localNodeId({ signal }),
        messages: () => client.mcast('m', { signal }),
        confirmed: () => client.mcast('m', { signal, confirm: true }),
        connecting: () => server.connect({ signal }).then((other) => other.close()),
      };
      for (const [name, call] of Object.entries(calls)) {
        const settled = many(call, name === 'connecting' ? 20 : 1000);
        report[name] = seen();
        const failed = (await settled).find(({ status }) => status === 'rejected');
        if (failed !== undefined) throw failed.reason;
      }
      report.between = seen();
      const aborted = many(calls.queries, 1000);
      controller.abort();
      const reasons = (await aborted).flatMap(({ status, reason }) => (status === 'rejected' ? [reason] : []));
      // The reply to the first one may be there.
      report.aborted = reasons.length >= 999 && reasons.every((reason) => reason === signal.reason);
      report.afterwards = seen();
      await server.close();
      // Warnings are emitted on a later turn.
      await new Promise(setImmediate);
    `),
  ).toEqual({
    queries: during,
    messages: during,
    confirmed: during,
    connecting: during,
    between: { ...during, listeners: 0 },
    afterwards: { ...during, listeners: 0 },
    aborted: true,
    warnings: [],
  });
});

test('a listener that throws on every message warns ten times, and the last warning says so', () => {
  const { warnings, delivered } = inProcess(`
    const warnings = (report.warnings = []);
    process.removeAllListeners('warning');
    process.on('warning', ({ message }) => warnings.push(message));
    const { startServer } = require(${DIST} + '/server');
    const server = await startServer();
    const client = await server.connect();
    await client.join('g');
    report.delivered = 0;
    client.on('deliver', () => {
      report.delivered++;
      throw new Error('of the test');
    });
    for (let count = 0; count < 100; count++) await client.mcast('m', { confirm: true });
    await server.close();
    await new Promise(setImmediate);
  `);
  const last = "of the test (the last warning of this client: listen to 'error')";
  expect(warnings).toEqual([...Array<string>(9).fill('of the test'), last]);
  expect(delivered).toBe(100);
});

test('a server handles process signals only on request, until the last one is closed', () => {
  const none = { SIGHUP: 0, SIGINT: 0, SIGTERM: 0 };
  const one = { SIGHUP: 1, SIGINT: 1, SIGTERM: 1 };
  expect(
    inProcess(`
      const { startServer, SimulatedCluster } = require(${DIST} + '/server');
      const signals = () => Object.fromEntries(
        ['SIGHUP', 'SIGINT', 'SIGTERM'].map((name) => [name, process.listenerCount(name)]),
      );
      const silent = await startServer();
      report.notAsked = signals();
      const server = await startServer({ handleSignals: true });
      const cluster = await SimulatedCluster.start({ nodes: 2, handleSignals: true });
      report.asked = signals();
      await server.close();
      await server.close();
      report.oneLeft = signals();
      await cluster.stop();
      report.closed = signals();
      await startServer({ address: silent.address, handleSignals: true }).catch(({ code }) => (report.code = code));
      report.failed = signals();
      await silent.close();
    `),
  ).toEqual({ notAsked: none, asked: one, oneLeft: one, closed: none, failed: none, code: 'CS_ERR_EXIST' });
});
