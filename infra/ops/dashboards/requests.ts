import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS, REFUSED_ROUTE } from '../../../app/telemetry/names';
import { JOBS } from '../exporters';
import { USER_ROUTES } from '../prometheus';
import { bucketUpTo } from '../rules';
import { LATENCY_SECONDS } from '../slo';
import {
  type Bounds,
  type DashboardSpec,
  failureBounds,
  latencyBounds,
  type PanelSpec,
  percentFrom,
  STATUS_COLOURS,
} from './builder';
import { FAILED, ratio, requestsOf, type Rise, rounded, seriesOf, shareOf, sum } from './query';
import * as variables from './variables';

const api = seriesOf(JOBS.api);
const duration = METRICS.httpRequestDuration.name;
const count = `${duration}_count`;
const MILLISECONDS = `${1_000 * LATENCY_SECONDS} ms`;
const NO_REQUESTS = 'no requests';
export const REQUESTS_UID = 'loans-requests';

const ROUTE = 'route=~"$route"';
const CHOSEN = [ROUTE, 'method=~"$method"'];

/** The histogram times refusals (4xx) apart; what they were of says their counter, which has no method. */
const refused = METRICS.httpRequestsRefused.name;
const NOT_REFUSED = `route!="${REFUSED_ROUTE}"`;

/** Answers but 4xx of the chosen routes and methods. */
const answered = (rise: Rise, ...matchers: readonly string[]) =>
  requestsOf(rise, USER_ROUTES, NOT_REFUSED, ...CHOSEN, ...matchers);
/** Answers with 4xx of the chosen routes, whatever their method. */
const refusals = (rise: Rise) => rise(refused, USER_ROUTES, ROUTE);
/** All that was asked of the chosen routes, whatever was answered. @param by labels that both have */
const asked = (rise: Rise, ...by: readonly string[]) => sum(`${answered(rise)} or ${refusals(rise)}`, ...by);
const failed = (rise: Rise, ...by: readonly string[]) => sum(answered(rise, FAILED), ...by);
/** Seconds; that of refusals is no route's. */
const quantile = (q: number, ...by: readonly string[]) => api.quantile(q, duration, by, USER_ROUTES, ...CHOSEN);

/** From a route to its own page. */
const ofRoute = (route: string) => ({ title: 'This route alone', dashboard: REQUESTS_UID, variables: { route } });

/** Panels that the overview shows too. */
export const shared = (bounds: Bounds) =>
  ({
    status: {
      kind: 'stacked',
      title: 'Responses by status',
      description:
        'Answers per second by status code. 4xx are the clients, 5xx are ours: look at the errors by route below.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: {
        '{{status_code}}': `${sum(answered(api.rate), 'status_code')} or ${sum(refusals(api.rate), 'status_code')}`,
      },
      colours: STATUS_COLOURS,
      empty: NO_REQUESTS,
    },
    errors: {
      title: 'Error ratio',
      description: `Share of answers with status 5xx over all routes. Zero is normal; yellow above the objective of ${percentFrom(failureBounds(bounds).warning)}, red where the alert is.`,
      unit: units.PercentUnit,
      decimals: 2,
      width: 8,
      queries: { '5xx': shareOf(failed(api.rate), asked(api.rate)) },
      thresholds: failureBounds(bounds),
      empty: NO_REQUESTS,
      alerts: ['ApiErrorRateHigh', 'SLOErrorBudgetBurn'],
    },
    latency: {
      title: 'Latency',
      description: `Time from request to finished response over all routes. Yellow above the ${MILLISECONDS} within which the objective wants ${percentFrom(bounds.objectives.objectives.latency)}, red where the alert about p95 is. Points are requests that were traced.`,
      unit: units.Seconds,
      width: 8,
      queries: { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99) },
      thresholds: latencyBounds(bounds),
      exemplars: true,
      empty: NO_REQUESTS,
      alerts: ['ApiSlow', 'SLOErrorBudgetBurn'],
    },
  }) satisfies Record<string, PanelSpec>;

