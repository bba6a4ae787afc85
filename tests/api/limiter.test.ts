import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import type { Ledger } from '../../app/db/quotas';
import { change, type Quota } from '../../app/domain/quota';
import { createLimiter, type Limiter } from '../../app/http/limiter';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { ModelLedger } from './model-ledger';

/** Several processes, and a ledger with a clock of its own, in simulated time. */
beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

const BUILD = { version: '1', commit: 'c', environment: 'test' };
const WALL_CLOCK_OF_THE_LEDGER = 1_700_000_000_123.4;

function process(quota: Quota, ledger: Ledger) {
  let logged = '';
  const destination = new PassThrough({ encoding: 'utf8' }).on('data', (text: string) => (logged += text));
  const metrics = createMetrics(BUILD);
  const limiter = createLimiter({ quota, ledger, metrics, logger: createLogger('info', destination) });
  const count = async (name: string) =>
    ((await metrics.registry.getSingleMetric(name)?.get())?.values ?? []).reduce((sum, { value }) => sum + value, 0);
  return { limiter, count, logged: () => logged };
}

interface Arrival {
  readonly at: number;
  readonly at_process: number;
}

interface Passed {
  /** When each request that passed was let pass, in order. */
  readonly times: number[];
  readonly refused: number;
  readonly purchases: number;
  readonly longestWaitMs: number;
}

async function simulate(quota: Quota, processes: number, latency: () => number, arrivals: readonly Arrival[]) {
  const ledger = new ModelLedger().remote(() => WALL_CLOCK_OF_THE_LEDGER + performance.now(), latency);
  const all = Array.from({ length: processes }, () => process(quota, ledger));
  const times: number[] = [];
  let [refused, longestWaitMs] = [0, 0];
  for (const { at, at_process } of arrivals) {
    setTimeout(() => {
      void (async () => {
        const askedAt = performance.now();
        const { passes } = await all[at_process]!.limiter.admit('key:a');
        longestWaitMs = Math.max(longestWaitMs, performance.now() - askedAt);
        if (passes) times.push(performance.now());
        else refused++;
      })();
    }, at);
  }
  await jest.advanceTimersByTimeAsync(Math.max(...arrivals.map(({ at }) => at)) + 1_000);
  const purchases = await Promise.all(all.map(({ count }) => count('rate_limit_purchases_total')));
  for (const { limiter } of all) limiter.stop();
  expect(times.length + refused).toBe(arrivals.length);
  return { times, refused, purchases: purchases.reduce((a, b) => a + b), longestWaitMs } satisfies Passed;
}

/** The most that passed in any window of this length. */
function fullest(times: readonly number[], windowMs: number): number {
  let [most, first] = [0, 0];
  times.forEach((time, last) => {
    while (times[first]! <= time - windowMs) first++;
    most = Math.max(most, last - first + 1);
  });
  return most;
}

const MAX_LATENCY_MS = 2;
const numbers = (seed: number) => () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;

