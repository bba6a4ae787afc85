import { METRICS } from '../../../app/telemetry/names';
import { JOBS } from '../exporters';

/**
 * PromQL as the dashboards write it. Every selector names the job that its series come from, and obeys the variables.
 * A dashboard that lacks a variable asks without its matcher: see `withoutMissing` in builder.ts.
 */

export type Job = (typeof JOBS)[keyof typeof JOBS];

/** The label that tells the containers of the API apart. */
export const REPLICA = 'instance';

/** Variables that choose some of the API's series. They filter the job `api` alone: other jobs have other instances. */
const OF_API = ['instance=~"$instance"', 'track=~"$track"'];

/** Series of one job. */
export function seriesOf(job: Job) {
  const chosen = job === JOBS.api ? OF_API : [];
  const select = (name: string, ...matchers: readonly string[]) =>
    `${name}{${[`job="${job}"`, 'env=~"$env"', ...chosen, ...matchers].join(',')}}`;
  /** The rise in a second. */
  const rate = (name: string, ...matchers: readonly string[]) => `rate(${select(name, ...matchers)}[$__rate_interval])`;
  return {
    select,
    rate,
    /** The same some time ago. @param offset such as 1d */
    rateBefore: (offset: string, name: string, ...matchers: readonly string[]) =>
      `rate(${select(name, ...matchers)}[$__rate_interval] offset ${offset})`,
    /** The rise in the range of the dashboard. */
    total: (name: string, ...matchers: readonly string[]) => `increase(${select(name, ...matchers)}[$__range])`,
    /** No data while nothing happens, rather than NaN. @param by labels to group by */
    quantile: (q: number, histogram: string, by: readonly string[] = [], ...matchers: readonly string[]) =>
      `histogram_quantile(${q}, sum by (${[...by, 'le'].join(', ')}) (${rate(`${histogram}_bucket`, ...matchers)})) >= 0`,
  };
}

/** A function of `seriesOf` that gives the rises of a counter. */
export type Rise = (name: string, ...matchers: readonly string[]) => string;

/**
 * Requests by method, route and status. Failures (5xx) come from a counter that starts at 0: the histogram's series of a
 * failure begins with the first one, which no rise contains. It stands in where a release has no such counter.
 */
export const requestsOf = (rise: Rise, ...matchers: readonly string[]) =>
  `(${rise(METRICS.httpRequestsFailed.name, ...matchers)} or ${rise(`${METRICS.httpRequestDuration.name}_count`, ...matchers)})`;

/** Matcher of the answers that are our failure. */
export const FAILED = 'status_code=~"5.."';

export const sum = (expression: string, ...by: readonly string[]) => aggregate('sum', expression, by);
export const max = (expression: string, ...by: readonly string[]) => aggregate('max', expression, by);
export const min = (expression: string, ...by: readonly string[]) => aggregate('min', expression, by);

function aggregate(operator: string, expression: string, by: readonly string[]): string {
  return `${operator}${by.length > 0 ? ` by (${by.join(', ')}) ` : ''}(${expression})`;
}

/** No data where there is nothing to divide by, rather than NaN. */
export const ratio = (part: string, whole: string) => `${part} / (${whole} > 0)`;

/** 0 where the whole is there and no part of it: a route without a failure, not a gap. */
export const shareOf = (part: string, whole: string) => ratio(`(${part} or 0 * ${whole})`, whole);

/** A rise in a minute: the same number at every zoom, unlike that in a step of the graph. */
export const perMinute = (rate: string) => `60 * ${rate}`;

/** Prometheus extrapolates rises: without this a request is 1.07 requests. */
export const rounded = (count: string) => `round(${count})`;

/** Those above 0, by name. While there is none, one 0 named `all`: a source that is lost still shows no data. */
export const onlyAboveZero = (counts: string, label: string) =>
  `(${counts} > 0) or label_replace(sum(${counts}) == 0, "${label}", "all", "", "")`;
