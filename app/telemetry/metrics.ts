import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { allowedMoves, LOAN_STATUSES, type LoanStatus } from '../domain/loan';
import { METRICS, type MetricDefinition } from './names';

/** The service's own registry and the typed handles of every metric in METRICS. */
export interface Metrics {
  readonly registry: Registry;
  readonly httpRequestsInFlight: Gauge;
  readonly dbQueryErrors: Counter;
  readonly idempotencyReplays: Counter;
  readonly rateLimitRefusals: Counter;
  readonly rateLimitEstimates: Counter;
  /** The state of the connection pool, read whenever the metrics are collected. */
  watchPool(pool: PoolState): void;
  /** The state of the breaker before the database, likewise. */
  watchCircuit(isOpen: () => boolean): void;
  readonly requestsShed: Counter<'reason'>;
  /**
   * Seconds. The route is a pattern of ours, never a path that a client made up.
   * @param traceId where the trace is sampled: it becomes the exemplar of its bucket
   */
  observeRequest(method: string, route: string, status: number, seconds: number, traceId?: string): void;
  observeQuery(operation: string, seconds: number): void;
  /** Money is lent only in the currencies of ISO 4217, so that the values of this label are bounded. */
  countLoan(currency: string): void;
  countRepayment(currency: string): void;
  countReversal(currency: string): void;
  countTransition(from: LoanStatus, to: LoanStatus): void;
  countAuthFailure(reason: AuthFailure): void;
  countPurchase(result: 'done' | 'failed'): void;
}

/**
 * Why a request was refused: no key at all, a text that never was one, a key for another environment, an id that does
 * not exist, a wrong secret, a key that is no longer in force, or one that lacks the scope.
 */
const AUTH_FAILURES = [
  'missing',
  'malformed',
  'environment',
  'unknown',
  'secret',
  'revoked',
  'expired',
  'scope',
] as const;
export type AuthFailure = (typeof AUTH_FAILURES)[number];

interface PoolState {
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
}

interface BuildInformation {
  readonly version: string;
  readonly commit: string;
  readonly environment: string;
}

/** SQLSTATE classes that do happen; they start at 0, so that a first error is a rise and not a new series. */
const SQLSTATE_CLASSES = ['connection', '08', '22', '23', '40', '42', '53', '55', '57', 'other'] as const;
const SHED_REASONS = ['circuit_open', 'queue'] as const;
const KNOWN_CURRENCIES = ['INR', 'KES', 'NGN', 'PHP', 'VND'] as const;