describe('the limit', () => {
  it('holds in every window, for any traffic, but for the change of each process', async () => {
    const burst = fc.record({
      at: fc.integer({ min: 0, max: 4_000 }),
      at_process: fc.nat(3),
      count: fc.integer({ min: 1, max: 150 }),
      overMs: fc.integer({ min: 0, max: 1_500 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 1_200 }),
        fc.integer({ min: 1, max: 2 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(burst, { minLength: 3, maxLength: 25 }),
        fc.integer({ min: 1, max: 2_147_483_646 }),
        async (requests, windowSeconds, processes, bursts, seed) => {
          const random = numbers(seed);
          const arrivals = bursts.flatMap(({ at, at_process, count, overMs }) =>
            Array.from({ length: count }, (_, n) => {
              return { at: at + (n * overMs) / count, at_process: at_process % processes };
            }),
          );
          const quota = { requests, windowSeconds };
          const { times, longestWaitMs } = await simulate(quota, processes, () => random() * MAX_LATENCY_MS, arrivals);
          // What was bought at the end of a slot may be used one round trip later.
          const windowMs = windowSeconds * 1_000 - 2 * MAX_LATENCY_MS;
          expect(fullest(times, windowMs)).toBeLessThanOrEqual(requests + processes * change(quota));
          expect(longestWaitMs).toBeLessThanOrEqual(6);
        },
      ),
      { numRuns: 40 },
    );
  }, 60_000);

  it.each([
    ['evenly', [1, 1, 1]],
    ['unevenly', [90, 5, 5]],
    ['in bursts of 50', [50, 0, 0]],
    ['in bursts of 50, each elsewhere', [50, 50, 50]],
  ])(
    'is used up when twice as many ask %s, with few questions',
    async (how, weights) => {
      const quota = { requests: 2_000, windowSeconds: 10 };
      const random = numbers(7);
      const total = weights.reduce((a, b) => a + b, 0);
      const spot = () => {
        let left = random() * total;
        return weights.findIndex((weight) => (left -= weight) < 0);
      };
      const bursts = how.includes('bursts');
      let where = 0;
      const arrivals = Array.from({ length: 12_000 }, (_, n) => {
        if (!bursts) return { at: n * 2.5, at_process: spot() };
        if (n % 50 === 0) where = spot();
        return { at: Math.floor(n / 50) * 125, at_process: where };
      });
      const { times, refused, purchases } = await simulate(quota, 3, () => random(), arrivals);
      expect(fullest(times, 9_996)).toBeLessThanOrEqual(2_000 + 3 * change(quota));
      const before = (seconds: number) => times.filter((time) => time - times[0]! < seconds * 1_000).length;
      console.info(
        `${how}: ${before(10)} in 10 s, ${times.length} in 30 s, ${purchases} purchases, ${refused} refused`,
      );
      expect(before(10)).toBeGreaterThan(1_940);
      expect(times.length).toBeGreaterThan(3 * 1_940);
      expect(purchases).toBeLessThan(0.05 * arrivals.length);
    },
    60_000,
  );
});

describe('when the ledger', () => {
  const quota = { requests: 1_000, windowSeconds: 10 };
  const admit = async (limiter: Limiter, name = 'key:a') => {
    const askedAt = performance.now();
    const { passes } = await limiter.admit(name);
    return { passes, waitedMs: performance.now() - askedAt };
  };
  const many = async (limiter: Limiter, count: number) => {
    const verdicts = Promise.all(Array.from({ length: count }, () => admit(limiter)));
    await jest.advanceTimersByTimeAsync(10);
    const all = await verdicts;
    return {
      passed: all.filter(({ passes }) => passes).length,
      longestMs: Math.max(...all.map(({ waitedMs }) => waitedMs)),
    };
  };
  const hangs: Ledger = { buy: () => new Promise(() => undefined), prune: () => Promise.resolve(false) };
  const fails: Ledger = { ...hangs, buy: () => Promise.reject(new Error('no ledger')) };

  it.each([
    ['hangs', hangs, 0],
    ['fails', fails, 1],
  ])('%s, a process keeps the limit by itself, and a request waits 5 ms at most', async (_how, ledger, lines) => {
    const { limiter, logged, count } = process(quota, ledger);
    const first = await many(limiter, 10);
    expect(first.passed).toBe(10);
    expect(first.longestMs).toBeLessThanOrEqual(6);
    expect(await many(limiter, 1_500)).toEqual({ passed: 990, longestMs: 0 });
    await jest.advanceTimersByTimeAsync(9_900);
    expect((await many(limiter, 10)).passed).toBe(0);
    await jest.advanceTimersByTimeAsync(100);
    expect((await many(limiter, 1_500)).passed).toBe(1_000);
    expect(await count('rate_limit_estimates_total')).toBe(3_020);
    expect(await count('rate_limit_refusals_total')).toBe(1_020);
    expect(logged().match(/rate limits are judged by each process alone/g) ?? []).toHaveLength(lines);
    limiter.stop();
  });

  it('is slow, what it last said was left is all that passes without it', async () => {
    const model = new ModelLedger();
    let latency = 0.5;
    const ledger = model.remote(
      () => performance.now(),
      () => latency,
    );
    const [one, other] = [process(quota, ledger), process(quota, ledger)];
    expect((await many(other.limiter, 890)).passed).toBe(890);
    await jest.advanceTimersByTimeAsync(1_000);
    expect((await many(one.limiter, 1)).passed).toBe(1);
    latency = 500;
    const { passed } = await many(one.limiter, 500);
    expect(passed).toBeGreaterThan(80);
    expect(passed).toBeLessThanOrEqual(110);
    await jest.advanceTimersByTimeAsync(2_000);
    latency = 0.5;
    await jest.advanceTimersByTimeAsync(2_000);
    // What passed was told.
    expect((await many(other.limiter, 500)).passed).toBeLessThanOrEqual(1_000 - 891 - passed + 2);
    for (const { limiter } of [one, other]) limiter.stop();
  });

  it('is slow when something must have come free, a caller who was refused is heard', async () => {
    let latency = 0.5;
    const ledger = new ModelLedger().remote(
      () => performance.now(),
      () => latency,
    );
    const { limiter } = process(quota, ledger);
    expect((await many(limiter, 1_100)).passed).toBe(1_000);
    await jest.advanceTimersByTimeAsync(9_500);
    expect((await many(limiter, 100)).passed).toBe(0);
    latency = 500;
    await jest.advanceTimersByTimeAsync(1_000);
    const { passed } = await many(limiter, 100);
    expect(passed).toBe(10);
    limiter.stop();
  });

  it('answers too late, what was bought pays for what passed meanwhile', async () => {
    const ledger = new ModelLedger().remote(
      () => performance.now(),
      () => 4,
    );
    const { limiter } = process({ requests: 3, windowSeconds: 60 }, ledger);
    const passed = [];
    for (let time = 0; time < 5; time++) {
      passed.push((await many(limiter, 1)).passed);
      await jest.advanceTimersByTimeAsync(50);
    }
    expect(passed).toEqual([1, 1, 1, 0, 0]);
    limiter.stop();
  });

  it('is told what a caller who went quiet has left over', async () => {
    const model = new ModelLedger();
    const { limiter } = process(
      quota,
      model.remote(
        () => performance.now(),
        () => 0.5,
      ),
    );
    for (let burst = 0; burst < 3; burst++) await many(limiter, 100);
    await jest.advanceTimersByTimeAsync(1_000);
    const bought = model.rows.get('key:a')!.used.reduce((a, b) => a + b);
    expect(bought).toBeGreaterThanOrEqual(300);
    expect(bought).toBeLessThanOrEqual(300 + change(quota));
    limiter.stop();
  });
});

describe('callers', () => {
  const quota = { requests: 1, windowSeconds: 10 };
  const ledger = () =>
    new ModelLedger().remote(
      () => performance.now(),
      () => 0.5,
    );
  const passes = async (limiter: Limiter, name: string) => {
    const verdict = Promise.resolve(limiter.admit(name));
    await jest.advanceTimersByTimeAsync(10);
    return (await verdict).passes;
  };

  it('do not take from each other', async () => {
    const { limiter } = process(quota, ledger());
    const names = ['key:a', 'key:b', 'address:192.0.2.1'];
    for (const expected of [true, false]) {
      for (const name of names) expect([name, await passes(limiter, name)]).toEqual([name, expected]);
    }
    limiter.stop();
  });

  it('without a key are told apart up to a number, those with a key always, until they are forgotten', async () => {
    const { limiter } = process(quota, ledger());
    for (let n = 0; n < 10_000; n++) void limiter.admit(`address:${n}`);
    await jest.advanceTimersByTimeAsync(1_000);
    expect(await passes(limiter, 'address:one more')).toBe(true);
    expect(await passes(limiter, 'address:yet another')).toBe(false);
    expect([await passes(limiter, 'key:a'), await passes(limiter, 'key:b')]).toEqual([true, true]);
    await jest.advanceTimersByTimeAsync(9_500);
    limiter.prune();
    expect(await passes(limiter, 'address:a third')).toBe(true);
    expect(await passes(limiter, 'address:a fourth')).toBe(true);
    limiter.stop();
  });
});
