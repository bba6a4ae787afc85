/**
 * Seam between the service and its monitoring: every metric the API exports, with its type, labels and buckets.
 * The service registers its metrics from this table and dashboards and alerts are built from it, so a panel
 * cannot ask for a metric that does not exist.
 */
export interface MetricDefinition {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds in the metric's unit; histograms only. */
  readonly buckets?: readonly number[];
}

/** Seconds. 0.2 must be a bucket bound: it is the latency objective. */
const latencyBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5] as const;

/** Route of httpRequestDuration for what was answered with 4xx; httpRequestsRefused counts it by its own. */
export const REFUSED_ROUTE = 'refused';

export const METRICS = {
  httpRequestDuration: {
    name: 'http_request_duration_seconds',
    type: 'histogram',
    help: 'Time from request to finished response, by route pattern; route "refused" for what is answered with 4xx ("/sre/refused" where no user asked), see http_requests_refused_total',
    labels: ['method', 'route', 'status_code'],
    buckets: latencyBuckets,
  },
  httpRequestsRefused: {
    name: 'http_requests_refused_total',
    type: 'counter',
    help: 'Requests that were answered with a status of 4xx, by route pattern',
    labels: ['route', 'status_code'],
  },
  httpRequestsFailed: {
    name: 'http_requests_failed_total',
    type: 'counter',
    help: 'Requests that were answered with a status of 5xx, by method and route pattern; starts at 0 for every operation, so that the first failure is a rise',
    labels: ['method', 'route', 'status_code'],
  },
  httpRequestsInFlight: {
    name: 'http_requests_in_flight',
    type: 'gauge',
    help: 'Requests being served now',
    labels: [],
  },
  dbQueryDuration: {
    name: 'db_query_duration_seconds',
    type: 'histogram',
    help: 'Time of one database query, by the name of the operation',
    labels: ['operation'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.2, 0.5, 2],
  },
  dbQueryErrors: {
    name: 'db_query_errors_total',
    type: 'counter',
    help: 'Failed database queries by SQLSTATE class; "connection" where the database gave no code',
    labels: ['sqlstate_class'],
  },
  dbPoolConnections: {
    name: 'db_pool_connections',
    type: 'gauge',
    help: 'Database connections that the pool holds',
    labels: [],
  },
  dbPoolIdle: {
    name: 'db_pool_idle_connections',
    type: 'gauge',
    help: 'Database connections of the pool that are idle',
    labels: [],
  },
  dbPoolWaiting: {
    name: 'db_pool_waiting_requests',
    type: 'gauge',
    help: 'Requests that wait for a database connection',
    labels: [],
  },
  dbCircuitOpen: {
    name: 'db_circuit_open',
    type: 'gauge',
    help: 'Processes to which the database is away, and that refuse at once what needs it',
    labels: [],
  },
  requestsShed: {
    name: 'requests_shed_total',
    type: 'counter',
    help: 'Work refused at once (503) because it could not have been done in time, by what said so',
    labels: ['reason'],
  },
  loansCurrent: {
    name: 'loans_current',
    type: 'gauge',
    help: 'Loans of the book, the same in every process, as it was at loans_metrics_refreshed_timestamp_seconds; currency "other" for those beyond the first dozen',
    labels: ['status', 'currency'],
  },
  loansAmount: {
    name: 'loans_amount_current',
    type: 'gauge',
    help: 'Amounts of the loans of the book in units of their currency; never to be added over currencies',
    labels: ['status', 'currency'],
  },
  loansOutstanding: {
    name: 'loans_principal_outstanding',
    type: 'gauge',
    help: 'What borrowers of disbursed and defaulted loans still owe of the principal in units of the currency',
    labels: ['currency'],
  },
  loansRefreshed: {
    name: 'loans_metrics_refreshed_timestamp_seconds',
    type: 'gauge',
    help: 'When the figures of the book were last read from the database (Unix time), of the processes of a container the oldest; none before the first time',
    labels: [],
  },
  loanAmountRequested: {
    name: 'loan_amount_requested',
    type: 'histogram',
    help: 'Amounts of the loans created, in units of the currency',
    labels: ['currency'],
    buckets: [100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000],
  },
  loanDecisionDuration: {
    name: 'loan_decision_duration_seconds',
    type: 'histogram',
    help: 'Time from the request for a loan to its approval or rejection',
    labels: [],
    buckets: [1, 10, 60, 600, 3_600, 21_600, 86_400, 259_200, 604_800],
  },
  dbSlowQueries: {
    name: 'db_slow_queries_total',
    type: 'counter',
    help: 'Database queries that took longer than the threshold of the slow query log, by the name of the operation',
    labels: ['operation'],
  },
  loansCreated: {
    name: 'loans_created_total',
    type: 'counter',
    help: 'Loans created by this service since it started',
    labels: ['currency'],
  },
  loanTransitions: {
    name: 'loan_status_transitions_total',
    type: 'counter',
    help: 'Loans that this service moved from one status to another since it started',
    labels: ['from', 'to'],
  },
  repayments: {
    name: 'loan_repayments_total',
    type: 'counter',
    help: 'Repayments recorded by this service since it started',
    labels: ['currency'],
  },
  repaymentReversals: {
    name: 'loan_repayment_reversals_total',
    type: 'counter',
    help: 'Repayments taken back by this service since it started',
    labels: ['currency'],
  },
  idempotencyReplays: {
    name: 'idempotency_replays_total',
    type: 'counter',
    help: 'Requests that got the stored answer of an earlier one with the same Idempotency-Key',
    labels: [],
  },
  authFailures: {
    name: 'auth_failures_total',
    type: 'counter',
    help: 'Requests that were refused for want of a valid API key or of a scope, by reason',
    labels: ['reason'],
  },
  rateLimitRefusals: {
    name: 'rate_limit_refusals_total',
    type: 'counter',
    help: 'Requests that were refused since their caller had made too many',
    labels: [],
  },
  rateLimitPurchases: {
    name: 'rate_limit_purchases_total',
    type: 'counter',
    help: 'Round trips to the database to buy requests for callers ahead of time: "done" or "failed"',
    labels: ['result'],
  },
  rateLimitEstimates: {
    name: 'rate_limit_estimates_total',
    type: 'counter',
    help: 'Requests judged by this process alone, since the database did not answer in time',
    labels: [],
  },
  appInfo: {
    name: 'app_info',
    type: 'gauge',
    help: 'Constant 1; the labels say what runs',
    labels: ['version', 'commit', 'environment', 'release'],
  },
} as const satisfies Record<string, MetricDefinition>;

/**
 * PromQL: requests per second, in series by method, route and status. Those of a failure come from a counter that starts at
 * 0. The histogram's series of a failure begins with the first one, so `rate` does not see that one; it stands in for the
 * counter where a release has none, as after a rollback to an earlier version.
 * @param matchers of labels that both have, such as job, env, instance, method, route, status_code
 */
export function requestRate(matchers: string, window: string): string {
  const { httpRequestsFailed, httpRequestDuration } = METRICS;
  const rate = (name: string) => `rate(${name}{${matchers}}[${window}])`;
  return `(${rate(httpRequestsFailed.name)} or ${rate(`${httpRequestDuration.name}_count`)})`;
}
