import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { minorUnits } from '../domain/currency';
import { allowedMoves, type Loan, LOAN_STATUSES, type LoanStatus } from '../domain/loan';
import { type Amount, formatAmount } from '../domain/money';
import { PROCESS_START } from './exposition';
import { METRICS, type MetricDefinition, REFUSED_ROUTE } from './names';

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
   * Seconds. The route is a pattern of ours, never a path that a client made up. A refusal (4xx) is counted by its route,
   * and timed as one of all refusals: how long they take says nothing about a route, and would be most of the series.
   * Those of probes and of who runs the service are timed apart, since they are no users'.
   * @param traceId where the trace is sampled: it becomes the exemplar of its bucket
   */
  observeRequest(method: string, route: string, status: number, seconds: number, traceId?: string): void;
  observeQuery(operation: string, seconds: number, slow: boolean): void;
  countLoan(loan: Pick<Loan, 'currency' | 'amount'>): void;
  countRepayment(currency: string): void;
  countReversal(currency: string): void;
  countTransition(from: LoanStatus, to: LoanStatus): void;
  /** Seconds from the request for a loan to its approval or rejection. */
  observeDecision(seconds: number): void;
  /** The figures of the book as they were read at this time. */
  showBook(book: Book, readAt: Date): void;
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

/** Kept figures of all loans, one group for each currency and status that there is; see loan_totals in the database. */
export type Book = readonly {
  readonly currency: string;
  readonly status: LoanStatus;
  readonly loans: bigint;
  /** Undefined if the database has no number there: see `recount`. */
  readonly total: Amount | undefined;
  /** Of the total, what was paid or settled of the principal. Undefined likewise. */
  readonly principalPaid: Amount | undefined;
}[];

interface PoolState {
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
}

interface BuildInformation {
  readonly version: string;
  readonly commit: string;
  readonly environment: string;
  readonly release?: string;
}

/** One status of 5xx that an operation may answer with. */
export interface Failure {
  readonly method: string;
  /** As `observeRequest` gets it. */
  readonly route: string;
  readonly status: number;
}

/** SQLSTATE classes that do happen; they start at 0, so that a first error is a rise and not a new series. */
const SQLSTATE_CLASSES = ['connection', '08', '22', '23', '40', '42', '53', '55', '57', 'other'] as const;
const SHED_REASONS = ['circuit_open', 'queue'] as const;
const KNOWN_CURRENCIES = ['INR', 'KES', 'NGN', 'PHP', 'VND'] as const;
/**
 * ISO 4217 has some 160 codes, and each has dozens of series: as many as lenders use have their own, in a process. What
 * is beyond them is counted together, and its amounts are not told, since those of several currencies have no sum.
 */
const MOST_CURRENCIES = 12;
const OTHER = 'other';
/** REFUSED_ROUTE where no user asked, but who runs the service or a probe: objectives of users leave /sre/ out. */
const REFUSED_OPERATOR = '/sre/refused';
const OPERATOR_ROUTE = /^\/(?:health(?:[/-].*)?|metrics|sre\/.*)$/;
/** Whatever the method was: that of a refusal is the client's. */
const ANY = 'any';
const EVENT_LOOP_LAGS = ['seconds', 'p50_seconds', 'p90_seconds', 'p99_seconds'] as const;
/** In these a loan's principal is with the borrower. */
const WITH_BORROWER: readonly LoanStatus[] = ['disbursed', 'defaulted'];

/** @param failures what requests may fail with: each of them is counted from 0 on, so that the first is a rise */
export function createMetrics(
  { version, commit, environment, release = '' }: BuildInformation,
  failures: readonly Failure[] = [],
): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  aggregateOverProcesses(registry);
  const requestDuration = histogram(registry, METRICS.httpRequestDuration, true);
  const refusals = counter(registry, METRICS.httpRequestsRefused);
  const failed = counter(registry, METRICS.httpRequestsFailed);
  for (const { method, route, status } of failures) failed.inc({ method, route, status_code: status }, 0);
  const queryDuration = histogram(registry, METRICS.dbQueryDuration);
  const slowQueries = counter(registry, METRICS.dbSlowQueries);
  const amountRequested = histogram(registry, METRICS.loanAmountRequested);
  const decisionDuration = histogram(registry, METRICS.loanDecisionDuration);
  const loansCreated = new Counter({ ...METRICS.loansCreated, ...own(registry, METRICS.loansCreated) });
  const dbQueryErrors = new Counter({ ...METRICS.dbQueryErrors, ...own(registry, METRICS.dbQueryErrors) });
  for (const sqlstate_class of SQLSTATE_CLASSES) dbQueryErrors.inc({ sqlstate_class }, 0);
  const repayments = new Counter({ ...METRICS.repayments, ...own(registry, METRICS.repayments) });
  const reversals = new Counter({ ...METRICS.repaymentReversals, ...own(registry, METRICS.repaymentReversals) });
  for (const counter of [loansCreated, repayments, reversals]) {
    for (const currency of KNOWN_CURRENCIES) counter.inc({ currency }, 0);
  }
  for (const currency of KNOWN_CURRENCIES) amountRequested.zero({ currency });
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
    { version, commit, environment, release },
    1,
  );

  const labelOf = createCurrencyLabels();
  const showBook = createBookGauges(registry, labelOf);
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
      const refused = status >= 400 && status < 500;
      if (refused) refusals.inc({ route, status_code: status });
      // The histogram cannot start at 0 for each status of each operation: that would be some 800 series.
      if (status >= 500) failed.inc({ method, route, status_code: status });
      const timedAs = refused ? (OPERATOR_ROUTE.test(route) ? REFUSED_OPERATOR : REFUSED_ROUTE) : route;
      const labels = [refused ? ANY : method, timedAs, String(status)] as const;
      if (traceId !== undefined) {
        const [timedMethod, timedRoute, status_code] = labels;
        requestDuration.observe({
          labels: { method: timedMethod, route: timedRoute, status_code },
          value: seconds,
          exemplarLabels: { trace_id: traceId },
        });
        return;
      }
      const key = labels.join(' ');
      let observer = observers.get(key);
      if (observer === undefined) {
        observer = requestDuration.labels(...labels);
        observers.set(key, observer);
      }
      observer.observe(seconds);
    },
    observeQuery(operation, seconds, slow) {
      let observer = observers.get(operation);
      if (observer === undefined) {
        observer = queryDuration.labels(operation);
        observers.set(operation, observer);
        slowQueries.inc({ operation }, 0);
      }
      observer.observe(seconds);
      if (slow) slowQueries.inc({ operation });
    },
    countLoan({ currency: code, amount }) {
      const currency = labelOf(code);
      loansCreated.inc({ currency });
      if (currency !== OTHER) amountRequested.observe({ currency }, unitsOf(amount));
    },
    countRepayment: (currency) => repayments.inc({ currency: labelOf(currency) }),
    countReversal: (currency) => reversals.inc({ currency: labelOf(currency) }),
    observeDecision: (seconds) => decisionDuration.observe(seconds),
    showBook,
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

