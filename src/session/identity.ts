/** The pid by which group members know a handle; node id and pid together must be unique in the group. */
import { randomInt } from 'node:crypto';
import { CpgError } from '../errors';

/** Linux pids are below 2^22; below 2^31 a pid is positive in a C int. */
const DRAWN_ABOVE = 2 ** 22;
const DRAWN_BELOW = 2 ** 31;
/** A draw hits the pid of a given member about once in 2^31: eight hits in a row have another cause. */
const MAX_DRAWS = 8;

export class Identity {
  /** The pid a join announces; if drawn, a refused join may change it. */
  pid: number;
  /** 0 if the pid was not drawn. */
  #draws: number;

  /**
   * `given` is the option `pid`, `seen` the pid under which the daemon sees us: 0 if our pid namespace is not below its
   * own. Our process.pid is no substitute: it is 1 in most containers.
   */
  constructor(given: number | undefined, seen: number) {
    const drawn = given === undefined && seen === 0;
    this.#draws = drawn ? 1 : 0;
    this.pid = drawn ? draw() : (given ?? seen);
  }

  /** After CS_ERR_EXIST: draws another pid if it may; true means join again. */
  redraw(): boolean {
    if (this.#draws === 0 || this.#draws >= MAX_DRAWS) return false;
    this.#draws++;
    this.pid = draw();
    return true;
  }

  /** The CS_ERR_EXIST that join() rejects with. */
  refusal(cause: CpgError): CpgError {
    const what =
      this.#draws === 0
        ? `join: pid ${this.pid} is in this group already`
        : `join: each of ${this.#draws} pids drawn at random is in this group already`;
    return new CpgError('CS_ERR_EXIST', what, {
      cause,
      reason: 'pid-taken',
      remedy:
        this.#draws === 0
          ? 'another handle of this process may have it, or a process with the same pid in another pid namespace; give connect() another pid (option pid)'
          : 'give connect() a pid that is free in this group (option pid)',
    });
  }
}

function draw(): number {
  return randomInt(DRAWN_ABOVE + 1, DRAWN_BELOW);
}
