import { inLowestTerms, type Server } from './nginx';
import { SCRAPE_INTERVAL_SECONDS, type Track, TRACK_NAMES, USER_ROUTES } from './prometheus';
import { METRICS } from '../../app/telemetry/names';

/** A canary: which share of the requests it gets, what was seen of it, and what follows from that. */

/**
 * The servers of the gateway with weights by which the canary's together get exactly `percent` of the requests.
 * @param percent 1 to 99; without canary containers it does not matter
 */
export function withCanary(stable: readonly string[], canary: readonly string[], percent: number): Server[] {
  if (canary.length === 0 || stable.length === 0) return [...stable, ...canary].map((name) => ({ name, weight: 1 }));
  return inLowestTerms([
    ...stable.map((name) => ({ name, weight: canary.length * (100 - percent) })),
    ...canary.map((name) => ({ name, weight: stable.length * percent })),
  ]);
}

/** One series of a query's answer. */
interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What users got from one track: finished requests since the watch began. */
export interface Observation {
  readonly requests: number;
  /** Those answered by 5xx. */
  readonly errors: number;
  /** Upper bound in seconds -> how many requests took no longer. Ascending; the last bound is infinite. */
  readonly durations: readonly (readonly [bound: number, requests: number])[];
}

/** Every counter that judging needs, as it stands: the answer goes into a `Tally`. */
export const COUNTERS =
  `sum by (track, instance, status_code, le) ` +
  `(${METRICS.httpRequestDuration.name}_bucket{job="${TRACK_NAMES.stable}",${USER_ROUTES}})`;

/**
 * What was counted since the first answer to `COUNTERS`. Not by `increase()`: that does not see the first value of a
 * new series, and the one 500 of a route is the first value of a new series.
 */
export class Tally {
  readonly #last = new Map<string, number>();
  readonly #grown = new Map<string, Series>();

  constructor(answer: readonly Series[]) {
    this.add(answer);
    this.#grown.clear();
  }

  /** A series that an answer lacks, as when a scrape failed, keeps what it had. */
  add(answer: readonly Series[]): void {
    for (const { labels, value } of answer) {
      const key = ['track', 'instance', 'status_code', 'le'].map((label) => labels[label]).join(' ');
      const last = this.#last.get(key) ?? 0;
      // A counter that is lower than before began anew.
      const growth = value - (last > value ? 0 : last);
      this.#grown.set(key, { labels, value: (this.#grown.get(key)?.value ?? 0) + growth });
      this.#last.set(key, value);
    }
  }