export const requestsDashboard = (bounds: Bounds): DashboardSpec => ({
  uid: REQUESTS_UID,
  title: 'Requests',
  description: 'How many requests come, what they get and how long they take: by route, method and status.',
  variables: [variables.track, variables.replica, variables.route, variables.method],
  rows: {
    'By route': [routes(bounds)],
    Rates: rates(),
    Errors: errors(bounds),
    Latencies: latencies(bounds),
    'Refused and repeated': refusedPanels(),
  },
});

function routes(bounds: Bounds): PanelSpec {
  return {
    kind: 'table',
    title: 'Routes',
    description:
      'Each route in the range of the dashboard, the one with the largest share of errors first. A route that is new here is a new client, or a new attack. Times are of answers but 4xx.',
    width: 24,
    height: 10,
    queries: {
      Requests: `${rounded(asked(api.total, 'route'))} > 0`,
      Errors: shareOf(failed(api.total, 'route'), asked(api.total, 'route')),
      '4xx': shareOf(sum(refusals(api.total), 'route'), asked(api.total, 'route')),
      p95: quantileInRange(0.95),
      p99: quantileInRange(0.99),
    },
    columns: [
      { heading: 'Route', label: 'route', drill: ofRoute('${__value.raw}') },
      { heading: 'Requests', unit: units.LocaleFormat, decimals: 0 },
      { heading: 'Errors', unit: units.PercentUnit, decimals: 2, thresholds: failureBounds(bounds), sort: 'down' },
      { heading: '4xx', unit: units.PercentUnit, decimals: 2 },
      { heading: 'p95', unit: units.Seconds, thresholds: latencyBounds(bounds) },
      { heading: 'p99', unit: units.Seconds },
    ],
    empty: NO_REQUESTS,
    alerts: ['ApiErrors', 'ApiSlow'],
  };
}

const quantileInRange = (q: number) =>
  `histogram_quantile(${q}, sum by (route, le) (${api.total(`${duration}_bucket`, USER_ROUTES, NOT_REFUSED, ...CHOSEN)})) >= 0`;

function rates(): PanelSpec[] {
  const before =
    (offset: string): Rise =>
    (name, ...matchers) =>
      api.rateBefore(offset, name, ...matchers);
  return [
    {
      title: 'Request rate by route',
      description:
        'Requests per second by route pattern and method, without probes and scrapes; those answered with 4xx apart, without their method. A fall to nothing is worse than a rise.',
      unit: units.RequestsPerSecond,
      width: 12,
      queries: {
        // Without the failures' own counter, which has a series of every route at 0.
        '{{method}} {{route}}': sum(api.rate(count, USER_ROUTES, NOT_REFUSED, ...CHOSEN), 'route', 'method'),
        '{{route}} refused': sum(refusals(api.rate), 'route'),
      },
      drill: ofRoute('${__field.labels.route}'),
      empty: NO_REQUESTS,
    },
    {
      title: 'Request rate, compared',
      description:
        'Requests per second now, and at the same time a day and a week ago. Far from both: something changed at the clients, or on their way to us.',
      unit: units.RequestsPerSecond,
      width: 12,
      queries: {
        now: asked(api.rate),
        'a day ago': asked(before('1d')),
        'a week ago': asked(before('1w')),
      },
      empty: NO_REQUESTS,
    },
  ];
}

function errors(bounds: Bounds): PanelSpec[] {
  return [
    { ...shared(bounds).errors, width: 12 },
    { ...shared(bounds).status, width: 12 },
    {
      title: 'Error ratio by route',
      description:
        'The route whose answers are 5xx when the panel above rises. Yellow or red, and busy: look at its logs (make logs LEVEL=error).',
      unit: units.PercentUnit,
      decimals: 2,
      width: 12,
      // A route without a failure shows 0, a route without a request shows nothing.
      queries: { '{{route}}': shareOf(failed(api.rate, 'route'), asked(api.rate, 'route')) },
      thresholds: failureBounds(bounds),
      drill: ofRoute('${__field.labels.route}'),
      empty: NO_REQUESTS,
      alerts: ['ApiErrorRateHigh', 'ApiErrors'],
    },
    {
      title: '4xx ratio by route',
      description: 'Share of answers with status 4xx. A rise after a deploy is a change that a client did not expect.',
      unit: units.PercentUnit,
      width: 12,
      queries: { '{{route}}': shareOf(sum(refusals(api.rate), 'route'), asked(api.rate, 'route')) },
      drill: ofRoute('${__field.labels.route}'),
      empty: NO_REQUESTS,
    },
  ];
}

