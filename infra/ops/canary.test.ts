import fc from 'fast-check';
import { describe as inWords, judge, type Observation, Tally, type Trial, withCanary } from './canary';
import { renderHandover, renderUpstream, serversOf } from './nginx';

const names = (kind: string, count: number) => Array.from({ length: count }, (_, index) => `${kind}-${index + 1}`);

describe('the share of a canary', () => {
  test('of ten percent beside two stable containers', () => {
    expect(withCanary(['a', 'b'], ['c'], 10)).toEqual([
      { name: 'a', weight: 9 },
      { name: 'b', weight: 9 },
      { name: 'c', weight: 2 },
    ]);
  });

  test('is exact for any number of containers, and the same for each of a track', () => {
    const count = fc.integer({ min: 1, max: 64 });
    fc.assert(
      fc.property(count, count, fc.integer({ min: 1, max: 50 }), (stable, canary, percent) => {
        const servers = withCanary(names('s', stable), names('c', canary), percent);
        const sum = (some: typeof servers) => some.reduce((total, { weight }) => total + weight, 0);
        const [ofStable, ofCanary] = ['s', 'c'].map((kind) => servers.filter(({ name }) => name.startsWith(kind)));
        expect(sum(ofCanary!) * 100).toBe(sum(servers) * percent);
        for (const track of [ofStable!, ofCanary!]) expect(new Set(track.map(({ weight }) => weight)).size).toBe(1);
        expect(servers.every(({ weight }) => Number.isInteger(weight) && weight > 0)).toBe(true);
      }),
    );
  });

  test('without canary containers leaves the upstream as it always was', () => {
    expect(renderUpstream(withCanary(['a', 'b'], [], 0))).toBe(renderUpstream(['a', 'b']));
    expect(renderUpstream(['a', 'b'])).not.toContain('weight');
    expect(serversOf(renderUpstream(withCanary(['a', 'b'], ['c'], 7)))).toEqual(['a', 'b', 'c']);
  });

  test('is at most as large while servers are handed over, whichever names nginx knows already', () => {
    const count = fc.integer({ min: 1, max: 5 });
    fc.assert(
      fc.property(count, count, count, fc.integer({ min: 1, max: 50 }), (old, next, canary, percent) => {
        const after = renderUpstream(withCanary(names('n', next), names('c', canary), percent));
        const both = renderHandover(renderUpstream(names('o', old)), after)!;
        const weights = [...both.matchAll(/server (\w)-\d+:8000 resolve(?: weight=(\d+))?/g)];
        const sum = (kinds: string) =>
          weights.reduce((total, [, kind, weight = '1']) => total + (kinds.includes(kind!) ? Number(weight) : 0), 0);
        expect(sum('o')).toBe(sum('nc'));
        for (const known of ['onc', 'oc']) expect(sum('c') * 100).toBeLessThanOrEqual(sum(known) * percent);
      }),
    );
  });
});

describe('handing over', () => {
  const both = (before: readonly string[], after: readonly string[]) =>
    renderHandover(renderUpstream(before), renderUpstream(after));

  test('lists old and new together', () => {
    expect(serversOf(both(['a', 'b'], ['b', 'c']) ?? '')).toEqual(['a', 'b', 'c']);
  });

  test('is not needed where no name is new, or nobody served', () => {
    expect(both(['a', 'b'], ['b'])).toBeUndefined();
    expect(both([], ['b'])).toBeUndefined();
    expect(renderHandover('', renderUpstream(['a']))).toBeUndefined();
  });
});

describe('the tally', () => {
  const series = (track: string, status_code: string, le: string, value: number, instance = '10.0.0.2:8000') => ({
    labels: { track, status_code, le, instance },
    value,
  });

  test('counts from its first answer on; a series that is new then counts from zero', () => {
    const tally = new Tally([series('stable', '200', '0.1', 1_000), series('stable', '200', '+Inf', 1_100)]);
    expect(tally.of('stable').requests).toBe(0);
    tally.add([
      series('stable', '200', '0.1', 1_004),
      series('stable', '200', '+Inf', 1_110),
      series('stable', '500', '0.1', 0),
      series('stable', '500', '+Inf', 1),
      series('canary', '200', '0.1', 3, '10.0.0.9:8000'),
      series('canary', '200', '+Inf', 3, '10.0.0.9:8000'),
    ]);
    expect(tally.of('stable')).toEqual({
      requests: 11,
      errors: 1,
      durations: [
        [0.1, 4],
        [Infinity, 11],
      ],
    });
    expect(tally.of('canary')).toMatchObject({ requests: 3, errors: 0 });
  });

  test('goes on after a counter began anew, and after a scrape that failed', () => {
    const tally = new Tally([series('canary', '200', '+Inf', 50)]);
    for (const value of [60, 5, undefined, 9]) {
      tally.add(value === undefined ? [] : [series('canary', '200', '+Inf', value)]);
    }
    expect(tally.of('canary').requests).toBe(10 + 5 + 4);
  });
});

/** Requests of which `slow` took between 500 ms and 1 s and the others between 10 and 25 ms. */
function seen(requests: number, errors = 0, slow = 0): Observation {
  return {
    requests,
    errors,
    durations: [
      [0.01, 0],
      [0.025, requests - slow],
      [0.5, requests - slow],
      [1, requests],
      [Infinity, requests],
    ],
  };
}

const TOLERANCE = { errorPoints: 1, latencyFactor: 1.5, latencyMs: 50 };
const trial = (change: Partial<Trial>): Trial => ({
  stable: seen(9_000),
  canary: seen(1_000),
  percent: 10,
  elapsedSeconds: 300,
  windowSeconds: 300,
  ...change,
});
const verdict = (change: Partial<Trial>) => judge(trial(change), TOLERANCE);

