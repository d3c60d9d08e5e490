/** Expectations about CpgError: users match on `code`, so do the tests. */
import { isCpgError, type CpgError, type CpgErrorCode } from '../../src/errors';

/** The CpgError that `action` throws; fails the test when it throws nothing, or anything else. */
export function thrownBy(action: () => unknown): CpgError {
  let result: unknown;
  try {
    result = action();
  } catch (error) {
    if (isCpgError(error)) return error;
    throw new Error(`not a CpgError: ${String(error)}`, { cause: error });
  }
  throw new Error(`nothing was thrown, but ${String(result)} returned`);
}

/** The CpgError that `promise` rejects with; fails the test when it resolves, or rejects otherwise. */
export async function rejectionOf(promise: Promise<unknown>): Promise<CpgError> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  return thrownBy(() => {
    if ('error' in outcome) throw outcome.error;
    return outcome.value;
  });
}

/** A matcher for the code and number of an error, for toMatchObject(). */
export function cpgError(code: CpgErrorCode): object {
  // Only `code`: the numbers are compared with those of C in test/codec/layout.test.ts.
  return { name: 'CpgError', code };
}
