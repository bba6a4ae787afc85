import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS, REFUSED_ROUTE } from '../../../app/telemetry/names';
import { JOBS } from '../exporters';
import { USER_ROUTES } from '../prometheus';
import { bucketUpTo } from '../rules';
import { LATENCY_SECONDS } from '../slo';
import { type Bounds, type DashboardSpec, failureBounds, latencyBounds, type PanelSpec, percentFrom } from './builder';
import { ratio, seriesOf, shareOf, sum } from './query';

const api = seriesOf(JOBS.api);
const duration = METRICS.httpRequestDuration.name;
const count = `${duration}_count`;
const MILLISECONDS = `${1_000 * LATENCY_SECONDS} ms`;
const requests = (...matchers: readonly string[]) => api.rate(count, USER_ROUTES, ...matchers);

/** The histogram times refusals apart; what they were of says their counter, which has no method. */
const refused = METRICS.httpRequestsRefused.name;
const NOT_REFUSED = `route!="${REFUSED_ROUTE}"`;
/** All that was asked of each route, whatever was answered. @param rise of `api` */
const ofRoutes = (rise: (name: string, ...matchers: readonly string[]) => string) =>
  sum(`${rise(count, USER_ROUTES, NOT_REFUSED)} or ${rise(refused, USER_ROUTES)}`, 'route');

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
      queries: { '{{status_code}}': sum(requests(), 'status_code') },
    },
    errors: {
      title: 'Error ratio',
      description: `Share of answers with status 5xx over all routes. Zero is normal; yellow above the objective of ${percentFrom(failureBounds(bounds).warning)}, red where the alert is.`,
      unit: units.PercentUnit,
      width: 8,
      queries: { '5xx': shareOf(sum(requests('status_code=~"5.."')), sum(requests())) },
      thresholds: failureBounds(bounds),
      alerts: ['ApiErrorRateHigh', 'SLOErrorBudgetBurn'],
    },
    latency: {
      title: 'Latency',
      description: `Time from request to finished response over all routes. Yellow above the ${MILLISECONDS} within which the objective wants ${percentFrom(bounds.objectives.objectives.latency)}, red where the alert about p95 is.`,
      unit: units.Seconds,
      width: 8,
      queries: {
        p50: api.quantile(0.5, duration, [], USER_ROUTES),
        p95: api.quantile(0.95, duration, [], USER_ROUTES),
        p99: api.quantile(0.99, duration, [], USER_ROUTES),
      },
      thresholds: latencyBounds(bounds),
      alerts: ['ApiSlow', 'SLOErrorBudgetBurn'],
    },
  }) satisfies Record<string, PanelSpec>;

export const requestsDashboard = (bounds: Bounds): DashboardSpec => ({
  uid: 'loans-requests',
  title: 'Loans / Requests',
  description: 'How many requests come, what they get and how long they take: by route, method and status.',
  jobs: [JOBS.api],
  rows: {
    Rates: rates(bounds),
    Errors: errors(bounds),
    Latencies: latencies(bounds),
    'Refused and repeated': refusals(),
  },
});

function rates(bounds: Bounds): PanelSpec[] {
  return [
    {
      title: 'Request rate by route',
      description:
        'Requests per second by route pattern and method, without probes and scrapes; those answered with 4xx apart, without their method. A fall to nothing is worse than a rise.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: {
        '{{method}} {{route}}': sum(requests(NOT_REFUSED), 'route', 'method'),
        '{{route}} refused': sum(api.rate(refused, USER_ROUTES), 'route'),
      },
    },
    shared(bounds).status,
    {
      kind: 'table',
      title: 'Busiest routes',
      description:
        'Requests in the range of the dashboard, refused ones too. A route that is new here is a new client, or a new attack.',
      unit: units.Short,
      width: 8,
      queries: { '{{route}}': `topk(10, ${ofRoutes(api.total)})` },
    },
  ];
}

function errors(bounds: Bounds): PanelSpec[] {
  return [
    shared(bounds).errors,
    {
      title: 'Error ratio by route',
      description:
        'The route whose answers are 5xx when the panel beside it rises. Yellow or red, and busy: look at its logs.',
      unit: units.PercentUnit,
      width: 8,
      // A route without a failure shows 0, a route without a request shows nothing.
      queries: {
        '{{route}}': shareOf(sum(requests('status_code=~"5.."'), 'route'), ofRoutes(api.rate)),
      },
      thresholds: failureBounds(bounds),
      alerts: ['ApiErrorRateHigh', 'ApiErrors'],
    },
    {
      title: 'Clients at fault by route',
      description: 'Share of answers with status 4xx. A rise after a deploy is a change that a client did not expect.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{route}}': shareOf(sum(api.rate(refused, USER_ROUTES), 'route'), ofRoutes(api.rate)) },
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
      width: 8,
      queries: {
        [`within ${MILLISECONDS}`]: ratio(
          sum(api.rate(within, USER_ROUTES, bucketUpTo(LATENCY_SECONDS))),
          sum(requests()),
        ),
      },
      thresholds: { warning: (1 + objective) / 2, critical: objective, low: true },
      alerts: ['SLOErrorBudgetBurn'],
    },
    {
      kind: 'heatmap',
      title: 'Latency distribution',
      description: 'Number of requests by duration. Two bands mean two kinds of requests, or two kinds of replicas.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{le}}': sum(api.increase(within, USER_ROUTES), 'le') },
    },
    {
      title: 'Latency p95 by route',
      description: 'The route that is slow when the panel above rises. Exports are slow by nature: they are long.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{route}}': api.quantile(0.95, duration, ['route'], USER_ROUTES) },
      thresholds: latencyBounds(bounds),
      alerts: ['ApiSlow', 'ApiResponsesVerySlow'],
    },
    {
      title: 'Mean latency by method',
      description: 'Mean time of an answer. Writes that are slow while reads are not point to locks in the database.',
      unit: units.Seconds,
      width: 12,
      queries: {
        '{{method}}': ratio(sum(api.rate(`${duration}_sum`, USER_ROUTES), 'method'), sum(requests(), 'method')),
      },
    },
  ];
}

function refusals(): PanelSpec[] {
  return [
    {
      title: 'Without a valid key',
      description:
        'Requests refused per second for want of a valid API key or of a scope, by reason. Many with a wrong secret: somebody tries.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{reason}}': sum(api.rate(METRICS.authFailures.name), 'reason') },
    },
    {
      title: 'Too many requests',
      description:
        'Requests per second refused since their caller had made too many, requests that a process judged alone since the database did not answer in time, and how often it could not buy some ahead. Zero is normal.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: {
        refused: sum(api.rate(METRICS.rateLimitRefusals.name)),
        'judged alone': sum(api.rate(METRICS.rateLimitEstimates.name)),
        'purchases failed': sum(api.rate(METRICS.rateLimitPurchases.name, 'result="failed"')),
      },
    },
    {
      title: 'Answers repeated',
      description:
        'Requests per second that got the stored answer of an earlier one with the same Idempotency-Key. A rise: clients repeat, so something is slow or lost on its way.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { repeated: sum(api.rate(METRICS.idempotencyReplays.name)) },
    },
  ];
}
