/**
 * What a caller may give, and what is said when it is something else. A call describes its arguments and options with the
 * kinds below; what does not fit is CS_ERR_INVALID_PARAM with the call, the value, and what is expected.
 *
 * Kinds look at what a value is, as Node's own API does, and not at who made it: bytes, signals and errors also come
 * from other realms (vm contexts, test runners), and there `instanceof` says no.
 */
import { inspect, types } from 'node:util';
import { CpgError, isCpgError } from './errors';

export interface Kind<T> {
  /** Completes "give ...". */
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
  /** For the compiler alone: what an accepted value is. */
  readonly type?: T;
}

/** A kind for every option there is; an option without one is unknown. */
export type OptionKinds<Options> = {
  readonly [Name in keyof Options]-?: Kind<Exclude<Options[Name], undefined>>;
};

/** Returns `value`, or throws when it is of another kind. `name` is the argument's or the option's. */
export function check<T>(call: string, name: string, value: unknown, kind: Kind<T>): T {
  if (!kind.accepts(value)) throw invalid(call, name, value, kind.expected);
  return value as T;
}

/** The one error for a value that a call cannot take. */
export function invalid(call: string, name: string, value: unknown, expected: string): CpgError {
  return new CpgError('CS_ERR_INVALID_PARAM', `${call}: ${name} is ${shown(value)}`, {
    reason: 'bad-argument',
    remedy: `give ${expected}`,
  });
}

/** The options that were given, each read once and checked; undefined is the same as not given. */
export function readOptions<Options extends object>(
  call: string,
  given: Options | undefined,
  kinds: OptionKinds<Options>,
): Partial<Options> {
  const read: Record<string, unknown> = {};
  if (given === undefined) return read as Partial<Options>;
  const known = Object.keys(kinds);
  if (!isObject(given)) throw invalid(call, 'options', given, `an object with any of ${known.join(', ')}`);
  const values = given as Readonly<Record<string, unknown>>;
  for (const name of Object.keys(values)) {
    if (!Object.hasOwn(kinds, name)) throw unknownOption(call, name, values[name], known);
  }
  for (const [name, kind] of Object.entries<Kind<unknown>>(kinds)) {
    const value = values[name];
    if (value !== undefined) read[name] = check(call, name, value, kind);
  }
  return read as Partial<Options>;
}

/** Runs `work`, which knows what is wrong but not which call it is part of. */
export function inCall<T>(call: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!isCpgError(error)) throw error;
    const { code, what, reason, remedy, cause } = error;
    throw new CpgError(code, `${call}: ${what}`, { reason, remedy, cause });
  }
}

const MAX_SHOWN = 80;

/** A value as people write it, on one line and not too long. */
export function shown(value: unknown): string {
  const text = inspect(value, {
    depth: 1,
    maxArrayLength: 8,
    maxStringLength: MAX_SHOWN,
    breakLength: Infinity,
  });
  const line = text.replace(/\s*\n\s*/g, ' ');
  return line.length > MAX_SHOWN ? `${line.slice(0, MAX_SHOWN - 3)}...` : line;
}

// ---- kinds -------------------------------------------------------------------------------------------------

export function kind<T>(expected: string, accepts: (value: unknown) => boolean): Kind<T> {
  return { expected, accepts };
}

export const string = kind<string>('a string', (value) => typeof value === 'string');
export const boolean = kind<boolean>('true or false', (value) => typeof value === 'boolean');
export const uint8Array: Kind<Uint8Array> = kind('bytes: a Uint8Array', types.isUint8Array);
export const plainObject = kind<object>('an object', isObject);
// Of any function type, since nobody can see what it takes.
export const callback = kind<never>('a function', (value) => typeof value === 'function');

/** As Node sees it, and with what is used of it. */
export const abortSignal = kind<AbortSignal>(
  'an AbortSignal',
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    'aborted' in value &&
    isFunction(value, 'addEventListener') &&
    isFunction(value, 'removeEventListener'),
);

/** A number from `min` to `max`, also a broken one. */
export function number(min: number, max: number, unit = ''): Kind<number> {
  const expected = `a number from ${min} to ${max}${unit === '' ? '' : ` ${unit}`}`;
  return kind(expected, (value) => typeof value === 'number' && value >= min && value <= max);
}

/** A whole number from `min` to `max`. */
export function whole(min: number, max = Number.MAX_SAFE_INTEGER): Kind<number> {
  return kind(
    `a whole number from ${min} to ${max}`,
    (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
  );
}

export const uint32 = whole(0, 0xffffffff);
/** A nodeid, or a pid: corosync has no node 0, and the system no process 0. */
export const id = whole(1, 0xffffffff);

export function oneOf<Choice extends string | number | boolean>(...choices: readonly Choice[]): Kind<Choice> {
  return kind(`one of ${choices.map((choice) => inspect(choice)).join(', ')}`, (value) =>
    choices.includes(value as Choice),
  );
}

export function listOf<T>(expected: string, { accepts }: Kind<T>): Kind<T[]> {
  return kind(expected, (value) => Array.isArray(value) && allAre(value, accepts));
}

/** Sees the holes of an array, too, which every() passes over. */
export function allAre(list: readonly unknown[], accepts: (value: unknown) => boolean): boolean {
  for (const value of list) if (!accepts(value)) return false;
  return true;
}

export function isFunction(value: object, name: string | symbol): boolean {
  return typeof (value as Record<string | symbol, unknown>)[name] === 'function';
}

/** An object that is nothing special: no array, promise, signal, bytes ... */
function isObject(value: unknown): value is object {
  return Object.prototype.toString.call(value) === '[object Object]';
}

// ---- unknown options ---------------------------------------------------------------------------------------

function unknownOption(call: string, name: string, value: unknown, known: readonly string[]): CpgError {
  const near = nearest(name, known);
  const question = near === undefined ? '' : `did you mean ${near}? `;
  return new CpgError(
    'CS_ERR_INVALID_PARAM',
    `${call}: there is no option ${shown(name)} (its value is ${shown(value)})`,
    { reason: 'bad-argument', remedy: `${question}give any of ${known.join(', ')}` },
  );
}

/** The one that `name` may have been meant to be: hardly different, or what it begins. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const given = name.toLowerCase();
  return (
    known.find((other) => resemble(given, other.toLowerCase())) ??
    known.find((other) => given.length > 2 && other.toLowerCase().startsWith(given))
  );
}

/** Equal but for two letters in one place: missing, too many, others, or exchanged. */
function resemble(one: string, other: string): boolean {
  const shortest = Math.min(one.length, other.length);
  let start = 0;
  while (start < shortest && one[start] === other[start]) start++;
  let end = 0;
  while (end < shortest - start && one.at(-1 - end) === other.at(-1 - end)) end++;
  return start + end > 0 && Math.max(one.length, other.length) - start - end <= 2;
}
