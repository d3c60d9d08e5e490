/** The pid by which the members of a group know a handle: with the node id it must be unique in that group. */
import { randomInt } from 'node:crypto';
import { CpgError } from '../errors';

/** Real pids are below 2^22 on Linux, and below 2^31 a pid is positive for a program that takes it as an int. */
const DRAWN_ABOVE = 2 ** 22;
const DRAWN_BELOW = 2 ** 31;
/** A draw hits a taken pid once in about 2^31 for each member: eight in a row have another cause. */
const MAX_DRAWS = 8;

export class Identity {
  /** What a join announces; a refused join may change it if it was drawn. */
  pid: number;
  /** 0 when the pid was not ours to choose. */
  #draws: number;

  /**
   * `given` is the option `pid`, `seen` the pid under which the daemon sees us. It sees 0 when we run in a pid
   * namespace that is not below its own. Our own process.pid would not do then: it is 1 in most containers.
   */
  constructor(given: number | undefined, seen: number) {
    const drawn = given === undefined && seen === 0;
    this.#draws = drawn ? 1 : 0;
    this.pid = drawn ? draw() : (given ?? seen);
  }

  /** After CS_ERR_EXIST: true when another pid was drawn for another try. */
  redraw(): boolean {
    if (this.#draws === 0 || this.#draws >= MAX_DRAWS) return false;
    this.#draws++;
    this.pid = draw();
    return true;
  }

  /** CS_ERR_EXIST for the caller of join(). */
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