/** The first that are asked for have a label of their own, those that are known to come before all others. */
function createCurrencyLabels(): (code: string) => string {
  const labels = new Set<string>(KNOWN_CURRENCIES);
  return (code) => {
    if (labels.has(code)) return code;
    if (labels.size >= MOST_CURRENCIES || minorUnits(code) === undefined) return OTHER;
    labels.add(code);
    return code;
  };
}

/**
 * Nothing is shown before the first time: a process that has just started would show an empty book. All processes of a
 * cluster read the same book, so that one of them tells for all. Which one that is nobody says: the time is that of the
 * oldest, so that it is no newer than what is shown.
 */
function createBookGauges(registry: Registry, labelOf: (code: string) => string): Metrics['showBook'] {
  const ofBook = (definition: MetricDefinition) => gauge(registry, definition, undefined, 'first');
  const current = ofBook(METRICS.loansCurrent);
  const amounts = ofBook(METRICS.loansAmount);
  const outstanding = ofBook(METRICS.loansOutstanding);
  const refreshed = gauge(registry, METRICS.loansRefreshed, undefined, 'min');
  // The library starts with a 0, which would be the oldest of all for as long as a process starts.
  refreshed.remove();
  return (book, readAt) => {
    const loansOf = new Map<string, bigint>();
    for (const { currency, loans } of book) loansOf.set(currency, (loansOf.get(currency) ?? 0n) + loans);
    const byLoans = [...loansOf].sort(([a, m], [b, n]) => Number(n - m) || (a < b ? -1 : 1)).map(([code]) => code);
    const shown = [...new Set<string>([...KNOWN_CURRENCIES, ...byLoans.map(labelOf)])];
    for (const each of [current, amounts, outstanding]) each.reset();
    for (const currency of shown) {
      // A status that has no loan any more is at 0, not gone.
      for (const status of LOAN_STATUSES) current.set({ status, currency }, 0);
      if (currency === OTHER) continue;
      for (const status of LOAN_STATUSES) amounts.set({ status, currency }, 0);
      outstanding.set({ currency }, 0);
    }
    for (const { currency: code, status, loans, total, principalPaid } of book) {
      const currency = labelOf(code);
      current.inc({ status, currency }, Number(loans));
      if (currency === OTHER) continue;
      amounts.inc({ status, currency }, unitsOf(total));
      if (WITH_BORROWER.includes(status)) outstanding.inc({ currency }, unitsOf(total) - unitsOf(principalPaid));
    }
    refreshed.set(readAt.getTime() / 1_000);
  };
}

/** For a graph, which is no place for exact money. */
function unitsOf(amount: Amount | undefined): number {
  return amount === undefined ? NaN : Number(formatAmount(amount));
}

function own(registry: Registry, definition: MetricDefinition) {
  return { labelNames: definition.labels, registers: [registry] };
}

function counter(registry: Registry, definition: MetricDefinition): Counter {
  return new Counter({ name: definition.name, help: definition.help, ...own(registry, definition) });
}

/** What the library's own metrics say of several processes, where that is not what is asked of a container. */
function aggregateOverProcesses(registry: Registry): void {
  const over = (name: string, aggregator: 'min' | 'max') =>
    Object.assign(registry.getSingleMetric(name) ?? {}, { aggregator });
  // Left out by the library.
  over(PROCESS_START, 'min');
  // A mean by the library: one event loop that hangs would be hidden by those that do not.
  for (const lag of EVENT_LOOP_LAGS) over(`nodejs_eventloop_lag_${lag}`, 'max');
}

/** @param aggregator how the values of several processes make one; by default they are added up */
function gauge(
  registry: Registry,
  definition: MetricDefinition,
  read?: () => number,
  aggregator: 'sum' | 'first' | 'min' = 'sum',
): Gauge {
  return new Gauge({
    aggregator,
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