function latencies(bounds: Bounds): PanelSpec[] {
  const within = `${duration}_bucket`;
  const objective = bounds.objectives.objectives.latency;
  return [
    shared(bounds).latency,
    {
      title: `Share within ${MILLISECONDS}`,
      description: `Share of requests that were answered within the latency objective. Below ${percentFrom(objective)} it is missed, and in yellow more than half of what may be slow is.`,
      unit: units.PercentUnit,
      decimals: 2,
      width: 8,
      queries: {
        [`within ${MILLISECONDS}`]: ratio(
          sum(api.rate(within, USER_ROUTES, ...CHOSEN, bucketUpTo(LATENCY_SECONDS))),
          sum(api.rate(count, USER_ROUTES, ...CHOSEN)),
        ),
      },
      thresholds: { warning: (1 + objective) / 2, critical: objective, low: true },
      empty: NO_REQUESTS,
      alerts: ['SLOErrorBudgetBurn'],
    },
    {
      title: 'Mean latency by method',
      description: 'Mean time of an answer. Writes that are slow while reads are not point to locks in the database.',
      unit: units.Seconds,
      width: 8,
      queries: {
        '{{method}}': ratio(
          sum(api.rate(`${duration}_sum`, USER_ROUTES, ...CHOSEN), 'method'),
          sum(api.rate(count, USER_ROUTES, ...CHOSEN), 'method'),
        ),
      },
      empty: NO_REQUESTS,
    },
    {
      title: 'Latency p95 by route',
      description: 'The route that is slow when the panel above rises. Exports are slow by nature: they are long.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{route}}': quantile(0.95, 'route') },
      thresholds: latencyBounds(bounds),
      drill: ofRoute('${__field.labels.route}'),
      exemplars: true,
      empty: NO_REQUESTS,
      alerts: ['ApiSlow', 'ApiResponsesVerySlow'],
    },
    {
      kind: 'heatmap',
      title: 'Latency distribution',
      description: 'Requests per second by duration. Two bands mean two kinds of requests, or two kinds of replicas.',
      unit: units.RequestsPerSecond,
      width: 12,
      queries: { '{{le}}': sum(api.rate(within, USER_ROUTES, ...CHOSEN), 'le') },
      empty: NO_REQUESTS,
    },
  ];
}

function refusedPanels(): PanelSpec[] {
  return [
    {
      title: 'Without a valid key',
      description:
        'Requests refused per second for want of a valid API key or of a scope, by reason. Many with a wrong secret: someone tries to guess one.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{reason}}': sum(api.rate(METRICS.authFailures.name), 'reason') },
    },
    {
      title: 'Too many requests',
      description:
        'Requests per second refused since their caller had made too many (429); requests that a process decided locally, since the database did not answer in time; and how often it failed to refill its quota from the database. Zero is normal.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: {
        refused: sum(api.rate(METRICS.rateLimitRefusals.name)),
        'decided locally': sum(api.rate(METRICS.rateLimitEstimates.name)),
        'quota refill failed': sum(api.rate(METRICS.rateLimitPurchases.name, 'result="failed"')),
      },
    },
    {
      title: 'Idempotent replays',
      description:
        'Requests per second that got the stored answer of an earlier one with the same Idempotency-Key. A rise: clients repeat, so something is slow or lost on its way.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { replayed: sum(api.rate(METRICS.idempotencyReplays.name)) },
    },
  ];
}
