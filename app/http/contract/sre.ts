import { z } from 'zod';
import type { Alerts } from '../../sre/alerts';
import type { Capacity } from '../../sre/capacity';
import type { Breakdown } from '../../sre/figures';
import type { History } from '../../sre/history';
import type { CircuitBreakers, Dashboard, Health, Source } from '../../sre/sre';
import { api, type Components, CONTENT_TAG, operations } from './operation';
import { count, timestamp } from './values';

/** How the service is, for who runs it. */
const figure = z.number().nullable();
const share = z.number().nullable();

const sourced = {
  source: z.enum(['prometheus', 'process']).meta({
    description: 'prometheus: of all containers. process: only of the container that answers, since it started',
  }),
  as_of: timestamp.meta({ description: 'The time of the figures' }),
  note: z.string().nullable().meta({ description: 'Why they are not from Prometheus; null where they are' }),
};

const traffic = z.strictObject({
  window_seconds: z.number().positive().meta({ description: 'What rates and quantiles are of' }),
  requests_per_second: figure.meta({ description: "Of users: no probes, no scrapes, and none of these pages' own" }),
  error_ratio: share.meta({ description: 'Share of 5xx; null where nobody asked' }),
  p50_seconds: figure,
  p95_seconds: figure,
  p99_seconds: figure,
  in_flight: figure,
});

const resources = z.strictObject({
  containers_answering: count,
  containers_known: count,
  cpu_cores: figure,
  cpu_limit_cores: z.number().min(0),
  memory_bytes: figure,
  memory_limit_bytes: z.number().min(0),
  event_loop_lag_p99_seconds: figure,
  database_connections: figure.meta({ description: 'Of the pools, in use' }),
  database_connections_limit: count,
  database_waiting: figure.meta({ description: 'Requests that wait for a connection' }),
});

const line = z.array(figure);
const recent = z.strictObject({
  from: timestamp,
  step_seconds: z.number().positive(),
  requests_per_second: line,
  error_ratio: line,
  p95_seconds: line,
});

const objective = z.strictObject({
  name: z.enum(['availability', 'success', 'latency', 'freshness']),
  meaning: z.string(),
  objective: z.number().meta({ description: 'Share of what must be good' }),
  window_days: z.number().positive(),
  measured: share.meta({
    description: 'Share of what was good in the window; null where nothing was asked or counted',
  }),
  error_budget: z.number().meta({ description: 'Share of what may fail' }),
  error_budget_remaining: figure.meta({ description: '1: all of it, 0: none, below 0: overdrawn' }),
  burn_rate: figure.meta({ description: 'Of the last hour; 1 uses the budget up exactly by the end of the window' }),
  budget_gone_in_hours: figure.meta({ description: 'At this rate; null where nothing burns' }),
  measured_by: z.enum(['recorded', 'direct', 'process', 'none']).meta({
    description: 'recorded: from slo:*; direct: from other series, over a day; process: of what this container counted',
  }),
});

const circuitBreaker = z.strictObject({
  name: z.enum(['database', 'prometheus']),
  state: z.enum(['closed', 'open', 'not-configured']),
  open_since: timestamp.nullable().meta({ description: 'When it was first seen open' }),
  processes_open: z.number().nullable(),
  failures_to_open: z.int().positive(),
  retry_every_ms: z.int().positive(),
  refused: z.number().nullable().meta({ description: 'Requests that it refused since the processes started' }),
  fallback: z.string(),
});

export const dashboardSchema = z.strictObject({
  environment: z.string(),
  version: z.string(),
  ...sourced,
  status: z.enum(['ok', 'attention', 'critical']),
  reasons: z.array(z.string()),
  traffic,
  resources,
  recent: recent.nullable().meta({ description: 'The last hour; null without Prometheus' }),
  objectives: z.array(objective),
  circuit_breakers: z.array(circuitBreaker),
  alerts: z.strictObject({ firing: count, pending: count }),
}) satisfies z.ZodType<Dashboard>;

export const sreHealthSchema = z.strictObject({
  ...sourced,
  status: z.enum(['ok', 'degraded']),
  checks: z.array(
    z.strictObject({
      name: z.string(),
      status: z.enum(['up', 'down', 'not-configured', 'unknown']),
      detail: z.string(),
    }),
  ),
}) satisfies z.ZodType<Health>;

export const sreMetricsSchema = z.strictObject({
  ...sourced,
  traffic,
  routes: z
    .array(
      z.strictObject({
        method: z.string(),
        route: z.string(),
        requests_per_second: z.number(),
        error_ratio: share,
        p95_seconds: figure,
      }),
    )
    .meta({
      description:
        'The busiest first. Those answered with 4xx are told apart, by route alone (method "any") and without times',
    }),
  database: z.array(z.strictObject({ operation: z.string(), per_second: z.number(), p95_seconds: figure })),
}) satisfies z.ZodType<Breakdown & Source>;

const resource = z.strictObject({
  name: z.enum(['requests', 'cpu', 'memory', 'database_connections', 'disk', 'database_disk', 'loans']),
  unit: z.enum(['requests per second', 'cores', 'bytes', 'connections', 'loans']),
  used: figure,
  limit: figure,
  utilisation: share.meta({ description: 'Share of the limit' }),
  growth: z
    .strictObject({
      per_day: z.number(),
      low_per_day: figure,
      high_per_day: figure,
      confidence: z.number().meta({ description: 'That the growth lies between low and high' }),
      method: z.literal('theil-sen').meta({ description: 'The median of the slopes between all pairs of points' }),
      points: z.int(),
      history_seconds: z.number(),
    })
    .nullable()
    .meta({ description: 'Null where the history is too short' }),
  days_until_limit: figure.meta({
    description: 'Null where nothing grows to the limit within ten times the history',
  }),
  days_until_limit_at_soonest: figure.meta({ description: 'By the steepest growth of the interval' }),
  note: z.string().nullable(),
});

