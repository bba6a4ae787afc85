import fc from 'fast-check';
import { figuresOf, type Outcome } from '../load/figures';
import { type Expectation, judge, type Observation, tooMuch, unsteady } from './verdict';

const STEADY = { failedShare: 0.01, anyP95Ms: 200 };
const EXPECTED: Expectation = { failedShare: 0.1, slowerMs: 800, recoverSeconds: 10 };

/** One request each 10 ms for 30 s, a fault from 10 to 20 s. */
function observe(
  during: (index: number) => Partial<Outcome> = () => ({}),
  more: Partial<Observation> = {},
): Observation {
  const outcomes = Array.from({ length: 3_000 }, (_, index): Outcome => {
    const dueAt = index * 10;
    return {
      ...{ id: `load-1-${index}`, what: 'GET /', dueAt, latencyMs: 20, lagMs: 0, status: 200, fresh: false },
      ...(dueAt >= 10_000 && dueAt <= 20_000 ? during(index) : {}),
    };
  });
  const probes = Array.from({ length: 60 }, (_, index) => ({ at: index * 500, status: 200 }));
  return {
    ...{ outcomes, probes, before: [0, 9_999], during: [10_000, 20_000], recoveredAt: 20_500, after: [20_500, 30_000] },
    ...{ lost: [], stopped: undefined },
    ...more,
  };
}
const refused: Partial<Outcome> = { status: 503, failure: '503 db-unavailable', retryAfter: true };

it('nothing is said of what went as expected', () => {
  expect(judge(observe(), EXPECTED, STEADY)).toEqual([]);
  for (const answer of [refused, { ...refused, status: 429 }, { ...refused, latencyMs: 9_000, lagMs: 8_990 }]) {
    expect(
      judge(
        observe((index) => (index % 12 === 0 ? answer : {})),
        { ...EXPECTED, felt: 'failures', told: true },
        STEADY,
      ),
    ).toEqual([]);
  }
});

it.each<[string, Observation, Partial<Expectation>, RegExp]>([
  [
    'too many failures',
    observe((index) => (index % 2 === 0 ? refused : {})),
    {},
    /^50 % failed during the fault, at most 10 %/,
  ],
  ['too slow', observe(() => ({ latencyMs: 1_500 })), {}, /^p95 during the fault was 1.5 s, at most 1.0 s/],
  [
    'slow to refuse',
    observe((i) => (i % 12 === 0 ? { ...refused, latencyMs: 9_000 } : {})),
    {},
    /^p95 during the fault was 9.0 s/,
  ],
  ['a fault that failed nothing', observe(), { felt: 'failures' }, /^nothing failed: the fault was none/],
  ['a fault that slowed nothing', observe(), { felt: 'latency' }, /^nothing took longer/],
  [
    'a refusal without Retry-After',
    observe((index) => (index === 1_200 ? { status: 503, failure: '503 bare' } : {})),
    { told: true },
    /^1 failed without a 5xx or 429 and Retry-After, such as: 503 bare/,
  ],
  [
    'a refusal that is not told to come back',
    observe((index) => (index === 1_200 ? { status: 400, failure: '400 odd', retryAfter: true } : {})),
    { told: true },
    /such as: 400 odd/,
  ],
  [
    'a broken connection',
    observe((index) => (index === 1_200 ? { status: 0, failure: 'socket hang up' } : {})),
    { told: true },
    /such as: socket hang up/,
  ],
  ['ready when it is not', observe(), { ready: 'goes' }, /said all the time that all is well/],
  [
    'not ready when it should be',
    observe(undefined, {
      probes: [
        { at: 12_000, status: 503 },
        { at: 13_000, status: 0 },
      ],
    }),
    { ready: 'stays' },
    /failed 2 of 2 times/,
  ],
  ['no recovery', observe(undefined, { recoveredAt: undefined }), {}, /did not come back within 10 s/],
  [
    'a lost write',
    observe(undefined, { lost: ['loan a was acknowledged and is not there'] }),
    {},
    /^1 acknowledged writes are wrong/,
  ],
  ['a database that cannot be asked', observe(undefined, { lost: undefined }), {}, /could not be asked/],
  ['an early end', observe(undefined, { stopped: 'too much' }), {}, /taken back early: too much/],
])('tells of %s, and of nothing else', (_name, observation, expectation, sentence) => {
  expect(judge(observation, { ...EXPECTED, ...expectation }, STEADY)).toEqual([expect.stringMatching(sentence)]);
});

it('failures after the recovery are told', () => {
  const outcomes = observe().outcomes.map((each) => (each.dueAt > 25_000 ? { ...each, ...refused } : each));
  expect(judge({ ...observe(), outcomes }, EXPECTED, STEADY)).toEqual([
    expect.stringMatching(/^afterwards \d+ % of the requests failed/),
  ]);
});

it('steady is what is neither slow nor fails, and is something at all', () => {
  const { outcomes } = observe();
  expect(unsteady(figuresOf(outcomes), STEADY)).toBeUndefined();
  expect(unsteady(figuresOf([]), STEADY)).toBe('no request was due');
  expect(unsteady(figuresOf(observe(() => ({ latencyMs: 900 })).outcomes), STEADY)).toBe(
    'p95 is 900 ms (bound: 200 ms)',
  );
});

it('a fault is not stopped for what is expected, nor for the first few requests', () => {
  const figures = (requests: number, failed: number) => ({ ...figuresOf([]), requests, failed });
  const shares = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10_000 }), shares, shares, (requests, share, failedShare) => {
      const failed = Math.floor(requests * share);
      const reason = tooMuch(figures(requests, failed), { ...EXPECTED, failedShare });
      if (failed <= requests * failedShare || requests < 60) expect(reason).toBeUndefined();
      if (requests >= 60 && failed / requests > failedShare * 2 + 0.06 && failedShare < 0.4)
        expect(reason).toBeDefined();
    }),
  );
});
