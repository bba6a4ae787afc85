import type { JOBS } from '../exporters';

/** PromQL as the dashboards write it: every selector obeys the variables, and names the job that the series come from. */

export type Job = (typeof JOBS)[keyof typeof JOBS];

/**
 * Series of one job. The job stands beside the variable, since `All` of a variable is `.+`: several jobs export
 * `process_cpu_seconds_total`.
 */
export function seriesOf(job: Job) {
  const select = (name: string, ...matchers: readonly string[]) =>
    `${name}{${[`job="${job}"`, 'job=~"$job"', 'instance=~"$instance"', 'env=~"$env"', ...matchers].join(',')}}`;
  /** A second's rise. */
  const rate = (name: string, ...matchers: readonly string[]) => `rate(${select(name, ...matchers)}[$__rate_interval])`;
  return {
    select,
    rate,
    /** The rise in each step of a graph. */
    increase: (name: string, ...matchers: readonly string[]) =>
      `increase(${select(name, ...matchers)}[$__rate_interval])`,
    /** The rise in the range of the dashboard. */
    total: (name: string, ...matchers: readonly string[]) => `increase(${select(name, ...matchers)}[$__range])`,
    /** @param by labels that are told apart */
    quantile: (q: number, histogram: string, by: readonly string[] = [], ...matchers: readonly string[]) =>
      `histogram_quantile(${q}, sum by (${[...by, 'le'].join(', ')}) (${rate(`${histogram}_bucket`, ...matchers)}))`,
  };
}

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
