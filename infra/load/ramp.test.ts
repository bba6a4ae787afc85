import fc from 'fast-check';
import { figuresOf } from './figures';
import { capacityOf, faultOf, nextRate, unendedOf } from './ramp';

/** Tries rates against a service that bears so many requests a second. */
function search(capacity: number, range: { from: number; most: number }) {
  const stages: { rate: number; borne: boolean }[] = [];
  for (let rate = nextRate(stages, range); rate !== undefined; rate = nextRate(stages, range)) {
    stages.push({ rate, borne: rate <= capacity });
    if (stages.length > 100) throw new Error('it does not end');
  }
  return stages;
}

it('finds what a service bears to a tenth, and never asks for more than it may', () => {
  const rates = fc.integer({ min: 1, max: 20_000 });
  fc.assert(
    fc.property(rates, rates, rates, (capacity, from, most) => {
      const stages = search(capacity, { from, most });
      expect(Math.max(...stages.map(({ rate }) => rate))).toBeLessThanOrEqual(most);
      const found = capacityOf(stages, 1)!;
      expect(found).toBeLessThanOrEqual(capacity);
      // Whole numbers lie further apart than a tenth where they are small.
      expect(found * 1.1 + 1).toBeGreaterThanOrEqual(Math.min(capacity, most));
    }),
  );
});

it('a service that bears nothing has no capacity', () => {
  const stages = search(0, { from: 25, most: 100 });
  expect(stages.map(({ rate }) => rate)).toEqual([25, 12, 6, 3, 1]);
  expect(capacityOf(stages, 2)).toBeUndefined();
});

it('divides by the containers, rounded down', () => {
  expect(capacityOf([{ rate: 100, borne: true }], 3)).toBe(33.3);
  expect(capacityOf([{ rate: 100, borne: true }], 0)).toBeUndefined();
});

const stage = (failed: number, latencyMs: number, lagMs = 0) => ({
  ...{ rate: 100, lagMs, unended: 0 },
  figures: figuresOf(
    Array.from({ length: 1_000 }, (_, index) => ({
      ...{ id: '', what: '', dueAt: index, latencyMs, lagMs, status: 200, fresh: false },
      ...(index < failed && { failure: '503' }),
    })),
  ),
});

it('a rate is borne while 95 % come in 200 ms and less than 1 % fail', () => {
  expect(faultOf(stage(9, 199))).toBeUndefined();
  expect(faultOf(stage(10, 199))).toBe('1.0 % failed');
  expect(faultOf(stage(0, 200))).toBe('p95 200 ms at 100/s');
  expect(faultOf(stage(0, 300, 120))).toBe(
    'p95 300 ms at 100/s (the generator itself was up to 120 ms late: this machine is full)',
  );
  expect(faultOf({ rate: 1, lagMs: 0, unended: 0, figures: figuresOf([]) })).toBe('nothing was asked');
});

it('a rate is not borne while nobody knows how its requests end', () => {
  expect(faultOf({ ...stage(0, 10), unended: 3 })).toBe('3 requests have not ended');
  // 100 a second for ten seconds.
  const span = [50_000, 60_000] as const;
  expect(unendedOf(100, span, 60_001, 1_000)).toBe(0);
  expect(unendedOf(100, span, 60_001, 990)).toBe(0);
  expect(unendedOf(100, span, 60_001, 700)).toBe(290);
  expect(unendedOf(100, span, 59_999, 999)).toBe(1);
  expect(unendedOf(100, span, 51_000, 1_000)).toBe(1);
  expect(unendedOf(100, span, 51_000, 100)).toBe(900);
});
