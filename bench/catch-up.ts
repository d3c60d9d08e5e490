/**
 * A receiver that is blocked while others send, and then takes everything that waits for it.
 *
 *     catch-up GROUP COUNT WARMUP [--mapped] [--manual]
 *
 * It reports on standard error that it is ready, takes WARMUP messages, and blocks until it reads a line from standard
 * input. It prints one line of JSON, as libcpg.c does.
 */
import { readSync } from 'node:fs';
import { connect } from '../src';
import { numberOf } from '../src/bench/member';

async function main(): Promise<void> {
  const [group = '', count = '', warmup = '', ...options] = process.argv.slice(2);
  const manual = options.includes('--manual');
  const client = await connect({
    mapped: options.includes('--mapped'),
    dispatch: manual ? 'manual' : 'auto',
  });
  let received = 0;
  let wrong = 0;
  let awaited = Infinity;
  let onAwaited = (): void => undefined;
  client.on('deliver', ({ message }) => {
    if (numberOf(message) !== received) wrong++;
    if (++received === awaited) onAwaited();
  });
  const untilReceived = async (all: number): Promise<void> => {
    while (manual && received < all) {
      await client.dispatch('one');
      await client.dispatch('all');
    }
    if (received >= all) return;
    awaited = all;
    await new Promise<void>((resolve) => (onAwaited = resolve));
  };
  await client.join(group);
  process.stderr.write('ready\n');
  await untilReceived(Number(warmup));
  readSync(0, Buffer.alloc(1));
  const begin = performance.now();
  const cpu = process.cpuUsage();
  const before = received;
  const all = Number(warmup) + Number(count);
  await untilReceived(all);
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const waiting = all - before;
  const microsPerMessage = (seconds * 1e6) / waiting;
  const cpuMicrosPerMessage = (user + system) / waiting;
  const result = { received, wrong, seconds, cpuMicrosPerMessage, waiting, microsPerMessage };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  await client.close();
}

main().catch((error: unknown) => {
  process.stderr.write(`catch-up: ${String(error)}\n`);
  process.exitCode = 1;
});
