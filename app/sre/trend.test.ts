import fc from 'fast-check';
import { FEWEST_POINTS, fitTrend, type Point, secondsUntil, TRUST } from './trend';

const HOUR = 3_600;
/** Some day of 2026, as Prometheus gives times. */
const START = 1_790_000_000;
const line = (count: number, slope: number, start: number, noise: (index: number) => number = () => 0): Point[] =>
  Array.from({ length: count }, (_, index) => [START + index * HOUR, start + slope * index * HOUR + noise(index)]);
const slopes = fc.double({ min: -1e6, max: 1e6, noNaN: true });
const counts = fc.integer({ min: FEWEST_POINTS, max: 400 });
const near = (value: number, expected: number, scale: number) => Math.abs(value - expected) <= 1e-9 * (1 + scale);

it('finds a line exactly, however many points it has, and whatever their order', () => {
  fc.assert(
    fc.property(counts, slopes, slopes, fc.boolean(), (count, slope, start, backwards) => {
      const points = line(count, slope, start);
      const trend = fitTrend(backwards ? [...points].reverse() : points)!;
      const scale = Math.abs(start) + Math.abs(slope) * count * HOUR;
      expect(near(trend.slope * HOUR, slope * HOUR, scale)).toBe(true);
      expect(near(trend.at(START + count * HOUR), start + slope * count * HOUR, scale)).toBe(true);
      expect(near(trend.low, trend.slope, scale) && near(trend.high, trend.slope, scale)).toBe(true);
      expect(trend.points).toBeLessThanOrEqual(200);
    }),
    { numRuns: 50 },
  );
});

it('is not moved by a quarter of outliers, where least squares are', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 20, max: 60 }),
      fc.double({ min: 0.1, max: 10, noNaN: true }),
      fc.double({ min: 1e3, max: 1e9, noNaN: true }),
      (count, perHour, wild) => {
        const points = line(count, perHour / HOUR, 100, (index) => (index % 5 === 2 ? wild : 0));
        const trend = fitTrend(points)!;
        expect(trend.slope * HOUR).toBeCloseTo(perHour, 5);
      },
    ),
    { numRuns: 50 },
  );
});

it('gives an interval that holds the true slope about as often as it says', () => {
  // A generator of its own: the share is a figure, not a chance.
  let seed = 7;
  const random = () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
  const normal = () => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
  const runs = 400;
  let held = 0;
  for (let run = 0; run < runs; run++) {
    const { low, high } = fitTrend(line(40, 2 / HOUR, 0, () => 5 * normal()))!;
    if (low * HOUR <= 2 && 2 <= high * HOUR) held++;
  }
  expect(held / runs).toBeGreaterThan(0.92);
  expect(held / runs).toBeLessThan(0.985);
});

it('says nothing of too few points, of one time, or of what is no number', () => {
  expect(fitTrend([])).toBeUndefined();
  expect(fitTrend(line(FEWEST_POINTS - 1, 1, 0))).toBeUndefined();
  expect(fitTrend(Array.from({ length: 50 }, (_, index): Point => [START, index]))).toBeUndefined();
  const holes = line(20, 1 / HOUR, 0).map(([at, value], index): Point => [at, index % 2 === 0 ? NaN : value]);
  expect(fitTrend(holes)!.slope * HOUR).toBeCloseTo(1, 9);
  expect(fitTrend(holes)!.points).toBe(10);
});

describe('the time until a limit', () => {
  const day = 86_400;
  const rising = fitTrend(line(10 * 24 + 1, 1 / HOUR, 0))!; // Ten days, 1 an hour: now 240.
  const now = START + 10 * day;

  it('is what is left over what grows', () => {
    expect(secondsUntil(240 + 48, rising, now)).toBeCloseTo(2 * day, 3);
    expect(secondsUntil(240 + 48, rising, now, 2 * rising.slope)).toBeCloseTo(day, 3);
  });

  it('is 0 where the limit is reached, and nothing where it never is', () => {
    expect(secondsUntil(240, rising, now)).toBe(0);
    expect(secondsUntil(10, rising, now)).toBe(0);
    const falling = fitTrend(line(100, -1 / HOUR, 1e4))!;
    const level = fitTrend(line(100, 0, 50))!;
    expect([secondsUntil(1e5, falling, now), secondsUntil(1e5, level, now)]).toEqual([undefined, undefined]);
    expect(secondsUntil(1e5, rising, now, Infinity)).toBeUndefined();
  });

  it('is not foretold further than the history bears', () => {
    const furthest = TRUST * 240;
    expect(secondsUntil(240 + furthest - 1, rising, now)).toBeCloseTo(TRUST * 10 * day - HOUR, 0);
    expect(secondsUntil(240 + furthest + 1, rising, now)).toBeUndefined();
  });

  it('never grows when the limit comes nearer', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 2_000, noNaN: true }),
        fc.double({ min: 0, max: 500, noNaN: true }),
        (limit, less) => {
          const [far, near] = [secondsUntil(limit, rising, now), secondsUntil(limit - less, rising, now)];
          expect(far === undefined || (near !== undefined && near <= far)).toBe(true);
        },
      ),
    );
  });
});
