/**
 * What scenarios are written in: actors are raw clients with names, and everything they are told goes into
 * the transcript.
 *
 * A step ends when all its consequences have arrived. To know that without waiting for time to pass, every
 * node has one more client, a prompter, in a group of its own: when each prompter has heard all others, every
 * node has delivered whatever was sent before. Prompters and their group are left out of the transcript.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { encodeRequest, FragmentType, Guarantee, IterationType, RequestId } from '../../src/codec/requests';
import type { CpgRequest } from '../../src/codec/requests';
import { decodeResponse } from '../../src/codec/responses';
import { CS_OK, codeOf } from '../../src/errors';
import type { Environment } from './environment';
import { RawClient } from './raw-client';
import { RingNames, showEvent, showReply, type Step } from './transcript';

const PROMPTERS = 'prompters';
/** Pids of prompters: no actor has one so high, so they stand last. */
const PROMPTER_PID = 4_000_000;
const PATIENCE_MS = 20_000;
const SETTLE_MS = 5;
/** How long a reply of "try again" is asked again: a ring may be forming, or a leave be on its way. */
const RETRY_MS = 10;

const TRY_AGAIN = 'CS_ERR_TRY_AGAIN';

export interface ActorOptions {
  group?: string | Uint8Array;
  flags?: number;
}

export class Stage {
  readonly steps: Step[] = [];
  readonly #environment: Environment;
  readonly #actors = new Map<string, Actor>();
  readonly #prompters = new Map<number, Prompter>();
  readonly #rings = new RingNames();
  #round = 0;
  #current: Step | undefined;

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  get environment(): Environment {
    return this.#environment;
  }

