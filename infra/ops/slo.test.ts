import fc from 'fast-check';
import { JOBS } from './exporters';
import { bucketUpTo, isAlert, secondsOf } from './rules';
import {
  burnFactor,
  DEFAULT_OBJECTIVES,
  errorBudget,
  objectiveFault,
  type Period,
  SLO_NAMES,
  sloGroups,
  TIERS,
} from './slo';

const PERIODS: readonly Period[] = [30, 28, 7];
const jobs = new Set<string>(Object.values(JOBS));
const period = fc.constantFrom(...PERIODS);
/** Percentages as somebody would write them. */
const objective = fc.integer({ min: 1, max: 99_999 }).map((thousandths) => thousandths / 100_000);

describe('the arithmetic of burn rates', () => {
  it('gives the factors that everybody uses', () => {
    const factors = (days: Period) => TIERS.map((tier) => burnFactor(tier, days));
    expect(factors(30)).toEqual([14.4, 6, 3, 1]);
    expect(factors(28).map((factor) => Number(factor.toFixed(3)))).toEqual([13.44, 5.6, 2.8, 0.933]);
    expect(factors(7)).toEqual([13.44, 3.5, 1.4, 0.98]);
  });

  it('spends exactly what a tier says in its long window', () => {
    fc.assert(
      fc.property(fc.constantFrom(...TIERS), period, objective, (tier, days, good) => {
        const budget = errorBudget(good);
        // As many events in each second: what fails in the window, of what may fail in the period.
        const failed = burnFactor(tier, days) * budget * secondsOf(tier.long);
        const allowed = budget * days * 86_400;
        expect(failed / allowed).toBeCloseTo(tier.spendsPercent[days] / 100, 8);
      }),
    );
  });

  it('refuses an objective exactly when one of its alerts could never fire', () => {
    fc.assert(
      fc.property(period, objective, (days, good) => {
        const thresholds = TIERS.map((tier) => burnFactor(tier, days) * errorBudget(good));
        expect(objectiveFault(good, days) === undefined).toBe(thresholds.every((ratio) => ratio < 1));
      }),
    );
  });

  it('and the least one that it names is accepted', () => {
    for (const days of PERIODS) {
      const least = Number(/at least ([\d.]+)/.exec(objectiveFault(0.5, days) ?? '')?.[1]);
      expect(objectiveFault(least / 100, days)).toBeUndefined();
      expect(objectiveFault((least - 0.01) / 100, days)).toBeDefined();
    }
    expect(objectiveFault(0.93, 30)).toMatch(/^must be at least 93\.06: its alert for a fast burn \(14\.4 times\)/);
  });

  it.each([0, 1, -1, 2, NaN])('refuses %d, which leaves nothing to fail or nothing to promise', (good) => {
    expect(objectiveFault(good, 30)).toBe('must be more than 0 and less than 100');
  });

  it('knows budgets without the noise of binary fractions', () => {
    fc.assert(
      fc.property(objective, (good) => {
        expect(String(errorBudget(good)).length).toBeLessThanOrEqual('0.99999'.length);
        expect(errorBudget(good) + good).toBeCloseTo(1, 9);
      }),
    );
    expect([0.999, 0.995, 0.99, 0.95].map(errorBudget)).toEqual([0.001, 0.005, 0.01, 0.05]);
  });

  it('asks slower tiers for less, and for longer', () => {
    for (const days of PERIODS) {
      for (const [index, tier] of TIERS.slice(1).entries()) {
        const faster = TIERS[index]!;
        expect(burnFactor(tier, days)).toBeLessThan(burnFactor(faster, days));
        expect(secondsOf(tier.long)).toBeGreaterThan(secondsOf(faster.long));
        expect(secondsOf(tier.short)).toBeLessThanOrEqual(secondsOf(tier.long) / 12);
      }
    }
  });
});

describe('the rules of the objectives', () => {
  const groups = (days: Period, objectives = DEFAULT_OBJECTIVES.objectives, scraped = jobs) =>
    sloGroups({ periodDays: days, objectives }, scraped);

  it('record and alert in one group, and sum up in another, one objective after the other', () => {
    expect(groups(30).map(({ name }) => name)).toEqual(SLO_NAMES.flatMap((slo) => [`slo-${slo}`, `slo-${slo}-meta`]));
  });

  it('record every series that they read, with the same labels', () => {
    const rules = groups(7).flatMap(({ rules }) => rules);
    const recorded = new Set(
      rules.flatMap((rule) => (isAlert(rule) ? [] : [`${rule.record}/${rule.labels?.['slo']}`])),
    );
    const read = rules.flatMap(({ expr }) =>
      [...expr.matchAll(/(slo:[a-z_:0-9]+)\{slo="(\w+)",service="loans-api"\}/g)].map(
        ([, name, slo]) => `${name}/${slo}`,
      ),
    );
    expect(read.filter((each) => !recorded.has(each))).toEqual([]);
    expect(read.length).toBeGreaterThan(100);
  });

  it('have alerts whose labels tell them apart', () => {
    const keys = groups(30)
      .flatMap(({ rules }) => rules.filter((rule) => isAlert(rule)))
      .map(({ alert, labels }) => JSON.stringify([alert, labels]));
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys).toHaveLength(SLO_NAMES.length * (TIERS.length + 2));
  });

  it('are left out where nothing is measured, and refused where they could not fire', () => {
    expect(groups(30, DEFAULT_OBJECTIVES.objectives, new Set(['api'])).map(({ name }) => name)).not.toContain(
      'slo-availability',
    );
    expect(() => groups(30, { ...DEFAULT_OBJECTIVES.objectives, latency: 0.9 })).toThrow(
      /slo\.latency: 90 must be at least 93\.06/,
    );
  });
});

describe('durations and buckets', () => {
  it('reads what Prometheus reads', () => {
    expect(['30s', '5m', '6h', '3d'].map(secondsOf)).toEqual([30, 300, 21_600, 259_200]);
    for (const wrong of ['5', 'm', '1.5h', '1h30m', '']) expect(() => secondsOf(wrong)).toThrow(/is not a duration/);
  });

  it('finds a bound as either Prometheus writes it', () => {
    expect([bucketUpTo(0.2), bucketUpTo(2)]).toEqual(['le="0.2"', 'le=~"2([.]0)?"']);
  });
});
