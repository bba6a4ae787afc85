import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { JOBS } from '../exporters';
import { USER_ROUTES } from '../prometheus';
import type { DashboardSpec, PanelSpec } from './builder';
import { ratio, seriesOf, shareOf, sum } from './query';

const api = seriesOf(JOBS.api);
const duration = METRICS.httpRequestDuration.name;
const count = `${duration}_count`;
const requests = (...matchers: readonly string[]) => api.rate(count, USER_ROUTES, ...matchers);

export const OBJECTIVES = { latencySeconds: 0.2, withinLatency: 0.95, failures: 0.01 } as const;

/** Panels that the overview shows too. */
export const shared = {
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
    description: 'Share of answers with status 5xx over all routes. Zero is normal; the objective is below 1 %.',
    unit: units.PercentUnit,
    width: 8,
    queries: { '5xx': shareOf(sum(requests('status_code=~"5.."')), sum(requests())) },
    thresholds: { critical: OBJECTIVES.failures },
    alerts: ['ApiErrorRateHigh', 'SLOErrorBudgetBurn'],
  },
  latency: {
    title: 'Latency',
    description: 'Time from request to finished response over all routes. The objective is 95 % within 200 ms.',
    unit: units.Seconds,
    width: 8,
    queries: {
      p50: api.quantile(0.5, duration, [], USER_ROUTES),
      p95: api.quantile(0.95, duration, [], USER_ROUTES),
      p99: api.quantile(0.99, duration, [], USER_ROUTES),
    },
    thresholds: { critical: OBJECTIVES.latencySeconds },
    alerts: ['ApiSlow', 'SLOErrorBudgetBurn'],
  },
} satisfies Record<string, PanelSpec>;

export const requestsDashboard: DashboardSpec = {
  uid: 'loans-requests',
  title: 'Loans / Requests',
  description: 'How many requests come, what they get and how long they take: by route, method and status.',
  jobs: [JOBS.api],
  rows: { Rates: rates(), Errors: errors(), Latencies: latencies(), 'Refused and repeated': refusals() },
};

function rates(): PanelSpec[] {
  return [
    {
      title: 'Request rate by route',
      description:
        'Requests per second by route pattern and method, without probes and scrapes. A fall to nothing is worse than a rise.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{method}} {{route}}': sum(requests(), 'route', 'method') },
    },
    shared.status,
    {
      kind: 'table',
      title: 'Busiest routes',
      description: 'Requests in the range of the dashboard. A route that is new here is a new client, or a new attack.',
      unit: units.Short,
      width: 8,
      queries: { '{{method}} {{route}}': `topk(10, ${sum(api.total(count, USER_ROUTES), 'route', 'method')})` },
    },
  ];
}

function errors(): PanelSpec[] {
  return [
    shared.errors,
    {
      title: 'Error ratio by route',
      description:
        'The route whose answers are 5xx when the panel beside it rises. Above 1 % of a busy route: look at its logs.',
      unit: units.PercentUnit,
      width: 8,
      // A route without a failure shows 0, a route without a request shows nothing.
      queries: {
        '{{route}}': shareOf(sum(requests('status_code=~"5.."'), 'route'), sum(requests(), 'route')),
      },
      thresholds: { critical: OBJECTIVES.failures },
      alerts: ['ApiErrorRateHigh', 'ApiErrors'],
    },
    {
      title: 'Clients at fault by route',
      description: 'Share of answers with status 4xx. A rise after a deploy is a change that a client did not expect.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{route}}': shareOf(sum(requests('status_code=~"4.."'), 'route'), sum(requests(), 'route')),
      },
    },
  ];
}

function latencies(): PanelSpec[] {
  const within = `${duration}_bucket`;
  return [
    shared.latency,
    {
      title: 'Share within 200 ms',
      description: 'Share of requests that were answered within the latency objective. Below 95 % it is missed.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        'within 200 ms': ratio(
          sum(api.rate(within, USER_ROUTES, `le="${OBJECTIVES.latencySeconds}"`)),
          sum(requests()),
        ),
      },
      thresholds: { warning: 0.98, critical: OBJECTIVES.withinLatency, low: true },
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
      thresholds: { critical: OBJECTIVES.latencySeconds },
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
        'Requests per second refused since their caller had made too many, and requests that a process judged alone since the database did not answer in time. Zero is normal.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: {
        refused: sum(api.rate(METRICS.rateLimitRefusals.name)),
        'judged alone': sum(api.rate(METRICS.rateLimitEstimates.name)),
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