describe('the verdict', () => {
  test.each<[string, Partial<Trial>, string, RegExp]>([
    ['good, before the end', { elapsedSeconds: 299 }, 'wait', /nothing is wrong/],
    ['good, at the end', {}, 'promote', /^0\.0 % of 1000 requests failed and its p95 is 24 ms/],
    ['nothing at all yet', { stable: seen(0), canary: seen(0), elapsedSeconds: 5 }, 'wait', /nothing is wrong/],
    ['nothing at all', { stable: seen(0), canary: seen(0) }, 'abort', /0 requests to it \(0 to .* are too few/],
    ['too few requests', { canary: seen(40), stable: seen(360) }, 'abort', /40 requests to it \(360 .* too few/],
    ['a stable release without requests', { stable: seen(0), percent: 50 }, 'abort', /are too few/],
    ['one error of few, early', { canary: seen(20, 1), elapsedSeconds: 10 }, 'wait', /nothing/],
    ['every third fails, early', { canary: seen(30, 10), elapsedSeconds: 10 }, 'abort', /^33\.3 % .*10 of 30.*0\.0 %/],
    ['every third fails on both', { canary: seen(30, 10), stable: seen(270, 90), elapsedSeconds: 10 }, 'wait', /no/],
    ['a few more errors, at the end', { canary: seen(1_000, 12) }, 'abort', /^1\.2 % /],
    ['a few more errors, within tolerance', { canary: seen(1_000, 3) }, 'promote', /^0\.3 % /],
    ['errors that both have', { canary: seen(10_000, 500), stable: seen(90_000, 4_500) }, 'promote', /^5\.0 % /],
    ['slow, at once', { canary: seen(100, 0, 90), elapsedSeconds: 20 }, 'wait', /nothing/],
    ['slow, when warm', { canary: seen(500, 0, 400), elapsedSeconds: 150 }, 'abort', /p95 is \d{3} ms, .* 24 ms/],
    ['somewhat slow, at the end', { canary: seen(1_000, 0, 60) }, 'abort', /p95 is \d{3} ms/],
    ['as slow as the stable one', { canary: seen(1_000, 0, 200), stable: seen(9_000, 0, 1_800) }, 'promote', /p95/],
    ['answers that never come', { canary: seen(300), elapsedSeconds: 200 }, 'abort', /finished 3\.2 % .* given 10 %/],
    ['few of its requests, too early to say', { canary: seen(300), elapsedSeconds: 60 }, 'wait', /nothing/],
  ])('%s', (_name, change, what, reason) => {
    expect(verdict(change)).toEqual({ what, reason: expect.stringMatching(reason) });
  });

  const count = fc.nat({ max: 5_000 });
  const anyTrial = fc
    .record({
      stable: fc.tuple(count, fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
      canary: fc.tuple(count, fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
      percent: fc.integer({ min: 1, max: 50 }),
      elapsedSeconds: fc.nat({ max: 400 }),
    })
    .map(({ stable, canary, ...rest }) => {
      const of = ([n, failed, slow]: [number, number, number]) =>
        // Squared: ratios near zero are the ones that decide.
        seen(n, Math.floor(n * failed ** 4), Math.floor(n * slow ** 4));
      return trial({ stable: of(stable), canary: of(canary), ...rest });
    });
  const RANK = { promote: 0, wait: 1, abort: 2 };
  const rank = (of: Trial) => RANK[judge(of, TOLERANCE).what];

  test('never gets better by more errors of the canary', () => {
    fc.assert(
      fc.property(anyTrial, fc.nat({ max: 5_000 }), (before, more) => {
        const { canary } = before;
        const errors = Math.min(canary.requests, canary.errors + more);
        expect(rank({ ...before, canary: { ...canary, errors } })).toBeGreaterThanOrEqual(rank(before));
      }),
      { numRuns: 2_000 },
    );
  });

  test('never gets better by slower answers of the canary', () => {
    fc.assert(
      fc.property(anyTrial, fc.nat({ max: 5_000 }), (before, more) => {
        const { requests, errors, durations } = before.canary;
        const slow = requests - durations[1]![1];
        const canary = seen(requests, errors, Math.min(requests, slow + more));
        expect(rank({ ...before, canary })).toBeGreaterThanOrEqual(rank(before));
      }),
      { numRuns: 2_000 },
    );
  });

  test('is never promote before the end of the window, and never wait after it', () => {
    fc.assert(
      fc.property(anyTrial, (any) => {
        const { what } = judge(any, TOLERANCE);
        expect(what).not.toBe(any.elapsedSeconds < any.windowSeconds ? 'promote' : 'wait');
      }),
    );
  });

  test('of two releases that are the same is hardly ever abort, however often it is asked', () => {
    // The same counters for many windows: 5 % of errors, decided by a fixed sequence.
    let state = 1;
    const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
    let aborted = 0;
    for (let window = 0; window < 200; window += 1) {
      const errors = { stable: 0, canary: 0 };
      for (let second = 1; second < 300; second += 1) {
        for (let n = 0; n < 9; n += 1) errors.stable += Number(random() < 0.05);
        errors.canary += Number(random() < 0.05);
        if (second % 15 !== 0) continue;
        const at = { stable: seen(9 * second, errors.stable), canary: seen(second, errors.canary) };
        if (verdict({ ...at, elapsedSeconds: second }).what === 'abort') {
          aborted += 1;
          break;
        }
      }
    }
    expect(aborted).toBeLessThanOrEqual(4);
  });

  test('has what was seen in one line', () => {
    expect(inWords(trial({ canary: seen(1_000, 12) }))).toBe(
      'canary 1000 requests, 1.2 % failed, p95 24 ms; stable 9000 requests, 0.0 % failed, p95 24 ms',
    );
  });
});
