/** Values from elsewhere: from another vm context (as in test runners), or from another package. */
import { once } from 'node:events';
import vm from 'node:vm';
import { connect, CpgError, isCpgError, type CpgClient } from '../src';
import { decodeRequest, encodeRequest, groupBytes } from '../src/codec';
import { startServer, type CpgServer } from '../src/server';

/** The result of a script in its own context. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the caller knows his script
const elsewhere = <T>(script: string): T => vm.runInNewContext(script) as T;

/** An AbortSignal of a package from before Node had them: no reason, no throwIfAborted(). */
class OldSignal {
  aborted = false;
  readonly #listeners = new Set<() => void>();
  addEventListener(_: string, listener: () => void): void {
    this.#listeners.add(listener);
  }
  removeEventListener(_: string, listener: () => void): void {
    this.#listeners.delete(listener);
  }
  get listeners(): number {
    return this.#listeners.size;
  }
  abort(): void {
    this.aborted = true;
    for (const listener of this.#listeners) listener();
  }
}
const asSignal = (signal: OldSignal): AbortSignal => signal as unknown as AbortSignal;
const aborted = { name: 'AbortError' };

let server: CpgServer;
let client: CpgClient;

beforeEach(async () => {
  server = await startServer();
  client = await server.connect();
});
afterEach(() => server.close());

const received = async (send: () => unknown): Promise<string> => {
  const delivered = once(client, 'deliver') as Promise<[{ message: Buffer }]>;
  await send();
  return (await delivered)[0].message.toString();
};

describe('bytes', () => {
  const abc = 'Uint8Array.of(97, 98, 99)';

  test('of another realm are a message, whole or in pieces', async () => {
    await client.join('g');
    expect(elsewhere(abc) instanceof Uint8Array).toBe(false);
    expect(await received(() => client.mcast(elsewhere<Uint8Array>(abc)))).toBe('abc');
    expect(await received(() => client.mcast(elsewhere<Uint8Array[]>(`[${abc}, ${abc}]`)))).toBe('abcabc');
    expect(await received(() => client.mcast(elsewhere<Uint8Array>(abc), { confirm: true }))).toBe('abc');
    expect(await received(() => client.tryMcast(elsewhere<Uint8Array>(abc)))).toBe('abc');
    const large = elsewhere<Uint8Array>('new Uint8Array(2_000_000).fill(97)');
    expect(await received(() => client.mcast(large))).toBe('a'.repeat(2_000_000));
  });

  test('of another realm are a group', async () => {
    await client.join(elsewhere<Uint8Array>(abc));
    expect(client.group).toBe('abc');
    expect(await client.membership(elsewhere<Uint8Array>(abc))).toHaveLength(1);
    await client.leave(elsewhere<Uint8Array>(abc));
  });

  test('may be in any view', async () => {
    await client.join('g');
    const memory = Buffer.from('..abcd..');
    const view = new DataView(memory.buffer, memory.byteOffset + 2, 4);
    const words = new Uint16Array(Uint8Array.from(Buffer.from('abcd')).buffer);
    expect(await received(() => client.mcast(view))).toBe('abcd');
    expect(await received(() => client.tryMcast(words))).toBe('abcd');
    expect(await received(() => client.mcast([view, Buffer.from('-'), words]))).toBe('abcd-abcd');
  });

  test('of another realm are encoded and decoded', () => {
    const group = groupBytes('g');
    const message = elsewhere<Uint8Array>(abc);
    const frame = encodeRequest({ type: 'mcast', guarantee: 2, message });
    const copy = elsewhere<Uint8Array>(`Uint8Array.of(${[...frame].join()})`);
    expect(decodeRequest(copy)).toEqual(decodeRequest(frame));
    expect(encodeRequest({ type: 'membershipGet', group })).toHaveLength(152);
  });
});

describe("signals with fewer features than Node's", () => {
  test('abort running calls, and calls that have not begun', async () => {
    const manual = await connect({ address: server.address, dispatch: 'manual' });
    await manual.join('h', { signal: asSignal(new OldSignal()) });
    const signal = new OldSignal();
    const sent = manual.mcast('m', { confirm: true, signal: asSignal(signal) });
    const dispatched = manual.dispatch('blocking', { signal: asSignal(signal) });
    signal.abort();
    await expect(sent).rejects.toMatchObject(aborted);
    await expect(dispatched).rejects.toMatchObject(aborted);
    const options = { signal: asSignal(signal) };
    await expect(manual.mcast('m', options)).rejects.toMatchObject(aborted);
    await expect(manual.membership('h', options)).rejects.toMatchObject(aborted);
    await expect(manual.localNodeId(options)).rejects.toMatchObject(aborted);
    await expect(manual.groups(options).next()).rejects.toMatchObject(aborted);
    await expect(manual.leave('h', options)).rejects.toMatchObject(aborted);
    await expect(client.join('h', options)).rejects.toMatchObject(aborted);
    await expect(connect({ address: server.address, ...options })).rejects.toMatchObject(aborted);
  });

  test('have one listener while calls wait, and none afterwards', async () => {
    await client.join('g');
    for (const ending of ['settled', 'aborted']) {
      const signal = new OldSignal();
      const options = { signal: asSignal(signal) };
      const calls = [1, 2, 3].flatMap(() => [
        client.localNodeId(options),
        client.mcast('m', options),
        client.mcast('m', { ...options, confirm: true }),
        client.mcast(Buffer.alloc(2_000_000), options),
      ]);
      expect(signal.listeners).toBe(1);
      if (ending === 'aborted') signal.abort();
      await Promise.allSettled(calls);
      expect(signal.listeners).toBe(0);
    }
  });
});

describe('errors', () => {
  test('of another realm, or of another copy of the package, are recognised', () => {
    const made = elsewhere<Error>(
      "Object.assign(new Error('x'), { name: 'CpgError', code: 'CS_ERR_BUSY', errno: 10 })",
    );
    expect(made instanceof Error).toBe(false);
    expect(isCpgError(made)).toBe(true);
    expect(isCpgError(new CpgError('CS_ERR_BUSY'))).toBe(true);
    expect(isCpgError({ name: 'CpgError', code: 'CS_ERR_BUSY', errno: 10 })).toBe(false);
  });

  test('thrown by listeners are reported unchanged, and so are other thrown values', async () => {
    for (const thrown of [
      elsewhere<Error>("new Error('x')"),
      new DOMException('x'),
      Object.create(null) as object,
    ]) {
      const listener = await server.connect();
      const reported = once(listener, 'error') as Promise<[Error]>;
      listener.once('confchg', () => {
        // eslint-disable-next-line @typescript-eslint/only-throw-error -- it is what this is about
        throw thrown;
      });
      await listener.join('g');
      const [error] = await reported;
      if ('message' in thrown) expect(error).toBe(thrown);
      else expect(error.message).toContain('null prototype');
      await listener.close();
    }
  });
});

describe('options', () => {
  test('that are undefined have their defaults', async () => {
    const one = await connect({
      address: server.address,
      timeoutMs: undefined,
      dispatch: undefined,
    });
    await one.join('g', { signal: undefined });
    await one.mcast('m', { guarantee: undefined, confirm: undefined });
    await one.close();
    const other = await startServer({ address: undefined, nodeId: undefined });
    expect(other.nodeId).toBe(1);
    await other.close();
  });

  test('may come from another realm, a prototype, or a getter, which is read once', async () => {
    let reads = 0;
    const options = Object.create({ address: server.address }) as object;
    Object.defineProperty(options, 'timeoutMs', {
      enumerable: true,
      get: () => (reads++ === 0 ? 5000 : NaN),
    });
    await (await connect(options)).close();
    expect(reads).toBe(1);
    await client.join('g', elsewhere<object>('({ initialTotemConfchg: true })'));
  });

  test('longer than any timer are accepted', async () => {
    await (await connect({ address: server.address, timeoutMs: Infinity })).close();
  });

  test.each([
    ['timeout', 'timeoutMs'],
    ['TimeoutMS', 'timeoutMs'],
    ['adress', 'address'],
    ['singal', 'signal'],
  ])('called %s: did you mean %s?', async (given, meant) => {
    await expect(connect({ [given]: 5 })).rejects.toThrow(`did you mean ${meant}?`);
  });

  test('that resemble no option get an error with the known ones', () => {
    expect(() => server.node.inject({ loss: 0.5 } as object)).toThrow(
      /no option 'loss' .*0.5.*: give any of drop, delayMs, tryAgain, refuse$/,
    );
  });
});
