import { METRICS } from '../../../app/telemetry/names';
import { CONTAINER_METRICS, JOBS } from '../exporters';
import { USER_ROUTES } from '../prometheus';
import type { VariableSpec } from './builder';

/** Drop-downs of the dashboards, beside `env`, which all of them have. */

const ofApi = (metric: string, ...matchers: readonly string[]) =>
  `${metric}{${[`job="${JOBS.api}"`, 'env=~"$env"', ...matchers].join(',')}}`;
const REQUESTS = `${METRICS.httpRequestDuration.name}_count`;

/** One container of the API. `up` would offer addresses. */
export const replica: VariableSpec = {
  name: 'instance',
  label: 'Replica',
  series: ofApi(METRICS.appInfo.name),
  of: 'instance',
};
/** Stable or canary. */
export const track: VariableSpec = { name: 'track', series: ofApi(METRICS.appInfo.name), of: 'track' };
export const route: VariableSpec = { name: 'route', series: ofApi(REQUESTS, USER_ROUTES), of: 'route' };
export const method: VariableSpec = { name: 'method', series: ofApi(REQUESTS, USER_ROUTES), of: 'method' };
export const currency: VariableSpec = { name: 'currency', series: ofApi(METRICS.loansCurrent.name), of: 'currency' };
export const slo: VariableSpec = { name: 'slo', label: 'SLO', series: 'slo:objective:ratio{env=~"$env"}', of: 'slo' };

/** Containers of the stack that run: an hour of deploys leaves dozens of names, and helpers of deploys have theirs. */
export const container = (prefix: string): VariableSpec => ({
  name: 'container',
  series: `${CONTAINER_METRICS.startTime}{job="${JOBS.containers}",env=~"$env",name=~"${prefix}-.+"}`,
  of: 'name',
  present: true,
});