  /** Runs a part of the scenario and records it. */
  async step(name: string, body: () => Promise<void>): Promise<void> {
    const step: Step = { step: name, replies: [], events: {} };
    this.#current = step;
    await body();
    await this.#quiet();
    for (const [actor, { client }] of this.#actors) {
      const lines = client
        .takeEvents()
        .filter((event) => !('group' in event) || Buffer.from(event.group).toString() !== PROMPTERS)
        .map((event) => showEvent(event, this.#rings));
      if (client.lost) lines.push('connection lost');
      if (lines.length > 0) step.events[actor] = lines;
      if (client.lost) this.#actors.delete(actor);
    }
    this.steps.push(step);
    this.#current = undefined;
  }

  /** A new client of a node. */
  async enter(name: string, nodeId: number): Promise<Actor> {
    const client = await RawClient.connect(this.#environment.address(nodeId));
    const actor = new Actor(name, nodeId, client, (line) => this.note(line));
    this.#actors.set(name, actor);
    return actor;
  }

  /** Ends a client without a word; resolves when its daemon has noticed. */
  async kill(actor: Actor): Promise<void> {
    this.#actors.delete(actor.name);
    await actor.client.kill();
    await pause(this.#environment.hangUpMs);
  }

  note(line: string): void {
    this.#current?.replies.push(line);
  }

  async close(): Promise<void> {
    for (const { client } of [...this.#actors.values(), ...this.#prompters.values()]) await client.kill();
    this.#actors.clear();
    this.#prompters.clear();
  }

  async #quiet(): Promise<void> {
    // Each answer says that the daemon has taken all that this client sent.
    for (const { client } of this.#actors.values()) {
      if (!client.lost) await client.request(encodeRequest({ type: 'localGet' })).catch(() => undefined);
    }
    for (const [nodeId, prompter] of this.#prompters) {
      if (prompter.client.lost || !this.#environment.isRunning(nodeId)) this.#prompters.delete(nodeId);
    }
    for (const nodeId of this.#environment.nodeIds) {
      if (this.#environment.isRunning(nodeId) && !this.#prompters.has(nodeId)) {
        this.#prompters.set(nodeId, await Prompter.start(this.#environment.address(nodeId), nodeId));
      }
    }
    const prompters = [...this.#prompters.values()];
    const round = ++this.#round;
    const deadline = Date.now() + PATIENCE_MS;
    while (!prompters.every((prompter) => prompter.heardAll(round))) {
      if (Date.now() > deadline) throw new Error('the nodes do not come to rest');
      // Again and again, because a daemon that forms a ring loses messages.
      for (const prompter of prompters) await prompter.call(round);
      for (let wait = 0; wait < 20 && !prompters.every((prompter) => prompter.heardAll(round)); wait++) {
        await pause(SETTLE_MS);
      }
    }
    await pause(SETTLE_MS);
  }
}

class Prompter {
  readonly #heard = new Map<number, number>();
  #members: number[] = [];

  private constructor(
    readonly nodeId: number,
    readonly client: RawClient,
  ) {}

  static async start(address: string, nodeId: number): Promise<Prompter> {
    const prompter = new Prompter(nodeId, await RawClient.connect(address));
    const join = encodeRequest({ type: 'join', group: Buffer.from(PROMPTERS), pid: PROMPTER_PID, flags: 0 });
    while (codeOf(decodeResponse(await prompter.client.request(join)).error) === TRY_AGAIN)
      await pause(RETRY_MS);
    return prompter;
  }

  async call(round: number): Promise<void> {
    const message = Buffer.from(JSON.stringify({ round, nodeId: this.nodeId }));
    await this.client.send(encodeRequest({ type: 'mcast', guarantee: Guarantee.AGREED, message }));
  }

  /** Whether every prompter that this one sees has called in this round. */
  heardAll(round: number): boolean {
    for (const event of this.client.takeEvents()) {
      if (event.type === 'confchg') this.#members = event.members.map(({ nodeId }) => nodeId);
      if (event.type !== 'deliver') continue;
      const call = JSON.parse(Buffer.from(event.message).toString()) as { round: number; nodeId: number };
      this.#heard.set(call.nodeId, call.round);
    }
    return (
      this.#members.includes(this.nodeId) &&
      this.#members.every((nodeId) => this.#heard.get(nodeId) === round)
    );
  }
}

/** One client of the play. Each request is noted with its reply. */
export class Actor {
  constructor(
    readonly name: string,
    readonly nodeId: number,
    readonly client: RawClient,
    private readonly note: (line: string) => void,
  ) {}

  join(group: string | Uint8Array, pid: number, flags = 0): Promise<void> {
    return this.ask({ type: 'join', group: Buffer.from(group), pid, flags });
  }

  /** Asked again while the join is still on its way. */
  leave(group: string | Uint8Array, pid: number): Promise<void> {
    return this.ask({ type: 'leave', group: Buffer.from(group), pid }, 'CS_ERR_BUSY');
  }

  async mcast(message: string | Uint8Array, guarantee: number = Guarantee.AGREED): Promise<void> {
    await this.client.send(encodeRequest({ type: 'mcast', guarantee, message: Buffer.from(message) }));
  }

  fragment(
    type: keyof typeof FragmentType,
    fragment: string | Uint8Array,
    messageLength: number,
    options: { retryInterrupt?: boolean } = {},
  ): Promise<void> {
    return this.ask(
      {
        type: 'partialMcast',
        guarantee: Guarantee.AGREED,
        messageLength,
        fragmentType: FragmentType[type],
        fragment: Buffer.from(fragment),
      },
      options.retryInterrupt === true ? 'CS_ERR_INTERRUPT' : undefined,
    );
  }

  membership(group: string | Uint8Array): Promise<void> {
    return this.ask({ type: 'membershipGet', group: Buffer.from(group) });
  }

  localNodeId(): Promise<void> {
    return this.ask({ type: 'localGet' });
  }

  finalize(): Promise<void> {
    return this.ask({ type: 'finalize' });
  }

  /** A whole iteration, to its end; rows of the prompters are left out. */
  iterate(type: keyof typeof IterationType, group: string | Uint8Array = ''): Promise<void> {
    return this.iterateKind(IterationType[type], group);
  }

  /** The same for any number. */
  async iterateKind(iterationType: number, group: string | Uint8Array): Promise<void> {
    const handle = await this.beginIterationKind(iterationType, group);
    while (await this.nextRow(handle));
    await this.endIteration(handle);
  }

  beginIteration(type: keyof typeof IterationType, group: string | Uint8Array = ''): Promise<bigint> {
    return this.beginIterationKind(IterationType[type], group);
  }

  async beginIterationKind(iterationType: number, group: string | Uint8Array): Promise<bigint> {
    const frame = encodeRequest({ type: 'iterationInitialize', group: Buffer.from(group), iterationType });
    const reply = await this.client.request(frame);
    const response = decodeResponse(reply);
    this.note(`${this.name} iterates kind ${iterationType}: ${showReply(reply)}`);
    return 'handle' in response ? response.handle : 0n;
  }

  /** False at the end, or for an error. */
  async nextRow(handle: bigint): Promise<boolean> {
    const reply = await this.client.request(encodeRequest({ type: 'iterationNext', handle }));
    const response = decodeResponse(reply);
    const isPrompters = 'group' in response && Buffer.from(response.group).toString() === PROMPTERS;
    if (!isPrompters) this.note(`${this.name} next: ${showReply(reply)}`);
    return response.error === CS_OK;
  }

  endIteration(handle: bigint): Promise<void> {
    return this.ask({ type: 'iterationFinalize', handle });
  }

  /** A frame of any content that has a reply. */
  async raw(what: string, frame: Buffer): Promise<void> {
    this.note(`${this.name} ${what}: ${showReply(await this.client.request(frame))}`);
  }

  /** Asks, again while the answer is to try again (or `also`), and notes the last answer. */
  async ask(request: CpgRequest, also?: string): Promise<void> {
    const frame = encodeRequest(request);
    for (;;) {
      const reply = await this.client.request(frame);
      const code = codeOf(decodeResponse(reply).error);
      if (code === TRY_AGAIN || code === also) {
        await pause(RETRY_MS);
        continue;
      }
      this.note(`${this.name} ${request.type}: ${showReply(reply)}`);
      return;
    }
  }
}

/** A join whose name is longer than a name can be, which encodeRequest() refuses. */
export function overlongName(request: CpgRequest & { group: Uint8Array }, length: number): Buffer {
  const frame = encodeRequest(request);
  frame.writeUInt32LE(length, 16);
  return frame;
}

export { RequestId };