export function createMetrics({ version, commit, environment }: BuildInformation): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const requestDuration = histogram(registry, METRICS.httpRequestDuration, true);
  const queryDuration = histogram(registry, METRICS.dbQueryDuration);
  const loansCreated = new Counter({ ...METRICS.loansCreated, ...own(registry, METRICS.loansCreated) });
  const dbQueryErrors = new Counter({ ...METRICS.dbQueryErrors, ...own(registry, METRICS.dbQueryErrors) });
  for (const sqlstate_class of SQLSTATE_CLASSES) dbQueryErrors.inc({ sqlstate_class }, 0);
  const repayments = new Counter({ ...METRICS.repayments, ...own(registry, METRICS.repayments) });
  const reversals = new Counter({ ...METRICS.repaymentReversals, ...own(registry, METRICS.repaymentReversals) });
  for (const counter of [loansCreated, repayments, reversals]) {
    for (const currency of KNOWN_CURRENCIES) counter.inc({ currency }, 0);
  }
  const requestsShed = new Counter({ ...METRICS.requestsShed, ...own(registry, METRICS.requestsShed) });
  for (const reason of SHED_REASONS) requestsShed.inc({ reason }, 0);
  const transitions = new Counter({ ...METRICS.loanTransitions, ...own(registry, METRICS.loanTransitions) });
  const purchases = new Counter({ ...METRICS.rateLimitPurchases, ...own(registry, METRICS.rateLimitPurchases) });
  for (const result of ['done', 'failed']) purchases.inc({ result }, 0);
  for (const from of LOAN_STATUSES) {
    for (const to of allowedMoves(from)) {
      transitions.inc({ from, to }, 0);
      // A repayment that is taken back.
      if (to === 'repaid') transitions.inc({ from: to, to: from }, 0);
    }
  }
  const authFailures = new Counter({ ...METRICS.authFailures, ...own(registry, METRICS.authFailures) });
  for (const reason of AUTH_FAILURES) authFailures.inc({ reason }, 0);
  // The same in every process of a cluster: adding it up would make it the number of processes.
  new Gauge({ ...METRICS.appInfo, ...own(registry, METRICS.appInfo), aggregator: 'first' }).set(
    { version, commit, environment },
    1,
  );

  const observers = new Map<string, { observe(seconds: number): void }>();
  return {
    registry,
    httpRequestsInFlight: gauge(registry, METRICS.httpRequestsInFlight),
    dbQueryErrors,
    idempotencyReplays: new Counter({ ...METRICS.idempotencyReplays, ...own(registry, METRICS.idempotencyReplays) }),
    rateLimitRefusals: new Counter({ ...METRICS.rateLimitRefusals, ...own(registry, METRICS.rateLimitRefusals) }),
    rateLimitEstimates: new Counter({ ...METRICS.rateLimitEstimates, ...own(registry, METRICS.rateLimitEstimates) }),
    watchPool(pool) {
      gauge(registry, METRICS.dbPoolConnections, () => pool.totalCount);
      gauge(registry, METRICS.dbPoolIdle, () => pool.idleCount);
      gauge(registry, METRICS.dbPoolWaiting, () => pool.waitingCount);
    },
    watchCircuit(isOpen) {
      gauge(registry, METRICS.dbCircuitOpen, () => Number(isOpen()));
    },
    requestsShed,
    observeRequest(method, route, status, seconds, traceId) {
      if (traceId !== undefined) {
        const labels = { method, route, status_code: String(status) };
        requestDuration.observe({ labels, value: seconds, exemplarLabels: { trace_id: traceId } });
        return;
      }
      const key = `${method} ${route} ${status}`;
      let observer = observers.get(key);
      if (observer === undefined) {
        observer = requestDuration.labels(method, route, String(status));
        observers.set(key, observer);
      }
      observer.observe(seconds);
    },
    observeQuery(operation, seconds) {
      let observer = observers.get(operation);
      if (observer === undefined) {
        observer = queryDuration.labels(operation);
        observers.set(operation, observer);
      }
      observer.observe(seconds);
    },
    countLoan: (currency) => loansCreated.inc({ currency }),
    countRepayment: (currency) => repayments.inc({ currency }),
    countReversal: (currency) => reversals.inc({ currency }),
    countTransition: (from, to) => transitions.inc({ from, to }),
    countAuthFailure: (reason) => authFailures.inc({ reason }),
    countPurchase: (result) => purchases.inc({ result }),
  };
}

/** The class of an error for the metric: from SQLSTATE, or "connection" where the database gave no code. */
export function sqlstateClass(code: string | undefined): string {
  if (code === undefined || !/^[0-9A-Z]{5}$/.test(code)) return 'connection';
  const known: readonly string[] = SQLSTATE_CLASSES;
  return known.includes(code.slice(0, 2)) ? code.slice(0, 2) : 'other';
}

function own(registry: Registry, definition: MetricDefinition) {
  return { labelNames: definition.labels, registers: [registry] };
}

function gauge(registry: Registry, definition: MetricDefinition, read?: () => number): Gauge {
  return new Gauge({
    name: definition.name,
    help: definition.help,
    ...own(registry, definition),
    collect() {
      if (read !== undefined) this.set(read());
    },
  });
}

function histogram(registry: Registry, definition: MetricDefinition, enableExemplars = false): Histogram {
  const { name, help, labels: labelNames, buckets = [] } = definition;
  // Registered apart: the library refuses exemplars where it does not write OpenMetrics; ours are written by `expose`.
  const made = new Histogram({ name, help, labelNames, buckets: [...buckets], enableExemplars, registers: [] });
  registry.registerMetric(made);
  return made;
}
