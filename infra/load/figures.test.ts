import fc from 'fast-check';
import { figuresOf, kindOf, kindsOf, lagOf, type Outcome, spanOf, timelineOf } from './figures';
import { quantile } from './quantile';

const outcome = (dueAt: number, more: Partial<Outcome> = {}): Outcome => ({
  ...{ id: 'load-1-0', what: 'GET /', dueAt, latencyMs: 10, lagMs: 0, status: 200, fresh: false },
  ...more,
});
const anyOutcome = fc
  .record({
    dueAt: fc.integer({ min: 0, max: 100_000 }),
    latencyMs: fc.integer({ min: 0, max: 20_000 }),
    bad: fc.boolean(),
  })
  .map(({ dueAt, latencyMs, bad }) => outcome(dueAt, { latencyMs, ...(bad && { status: 503, failure: '503 ' }) }));

it('percentiles lie between the least and the most, and rise', () => {
  const values = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1 });
  fc.assert(
    fc.property(values, (all) => {
      const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => quantile(all, share)) as [number, number, number];
      expect(p50).toBeGreaterThanOrEqual(Math.min(...all));
      expect(p95).toBeGreaterThanOrEqual(p50);
      expect(p99).toBeGreaterThanOrEqual(p95);
      expect(p99).toBeLessThanOrEqual(Math.max(...all));
    }),
  );
});

it('a request that waited for its turn counts with what it waited', () => {
  // The service stood still for a second; the ten requests of that second were answered right after it.
  const late = Array.from({ length: 10 }, (_, index) => outcome(index * 100, { latencyMs: 1_000 - index * 100 }));
  expect(figuresOf(late)).toMatchObject({ p50Ms: 550, maxMs: 1_000 });
});

it('every request is in one moment of the timeline, and moments without any are there too', () => {
  const step = fc.integer({ min: 1, max: 5_000 });
  fc.assert(
    fc.property(fc.array(anyOutcome), step, fc.integer({ min: 0, max: 100_000 }), (outcomes, stepMs, to) => {
      const timeline = timelineOf(outcomes, [0, to], stepMs);
      expect(timeline.map(({ at }) => at)).toEqual(
        Array.from({ length: Math.floor(to / stepMs) }, (_, i) => i * stepMs),
      );
      const end = timeline.length * stepMs;
      const within = outcomes.filter(({ dueAt }) => dueAt < end);
      expect(timeline.reduce((sum, { requests }) => sum + requests, 0)).toBe(within.length);
      expect(timeline.reduce((sum, { failed }) => sum + failed, 0)).toBe(
        within.filter(({ failure }) => failure !== undefined).length,
      );
    }),
  );
  expect(timelineOf([], [0, 1_000], 1_000)[0]).toMatchObject({ requests: 0, p95Ms: NaN });
});

it('latencies are those of answers; how soon a failure came is told apart', () => {
  const slow = outcome(0, { latencyMs: 2_000, status: 503, failure: '503 ' });
  expect(figuresOf([slow, outcome(1), outcome(2)])).toMatchObject({ p95Ms: 10, failed: 1, failedTwice: 1 });
  expect(figuresOf([slow]).anyP95Ms).toBe(2_000);
});

it('tells failures by their kind, the most frequent first', () => {
  const problem = (slug: string) => `503 {"title":"x","type":"urn:problem:${slug}","status":503}`;
  const failures = [problem('overloaded'), problem('db-unavailable'), problem('db-unavailable'), 'socket hang up'];
  expect(kindsOf([outcome(0), ...failures.map((failure) => outcome(0, { failure }))])).toEqual([
    { kind: '503 db-unavailable', count: 2 },
    { kind: '503 overloaded', count: 1 },
    { kind: 'socket hang up', count: 1 },
  ]);
  expect(kindOf('connect ECONNREFUSED 127.0.0.1:8443')).toBe('connect ECONNREFUSED the gateway');
});

it('knows the span of a load, and how late its generator was', () => {
  expect(spanOf([])).toBeUndefined();
  expect(spanOf([outcome(5), outcome(3), outcome(9)])).toEqual([3, 9]);
  expect(lagOf([outcome(0, { lagMs: 7 })])).toBe(7);
});
