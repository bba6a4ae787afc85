import { recommend, resourceOf } from './capacity';
import type { Point } from './trend';

const DAY = 86_400;
const now = 1_800_000_000;
const history = (perDay: number, days = 20, end = 50): Point[] =>
  Array.from({ length: 4 * days + 1 }, (_, index) => {
    const at = now - days * DAY + (index * DAY) / 4;
    return [at, end + (perDay * (at - now)) / DAY];
  });

describe('a resource', () => {
  it('is full when it has grown to its limit', () => {
    expect(resourceOf('disk', 'bytes', { used: 50, limit: 100, history: history(2) }, now)).toEqual({
      ...{ name: 'disk', unit: 'bytes', used: 50, limit: 100, utilisation: 0.5, note: null },
      days_until_limit: 25,
      days_until_limit_at_soonest: 25,
      growth: {
        ...{ per_day: 2, low_per_day: 2, high_per_day: 2, confidence: 0.95, method: 'theil-sen' },
        ...{ points: 81, history_seconds: 20 * DAY },
      },
    });
  });

  it('says what it does not know', () => {
    const young = resourceOf('cpu', 'cores', { used: 1, limit: 4, history: history(1, 1).slice(-3) }, now);
    expect(young).toMatchObject({
      growth: null,
      days_until_limit: null,
      note: 'The history is too short for a trend.',
    });
    const unlimited = resourceOf('loans', 'loans', { used: 9, limit: undefined, history: history(2) }, now);
    expect(unlimited).toMatchObject({ limit: null, utilisation: null, days_until_limit: null, growth: { per_day: 2 } });
    expect(resourceOf('cpu', 'cores', { used: undefined, limit: undefined }, now)).toMatchObject({
      used: null,
      note: null,
    });
  });
});

describe('the recommendation', () => {
  const idle = resourceOf('requests', 'requests per second', { used: 10, limit: 1_000 }, now);

  it('goes by CPU', () => {
    expect(recommend(2, 2, { now: 2.8, peak: 2.8 }, [idle])).toMatchObject({
      ...{ action: 'keep', containers: 2, reason: 'CPU is 70 % of the limits, the aim is 70 %', further: [] },
    });
    expect(recommend(2, 2, { now: 3.8, peak: 3.8 }, [idle])).toMatchObject({ action: 'add', containers: 3 });
    expect(recommend(4, 2, { now: 1, peak: 1 }, [idle])).toMatchObject({ action: 'remove', containers: 2 });
    expect(recommend(4, 2, { now: 1, peak: 5.6 }, [idle])).toMatchObject({ action: 'keep', containers: 4 });
    expect(recommend(2, 2, undefined, [idle])).toMatchObject({ action: 'unknown', containers: 2 });
  });

  it('goes by requests where it is known how many a container bears', () => {
    const busy = resourceOf('requests', 'requests per second', { used: 250, limit: 200 }, now);
    expect(recommend(2, 2, { now: 0.2, peak: 0.2 }, [busy])).toMatchObject({
      ...{ action: 'add', containers: 4 },
      reason: 'Requests are 125 % of what 2 containers are known to bear, the aim is 80 %',
    });
    const half = resourceOf('requests', 'requests per second', { used: 150, limit: 200 }, now);
    // CPU alone would have removed one.
    expect(recommend(2, 2, { now: 0.2, peak: 0.2 }, [half])).toMatchObject({ action: 'keep', containers: 2 });
  });

  it('leaves room for more requests than those that come now', () => {
    const containers = (used: number, limit: number, current: number) => {
      const requests = resourceOf('requests', 'requests per second', { used, limit }, now);
      return recommend(current, 2, { now: 0, peak: 0 }, [requests]).containers;
    };
    // Two that bear 100 each aim at 160 together.
    expect([containers(160, 200, 2), containers(161, 200, 2), containers(199, 200, 2)]).toEqual([2, 3, 3]);
    // Four are not made two, whose 160 would be exceeded.
    expect([containers(161, 400, 4), containers(160, 400, 4)]).toEqual([3, 2]);
    expect(containers(1_000, 100, 1)).toBe(2);
  });

  it('names what is full, or soon will be', () => {
    const memory = resourceOf('memory', 'bytes', { used: 90, limit: 100 }, now);
    const disk = resourceOf('disk', 'bytes', { used: 50, limit: 70, history: history(2) }, now);
    const calm = resourceOf('cpu', 'cores', { used: 1, limit: 100, history: history(2) }, now);
    expect(recommend(1, 1, { now: 0.7, peak: 0.7 }, [memory, disk, calm]).further).toEqual([
      'memory: 90 % of the limit are used',
      'disk: full in about 10 days at this growth',
    ]);
  });
});