  of(track: Track): Observation {
    const own = [...this.#grown.values()].filter(({ labels }) => labels['track'] === track);
    const bounds = new Map<number, number>();
    for (const { labels, value } of own) {
      const bound = labels['le'] === '+Inf' ? Infinity : Number(labels['le']);
      bounds.set(bound, (bounds.get(bound) ?? 0) + value);
    }
    const failed = own.filter(({ labels }) => labels['le'] === '+Inf' && labels['status_code']?.startsWith('5'));
    return {
      requests: bounds.get(Infinity) ?? 0,
      errors: failed.reduce((sum, { value }) => sum + value, 0),
      durations: [...bounds].sort(([a], [b]) => a - b),
    };
  }
}

export interface Trial {
  readonly stable: Observation;
  readonly canary: Observation;
  /** Of all requests, as the gateway deals them out. */
  readonly percent: number;
  readonly elapsedSeconds: number;
  readonly windowSeconds: number;
}

/** How much worse than the stable release a canary may be. */
export interface Tolerance {
  /** Percentage points of requests answered by 5xx. */
  readonly errorPoints: number;
  /** Its p95 may be the stable one's times `latencyFactor` plus `latencyMs`. */
  readonly latencyFactor: number;
  readonly latencyMs: number;
}

export interface Verdict {
  readonly what: 'wait' | 'promote' | 'abort';
  /** A sentence without a full stop. */
  readonly reason: string;
}

/** Sure enough to end it early, though it is asked again and again: once in a thousand by chance. */
const SURE = 3.09;
/** Sure enough at the end of the window: once in twenty by chance. */
const CONFIDENT = 1.645;

/**
 * Promoted only at the end of the window and only when it is shown to be no worse; aborted as soon as it is shown to
 * be worse, and at the end when neither could be shown. More errors never turn an abort into anything better.
 */
export function judge(trial: Trial, tolerance: Tolerance): Verdict {
  const { stable, canary, elapsedSeconds, windowSeconds } = trial;
  const abort = (reason: string): Verdict => ({ what: 'abort', reason });
  const worse = excess(canary, stable, SURE);
  const allowed = tolerance.errorPoints / 100;
  const errors =
    `${ratio(canary)} of its requests failed (${canary.errors} of ${canary.requests}), ` +
    `${ratio(stable)} of the stable release's, and ${tolerance.errorPoints} points more are allowed`;
  if (worse.atLeast > allowed) return abort(errors);

  const lost = lostRequests(trial);
  if (lost !== undefined) return abort(lost);

  const limit = latencyLimit(stable, tolerance);
  const slow = limit === undefined ? 0 : shareSlowerThan(canary, limit);
  const latency = `its p95 is ${milliseconds(p95(canary))}, the stable release's ${milliseconds(p95(stable))}`;
  // A process that has just started is slow for a while.
  const warm = elapsedSeconds >= windowSeconds / 2;
  if (warm && interval(slow, canary.requests, SURE)[0] > 0.05) return abort(latency);

  if (elapsedSeconds < windowSeconds) return { what: 'wait', reason: 'nothing is wrong so far' };
  const end = excess(canary, stable, CONFIDENT);
  if (end.atLeast > allowed || end.observed > allowed) return abort(errors);
  if (end.atMost > allowed || limit === undefined) {
    return abort(
      `the window is over and ${canary.requests} requests to it (${stable.requests} to the stable release) are too few ` +
        `to tell whether it is worse: give it a longer window or more percent`,
    );
  }
  if (slow > 0.05) return abort(latency);
  return { what: 'promote', reason: `${ratio(canary)} of ${canary.requests} requests failed and ${latency}` };
}

/** What was seen so far, in one line. */
export function describe({ stable, canary }: Trial): string {
  const one = (name: string, track: Observation) =>
    `${name} ${track.requests} requests, ${ratio(track)} failed, p95 ${milliseconds(p95(track))}`;
  return `${one('canary', canary)}; ${one('stable', stable)}`;
}

/**
 * By how much the canary's error ratio exceeds the stable one's, with the bounds of Newcombe's interval for the
 * difference of two proportions (method 10), which holds for few requests and for no errors too.
 */
function excess(canary: Observation, stable: Observation, z: number) {
  const [high, low] = [errorRatio(canary), errorRatio(stable)];
  const [canaryFrom, canaryTo] = interval(high, canary.requests, z);
  const [stableFrom, stableTo] = interval(low, stable.requests, z);
  const observed = high - low;
  return {
    observed,
    atLeast: observed - Math.hypot(high - canaryFrom, stableTo - low),
    atMost: observed + Math.hypot(canaryTo - high, low - stableFrom),
  };
}

/** Wilson's interval of a proportion that was seen in n trials. */
function interval(proportion: number, n: number, z: number): [from: number, to: number] {
  if (n === 0) return [0, 1];
  const centre = proportion + (z * z) / (2 * n);
  const half = z * Math.sqrt((proportion * (1 - proportion)) / n + (z * z) / (4 * n * n));
  const scale = 1 + (z * z) / n;
  return [Math.max(0, (centre - half) / scale), Math.min(1, (centre + half) / scale)];
}

/**
 * Requests that end in no answer are counted by nobody: a broken connection, an answer that never comes. They show as
 * a share that is too small. Half of it is far more than scrapes at different moments explain, after this many.
 */
function lostRequests({ stable, canary, percent, elapsedSeconds }: Trial): string | undefined {
  const total = stable.requests + canary.requests;
  const due = (total * percent) / 100;
  if (elapsedSeconds < 8 * SCRAPE_INTERVAL_SECONDS || due < 50 || canary.requests >= due / 2) return undefined;
  const share = `${((100 * canary.requests) / total).toFixed(1)} %`;
  return `it finished ${share} of all requests although it is given ${percent} %: the others got no answer from it`;
}

function latencyLimit(stable: Observation, { latencyFactor, latencyMs }: Tolerance): number | undefined {
  const usual = p95(stable);
  return usual === undefined ? undefined : usual * latencyFactor + latencyMs / 1000;
}

const errorRatio = ({ errors, requests }: Observation) => (requests === 0 ? 0 : errors / requests);

/** Seconds, evenly spread within a bucket, as Prometheus assumes; undefined without requests. */
function p95({ durations, requests }: Observation): number | undefined {
  if (requests === 0) return undefined;
  const rank = 0.95 * requests;
  let [from, below] = [0, 0];
  for (const [to, count] of durations) {
    // Nobody knows how long those in the last bucket took.
    if (count >= rank) return Number.isFinite(to) ? from + ((to - from) * (rank - below)) / (count - below) : from;
    [from, below] = [to, count];
  }
  return from;
}

function shareSlowerThan({ durations, requests }: Observation, limit: number): number {
  if (requests === 0) return 0;
  let [from, below] = [0, 0];
  for (const [to, count] of durations) {
    if (to > limit) {
      const within = Number.isFinite(to) ? ((count - below) * (limit - from)) / (to - from) : 0;
      return 1 - (below + within) / requests;
    }
    [from, below] = [to, count];
  }
  return 0;
}

const ratio = (track: Observation) => `${(100 * errorRatio(track)).toFixed(1)} %`;
const milliseconds = (seconds: number | undefined) =>
  seconds === undefined ? 'unknown' : `${Math.round(seconds * 1000)} ms`;