export const capacitySchema = z.strictObject({
  ...sourced,
  containers: z.number().min(0),
  resources: z.array(resource),
  recommendation: z.strictObject({
    action: z.enum(['keep', 'add', 'remove', 'unknown']),
    containers: z.number().min(0),
    reason: z.string(),
    further: z.array(z.string()),
  }),
}) satisfies z.ZodType<Capacity & Source>;

export const circuitBreakersSchema = z.strictObject({
  ...sourced,
  circuit_breakers: z.array(circuitBreaker),
}) satisfies z.ZodType<CircuitBreakers & Source>;

export const alertsSchema = z.strictObject({
  ...sourced,
  watchdog: z
    .boolean()
    .nullable()
    .meta({ description: 'Whether the alert that always fires does; null where no rules are evaluated' }),
  firing: count,
  pending: count,
  alerts: z.array(
    z.strictObject({
      name: z.string(),
      severity: z.string(),
      state: z.enum(['pending', 'firing']),
      active_since: timestamp,
      summary: z.string(),
      description: z.string().nullable(),
      runbook_url: z.string().nullable(),
      labels: z.record(z.string(), z.string()),
    }),
  ),
}) satisfies z.ZodType<Alerts & Source>;

const period = z.strictObject({
  from: timestamp,
  availability: share.meta({ description: 'Share of the known time in which the service could be reached' }),
  known: z.number().min(0).max(1).meta({ description: 'Share of the period that anything is known of' }),
});

export const historySchema = z.strictObject({
  ...sourced,
  days: z.array(period).meta({ description: 'Days of UTC, oldest first' }),
  hours: z.array(period).meta({ description: 'Oldest first' }),
  incidents: z
    .array(z.strictObject({ what: z.string(), from: timestamp, to: timestamp.nullable() }))
    .meta({ description: 'Newest first; what lasts has no end' }),
  incidents_from: timestamp.meta({ description: 'How far back incidents are known' }),
}) satisfies z.ZodType<History & Source>;

export const SRE_COMPONENTS: Components = {
  SreDashboard: dashboardSchema,
  SreHealth: sreHealthSchema,
  SreMetrics: sreMetricsSchema,
  SreCapacity: capacitySchema,
  SreCircuitBreakers: circuitBreakersSchema,
  SreAlerts: alertsSchema,
  StatusHistory: historySchema,
};

// How near to its limits a service is, is worth knowing to whoever wants to push it over them.
export const SRE_OPERATIONS = operations([
  {
    id: 'sreDashboard',
    access: 'sre:read',
    method: 'GET',
    paths: ['/sre/dashboard'],
    summary: 'Traffic, failures, latency, resources, objectives and what is wrong, at a glance',
    answer: { status: 200, schema: 'SreDashboard' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
  {
    id: 'sreHealth',
    access: 'sre:read',
    method: 'GET',
    paths: ['/sre/health'],
    summary: 'What the service needs, and whether it is there',
    answer: { status: 200, schema: 'SreHealth' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
  {
    id: 'sreMetrics',
    access: 'sre:read',
    method: 'GET',
    paths: ['/sre/metrics'],
    summary: 'Rate, failures and latency by route, and by operation on the database',
    answer: { status: 200, schema: 'SreMetrics' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
  {
    id: 'sreCapacity',
    access: 'sre:read',
    method: 'GET',
    paths: ['/sre/capacity'],
    summary: 'How full things are, how they grow, when they are full, and how many containers the load wants',
    answer: { status: 200, schema: 'SreCapacity' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
  {
    id: 'sreCircuitBreakers',
    access: 'sre:read',
    method: 'GET',
    paths: ['/sre/circuit-breakers'],
    summary: 'The breakers before what the service depends on',
    answer: { status: 200, schema: 'SreCircuitBreakers' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
  {
    id: 'sreAlerts',
    access: 'sre:read',
    method: 'GET',
    paths: ['/sre/alerts'],
    summary: 'What is wrong now, with its runbook',
    answer: { status: 200, schema: 'SreAlerts' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
  {
    // It shows nothing without a key, which only the page knows.
    id: 'sreDashboardPage',
    access: 'public',
    method: 'GET',
    paths: ['/sre/dashboard-ui'],
    summary: 'All of it as a page, which asks for an API key where one is needed',
    answer: { status: 200, mediaType: 'text/html', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    id: 'sreDashboardScript',
    access: 'public',
    method: 'GET',
    paths: ['/sre/dashboard.js'],
    summary: 'The script of that page',
    answer: { status: 200, mediaType: 'text/javascript', headers: CONTENT_TAG },
    headers: ['If-None-Match'],
    problems: [],
  },
  {
    // For users, who see it at /status.
    id: 'statusHistory',
    access: 'public',
    method: 'GET',
    paths: api('/status/history'),
    summary: 'How the service was: by day, by hour, and what went wrong, in plain words',
    answer: { status: 200, schema: 'StatusHistory' },
    problems: ['invalid-parameter', 'metrics-unavailable'],
  },
]);
