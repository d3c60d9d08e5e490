/** The send queue in isolation. */
import { MAX_QUEUED_BYTES, Outbox, type Job } from '../../src/session/outbox';
import { cpgError, thrownBy } from '../support/errors';

const nothing = (): void => undefined;

class TestJob implements Job {
  readonly done = Promise.resolve();
  cancelled = false;
  failure: Error | undefined;
  ready = false;
  constructor(
    readonly bytes: number,
    readonly name = '',
    readonly log: string[] = [],
    readonly hasDeadline = false,
  ) {}

  advance(): boolean {
    if (this.ready) this.log.push(this.name);
    return this.ready;
  }

  fail(error: Error): void {
    this.failure = error;
  }
}

function queued(outbox: Outbox, names: string, log: string[]): TestJob[] {
  return names.split(' ').map((name) => {
    const job = new TestJob(1, name, log);
    outbox.add(job);
    return job;
  });
}

test('a blocked job blocks those after it', () => {
  const log: string[] = [];
  const outbox = new Outbox(nothing);
  const [a, b, c] = queued(outbox, 'a b c', log);
  b!.ready = true;
  c!.ready = true;
  outbox.drain();
  expect(log).toEqual([]);
  expect(outbox.empty).toBe(false);
  a!.ready = true;
  outbox.drain();
  expect(log).toEqual(['a', 'b', 'c']);
  expect(outbox.empty).toBe(true);
});

test('a cancelled job is skipped', () => {
  const log: string[] = [];
  const outbox = new Outbox(nothing);
  const [a, b] = queued(outbox, 'a b', log);
  a!.cancelled = true;
  b!.ready = true;
  outbox.drain();
  expect(log).toEqual(['b']);
});

test('a job that can be sent immediately does not wait', () => {
  const log: string[] = [];
  const outbox = new Outbox(nothing);
  const job = new TestJob(1, 'a', log);
  job.ready = true;
  outbox.add(job);
  expect(log).toEqual(['a']);
});

test('a job added while another is sent goes to the end of the queue', () => {
  const log: string[] = [];
  const outbox = new Outbox(nothing);
  const [a, b] = queued(outbox, 'a b', log);
  const late = new TestJob(1, 'late', log);
  late.ready = true;
  b!.ready = true;
  const advance = a!.advance.bind(a);
  a!.advance = () => {
    if (a!.ready) outbox.add(late);
    return advance();
  };
  a!.ready = true;
  outbox.drain();
  expect(log).toEqual(['a', 'b', 'late']);
});

test('thousands of jobs keep their order', () => {
  const log: string[] = [];
  const outbox = new Outbox(nothing);
  const jobs = Array.from({ length: 5000 }, (_, index) => new TestJob(1, `${index}`, log));
  for (const job of jobs) outbox.add(job);
  for (const [index, job] of jobs.entries()) {
    job.ready = true;
    if (index % 3 === 0) outbox.drain();
  }
  outbox.drain();
  expect(log).toEqual(jobs.map(({ name }) => name));
});

describe('the bound', () => {
  test.each([0, 1000, 1024 * 1024])('of jobs of %i bytes', (bytes) => {
    const outbox = new Outbox(nothing);
    let added = 0;
    const { code } = thrownBy(() => {
      while (added < MAX_QUEUED_BYTES) {
        outbox.add(new TestJob(bytes));
        added++;
      }
    });
    expect(code).toBe('CS_ERR_TRY_AGAIN');
    // Each job also counts for what it takes itself.
    expect(added * (bytes + 100)).toBeLessThan(MAX_QUEUED_BYTES);
    expect(added * (bytes + 1000)).toBeGreaterThan(MAX_QUEUED_BYTES - bytes);
  });

  test('accounts for sent, cancelled and failed jobs', () => {
    const outbox = new Outbox(nothing);
    const half = MAX_QUEUED_BYTES / 2 - 1000;
    const add = (): TestJob => {
      const job = new TestJob(half);
      outbox.add(job);
      return job;
    };
    const [a, b] = [add(), add()];
    expect(thrownBy(add)).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
    a.ready = true;
    outbox.drain();
    const c = add();
    expect(thrownBy(add)).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
    b.cancelled = true;
    outbox.drain();
    const d = add();
    expect(thrownBy(add)).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
    const error = new Error('of the test');
    outbox.failMessages(error);
    expect([c.failure, d.failure]).toEqual([error, error]);
    add();
    add();
    outbox.failAll(error);
    add();
    add();
    expect(thrownBy(add)).toMatchObject(cpgError('CS_ERR_TRY_AGAIN'));
  });

  test('failing messages keeps jobs with a deadline', () => {
    const log: string[] = [];
    const outbox = new Outbox(nothing);
    const message = new TestJob(1, 'message', log);
    const request = new TestJob(1, 'request', log, true);
    outbox.add(message);
    outbox.add(request);
    outbox.failMessages(new Error('of the test'));
    expect(message.failure).toBeDefined();
    expect(request.failure).toBeUndefined();
    request.ready = true;
    outbox.drain();
    expect(log).toEqual(['request']);
  });
});
