/**
 * How a figure grows, from its past: the slope of Theil and Sen, which is the median of the slopes between all pairs of
 * points, so that up to 29 % of them may be outliers (a load test, a deploy) and change little. Its interval is that of
 * Sen (1968), from the distribution of Kendall's statistic: it supposes no normal errors, but points that do not depend
 * on each other; figures that follow a day's rhythm make it narrower than it should be.
 */

/** Seconds and value. */
export type Point = readonly [atSeconds: number, value: number];

export interface Trend {
  /** Units of the figure per second. */
  readonly slope: number;
  /** Of the slope, with CONFIDENCE; infinite where there are too few points to say. */
  readonly low: number;
  readonly high: number;
  /** The value of the line at a time in seconds. */
  at(seconds: number): number;
  /** From the first point to the last. */
  readonly spanSeconds: number;
  readonly points: number;
}

export const CONFIDENCE = 0.95;
/** Of the normal distribution, for CONFIDENCE on both sides. */
const QUANTILE = 1.959964;
/** With fewer a line says nothing, however well it fits. */
export const FEWEST_POINTS = 8;
/** All pairs are looked at: of more points every second one is, and so on. */
const MOST_POINTS = 200;

/** Undefined for fewer than FEWEST_POINTS different times; points that are no numbers do not count. */
export function fitTrend(given: readonly Point[]): Trend | undefined {
  const finite = given.filter(([at, value]) => Number.isFinite(at) && Number.isFinite(value));
  const points = thinned([...finite].sort(([a], [b]) => a - b));
  const first = points[0]?.[0] ?? 0;
  const spanSeconds = (points.at(-1)?.[0] ?? 0) - first;
  if (new Set(points.map(([at]) => at)).size < FEWEST_POINTS) return undefined;

  const slopes: number[] = [];
  for (const [later, [t, v]] of points.entries()) {
    for (let earlier = 0; earlier < later; earlier++) {
      const [u, w] = points[earlier] ?? [t, v];
      if (t > u) slopes.push((v - w) / (t - u));
    }
  }
  slopes.sort((a, b) => a - b);
  const slope = median(slopes);
  // Times near 0 keep the digits that seconds since 1970 would cost.
  const intercept = median(points.map(([at, value]) => value - slope * (at - first)).sort((a, b) => a - b));

  const n = points.length;
  const spread = QUANTILE * Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18);
  const lowest = Math.floor((slopes.length - spread) / 2);
  const highest = Math.ceil((slopes.length + spread) / 2);
  return {
    slope,
    low: slopes[lowest - 1] ?? -Infinity,
    high: slopes[highest] ?? Infinity,
    at: (seconds) => intercept + slope * (seconds - first),
    spanSeconds,
    points: n,
  };
}

/** So many times as long as a trend was seen it is believed: beyond that it is no forecast but a guess. */
export const TRUST = 10;

/**
 * Seconds from `now` until the line reaches a limit; 0 where it is reached. Undefined where the line does not rise, or
 * reaches the limit later than TRUST times the time that it was seen over.
 * @param slope of the trend, or an end of its interval
 */
export function secondsUntil(limit: number, trend: Trend, now: number, slope = trend.slope): number | undefined {
  const left = limit - trend.at(now);
  if (left <= 0) return 0;
  if (!(slope > 0) || !Number.isFinite(slope)) return undefined;
  const seconds = left / slope;
  return seconds <= TRUST * trend.spanSeconds ? seconds : undefined;
}

/** @param sorted not empty */
function median(sorted: readonly number[]): number {
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

function thinned(points: readonly Point[]): readonly Point[] {
  const every = Math.ceil(points.length / MOST_POINTS);
  // The newest one stays.
  return every <= 1 ? points : points.filter((_point, index) => (points.length - 1 - index) % every === 0);
}
