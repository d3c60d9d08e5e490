/** Property tests whose run can be repeated: fast-check prints the seed of a failure, CPG_SEED takes it. */
import fc from 'fast-check';

/** fc.assert with the seed of CPG_SEED, if there is one. */
export function assertProperty<T extends unknown[]>(
  property: fc.IPropertyWithHooks<T> | fc.IAsyncPropertyWithHooks<T>,
  parameters: fc.Parameters<T> = {},
): Promise<void> {
  const seed = process.env['CPG_SEED'];
  return Promise.resolve(
    fc.assert(property, { ...parameters, ...(seed === undefined ? {} : { seed: Number(seed) }) }),
  );
}
