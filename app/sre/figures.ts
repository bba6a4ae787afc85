import { PROCESS_START } from '../telemetry/exposition';
import { METRICS, REFUSED_ROUTE, requestRate } from '../telemetry/names';
import type { SystemFigures } from '../telemetry/system';
import { isFailure, isUserRoute, quantileOf, type Sample, sumOf, USER_ROUTES } from './exposition';
import { rounded } from './objectives';
import type { Prometheus, Value } from './prometheus';

/** Traffic, failures, latency and how full things are: from Prometheus of all containers, from a process of its own. */
export interface Traffic {
  /** What rates and quantiles are of: the last minutes, or all since the process started. */
  readonly window_seconds: number;
  readonly requests_per_second: number | null;
  /** Share of 5xx; null where nobody asked. */
  readonly error_ratio: number | null;
  readonly p50_seconds: number | null;
  readonly p95_seconds: number | null;
  readonly p99_seconds: number | null;
  readonly in_flight: number | null;
}

export interface Resources {
  readonly containers_answering: number;
  readonly containers_known: number;
  readonly cpu_cores: number | null;
  /** Of all containers that answer. */
  readonly cpu_limit_cores: number;
  readonly memory_bytes: number | null;
  readonly memory_limit_bytes: number;
  readonly event_loop_lag_p99_seconds: number | null;
  readonly database_connections: number | null;
  readonly database_connections_limit: number;
  readonly database_waiting: number | null;
}

/** One value a step, oldest first; null where nothing is known. */
export interface Recent {
  readonly from: string;
  readonly step_seconds: number;
  readonly requests_per_second: readonly (number | null)[];
  readonly error_ratio: readonly (number | null)[];
  readonly p95_seconds: readonly (number | null)[];
}

export interface Overview {
  readonly traffic: Traffic;
  readonly resources: Resources;
  readonly recent: Recent | null;
}

export interface Route {
  /** ANY_METHOD of what was answered with 4xx: it is counted by route alone, and timed as one of all refusals. */
  readonly method: string;
  readonly route: string;
  readonly requests_per_second: number;
  readonly error_ratio: number | null;
  readonly p95_seconds: number | null;
}

export interface Operation {
  readonly operation: string;
  readonly per_second: number;
  readonly p95_seconds: number | null;
}

export interface Breakdown {
  readonly traffic: Traffic;
  readonly routes: readonly Route[];
  readonly database: readonly Operation[];
}

/** What one container may use. */
export interface Limits {
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Statements at a time, over its processes. */
  readonly connections: number;
}

const WINDOW_SECONDS = 300;
const RECENT_SECONDS = 3_600;
const RECENT_STEP_SECONDS = 60;

const REQUESTS = METRICS.httpRequestDuration.name;
const REFUSALS = METRICS.httpRequestsRefused.name;
const QUERIES = METRICS.dbQueryDuration.name;
/** Names that prom-client chooses. */
const RUNTIME = {
  cpu: 'process_cpu_seconds_total',
  memory: 'process_resident_memory_bytes',
  lag: 'nodejs_eventloop_lag_p99_seconds',
} as const;

/** PromQL by the name of the figure, for an environment. */
export function expressions(env: string) {
  const api = `job="api",env="${env}"`;
  const users = `${api},${USER_ROUTES}`;
  const window = `${WINDOW_SECONDS}s`;
  const rate = (selector: string) => `sum${requestRate(selector, window)}`;
  const quantile = (q: number, by = '') =>
    `histogram_quantile(${q}, sum by (${by}le) (rate(${REQUESTS}_bucket{${users}}[${window}])))`;
  const byRoute = (selector: string) => `sum by (method, route) ${requestRate(selector, window)}`;
  return {
    requests: rate(users),
    // Without a single failure there is no series of failures; without requests there is nothing to divide by.
    errors: `(${rate(`${users},status_code=~"5.."`)} or 0 * ${rate(users)}) / (${rate(users)} > 0)`,
    p50: quantile(0.5),
    p95: quantile(0.95),
    p99: quantile(0.99),
    inFlight: `sum(${METRICS.httpRequestsInFlight.name}{${api}})`,
    answering: `count(up{${api}} == 1)`,
    known: `count(up{${api}})`,
    cpu: `sum(rate(${RUNTIME.cpu}{${api}}[${window}]))`,
    memory: `sum(${RUNTIME.memory}{${api}})`,
    lag: `max(${RUNTIME.lag}{${api}})`,
    connections: `sum(${METRICS.dbPoolConnections.name}{${api}} - ${METRICS.dbPoolIdle.name}{${api}})`,
    waiting: `sum(${METRICS.dbPoolWaiting.name}{${api}})`,
    openCircuits: `sum(${METRICS.dbCircuitOpen.name}{${api}})`,
    // Failures begin at 0, also for operations without a request so far.
    routes: `${byRoute(`${users},route!="${REFUSED_ROUTE}"`)} > 0`,
    refusals: `sum by (route) (rate(${REFUSALS}{${users}}[${window}]))`,
    routeErrors: byRoute(`${users},status_code=~"5.."`),
    routeP95: quantile(0.95, 'method, route, '),
    operations: `sum by (operation) (rate(${QUERIES}_count{${api}}[${window}]))`,
    operationP95: `histogram_quantile(0.95, sum by (operation, le) (rate(${QUERIES}_bucket{${api}}[${window}])))`,
  } as const;
}

type Expression = keyof ReturnType<typeof expressions>;

/** The first value of each; undefined where there is none, or none that is a number. */
export async function evaluate<Name extends string>(
  prometheus: Prometheus,
  queries: Readonly<Record<Name, string>>,
  at: number,
): Promise<Record<Name, number | undefined>> {
  const names = Object.keys(queries) as Name[];
  const values = await Promise.all(
    names.map(async (name) => {
      const value = (await prometheus.query(queries[name], at))[0]?.value;
      return [name, value !== undefined && Number.isFinite(value) ? rounded(value) : undefined] as const;
    }),
  );
  return Object.fromEntries(values) as Record<Name, number | undefined>;
}

const TRAFFIC = ['requests', 'errors', 'p50', 'p95', 'p99', 'inFlight'] as const satisfies Expression[];
const RESOURCES = [
  ...(['answering', 'known', 'cpu', 'memory', 'lag', 'connections', 'waiting'] as const),
] as const satisfies Expression[];

function chosen<Name extends Expression>(env: string, names: readonly Name[]): Record<Name, string> {
  const all = expressions(env);
  return Object.fromEntries(names.map((name) => [name, all[name]])) as Record<Name, string>;
}

function trafficOf(values: Partial<Record<Expression, number | undefined>>): Traffic {
  return {
    window_seconds: WINDOW_SECONDS,
    requests_per_second: values.requests ?? null,
    error_ratio: values.errors ?? null,
    p50_seconds: values.p50 ?? null,
    p95_seconds: values.p95 ?? null,
    p99_seconds: values.p99 ?? null,
    in_flight: values.inFlight ?? null,
  };
}

/** Undefined where Prometheus knows no container of this environment's API. */
export async function overviewFrom(
  prometheus: Prometheus,
  env: string,
  at: number,
  limits: Limits,
): Promise<Overview | undefined> {
  const values = await evaluate(prometheus, chosen(env, [...TRAFFIC, ...RESOURCES]), at);
  if (values.known === undefined) return undefined;
  const answering = values.answering ?? 0;
  return {
    traffic: trafficOf(values),
    resources: {
      containers_answering: answering,
      containers_known: values.known,
      cpu_cores: values.cpu ?? null,
      cpu_limit_cores: rounded(limits.cpus * answering),
      memory_bytes: values.memory ?? null,
      memory_limit_bytes: limits.memoryBytes * answering,
      event_loop_lag_p99_seconds: values.lag ?? null,
      database_connections: values.connections ?? null,
      database_connections_limit: limits.connections * answering,
      database_waiting: values.waiting ?? null,
    },
    recent: await recentFrom(prometheus, env, at),
  };
}

async function recentFrom(prometheus: Prometheus, env: string, at: number): Promise<Recent> {
  const { requests, errors, p95 } = expressions(env);
  const to = Math.floor(at / RECENT_STEP_SECONDS) * RECENT_STEP_SECONDS;
  const from = to - RECENT_SECONDS;
  const steps = RECENT_SECONDS / RECENT_STEP_SECONDS + 1;
  const line = async (expression: string): Promise<(number | null)[]> => {
    const [series] = await prometheus.range(expression, { from, to, step: RECENT_STEP_SECONDS });
    const values = new Map(
      series?.points.map(([time, value]) => [Math.round((time - from) / RECENT_STEP_SECONDS), value]),
    );
    return Array.from({ length: steps }, (_, step) => {
      const value = values.get(step);
      return value === undefined || !Number.isFinite(value) ? null : rounded(value);
    });
  };
  const [requestLine, errorLine, p95Line] = await Promise.all([line(requests), line(errors), line(p95)]);
  return {
    from: new Date(from * 1_000).toISOString(),
    step_seconds: RECENT_STEP_SECONDS,
    requests_per_second: requestLine,
    error_ratio: errorLine,
    p95_seconds: p95Line,
  };
}

export async function breakdownFrom(prometheus: Prometheus, env: string, at: number): Promise<Breakdown | undefined> {
  const all = expressions(env);
  const ask = (name: Expression) => prometheus.query(all[name], at);
  const [values, routes, refusals, failures, p95, operations, operationP95] = await Promise.all([
    evaluate(prometheus, chosen(env, [...TRAFFIC, 'known']), at),
    ...(['routes', 'refusals', 'routeErrors', 'routeP95', 'operations', 'operationP95'] as const).map(ask),
  ]);
  if (values.known === undefined) return undefined;
  const route = ({ method = '', route: pattern = '' }: Value['labels']) => `${method} ${pattern}`;
  const operation = ({ operation: name = '' }: Value['labels']) => name;
  const [failed, slow, slowOperations] = [byName(failures, route), byName(p95, route), byName(operationP95, operation)];
  return {
    traffic: trafficOf(values),
    routes: busiest(
      [
        ...(routes ?? []).map(({ labels, value }) => ({
          method: labels['method'] ?? '',
          route: labels['route'] ?? '',
          requests_per_second: rounded(value),
          error_ratio: value > 0 ? rounded((failed.get(route(labels)) ?? 0) / value) : null,
          p95_seconds: slow.get(route(labels)) ?? null,
        })),
        ...(refusals ?? []).map(({ labels, value }) => refusedRoute(labels['route'], rounded(value))),
      ],
      ({ requests_per_second }) => requests_per_second,
    ),
    database: busiest(
      (operations ?? []).map(({ labels, value }) => ({
        operation: operation(labels),
        per_second: rounded(value),
        p95_seconds: slowOperations.get(operation(labels)) ?? null,
      })),
      ({ per_second }) => per_second,
    ),
  };
}

const ANY_METHOD = 'any';

const refusedRoute = (route = '', perSecond: number): Route => ({
  ...{ method: ANY_METHOD, route, requests_per_second: perSecond },
  error_ratio: perSecond > 0 ? 0 : null,
  p95_seconds: null,
});

function byName(values: readonly Value[] | undefined, name: (labels: Value['labels']) => string): Map<string, number> {
  const finite = (values ?? []).filter(({ value }) => Number.isFinite(value));
  return new Map(finite.map(({ labels, value }) => [name(labels), rounded(value)]));
}

function busiest<T>(rows: readonly T[], rate: (row: T) => number): T[] {
  return [...rows].sort((a, b) => rate(b) - rate(a));
}

/** What this process and its twins in the container have counted themselves. */
export interface Counted {
  readonly samples: readonly Sample[];
  /** When: Unix time. */
  readonly asOf: number;
  readonly system: SystemFigures;
}

/** Since when the container has counted, whoever of its processes answers. */
export function uptimeSecondsOf({ samples, asOf }: Counted): number {
  const start = sumOf(samples, PROCESS_START) ?? asOf;
  return Math.max(1, Math.round(asOf - start));
}

function trafficOfProcess(counted: Counted): Traffic {
  const { samples } = counted;
  const window = uptimeSecondsOf(counted);
  const requests = sumOf(samples, `${REQUESTS}_count`, isUserRoute) ?? 0;
  const failed = sumOf(samples, `${REQUESTS}_count`, (labels) => isUserRoute(labels) && isFailure(labels)) ?? 0;
  const quantile = (q: number) => orNull(quantileOf(samples, q, REQUESTS, isUserRoute));
  return {
    window_seconds: window,
    requests_per_second: rounded(requests / window),
    error_ratio: requests > 0 ? rounded(failed / requests) : null,
    p50_seconds: quantile(0.5),
    p95_seconds: quantile(0.95),
    p99_seconds: quantile(0.99),
    in_flight: orNull(sumOf(samples, METRICS.httpRequestsInFlight.name)),
  };
}

export function overviewOfProcess(counted: Counted, limits: Limits): Overview {
  const { samples, system } = counted;
  const held = sumOf(samples, METRICS.dbPoolConnections.name);
  const idle = sumOf(samples, METRICS.dbPoolIdle.name) ?? 0;
  return {
    traffic: trafficOfProcess(counted),
    resources: {
      containers_answering: 1,
      containers_known: 1,
      cpu_cores: rounded((system.cpu.percent / 100) * system.cpu.count),
      cpu_limit_cores: rounded(limits.cpus),
      memory_bytes: system.memory.used,
      memory_limit_bytes: limits.memoryBytes,
      event_loop_lag_p99_seconds: orNull(sumOf(samples, RUNTIME.lag)),
      database_connections: held === undefined ? null : held - idle,
      database_connections_limit: limits.connections,
      database_waiting: orNull(sumOf(samples, METRICS.dbPoolWaiting.name)),
    },
    recent: null,
  };
}

export function breakdownOfProcess(counted: Counted): Breakdown {
  const { samples } = counted;
  const traffic = trafficOfProcess(counted);
  const perSecond = (total: number | undefined) => rounded((total ?? 0) / traffic.window_seconds);
  const routes = new Map<string, Sample['labels']>();
  const operations = new Set<string>();
  const refused = new Set<string>();
  for (const { name, labels } of samples) {
    if (name === REFUSALS && isUserRoute(labels)) refused.add(labels['route'] ?? '');
    if (name === `${REQUESTS}_count` && isUserRoute(labels) && labels['route'] !== REFUSED_ROUTE)
      routes.set(`${labels['method']} ${labels['route']}`, labels);
    if (name === `${QUERIES}_count`) operations.add(labels['operation'] ?? '');
  }
  return {
    traffic,
    routes: busiest(
      [
        ...[...routes.values()].map(({ method = '', route = '' }) => {
          const own = (labels: Sample['labels']) => labels['method'] === method && labels['route'] === route;
          const all = sumOf(samples, `${REQUESTS}_count`, own) ?? 0;
          const failed = sumOf(samples, `${REQUESTS}_count`, (labels) => own(labels) && isFailure(labels)) ?? 0;
          return {
            ...{ method, route, requests_per_second: perSecond(all) },
            error_ratio: all > 0 ? rounded(failed / all) : null,
            p95_seconds: orNull(quantileOf(samples, 0.95, REQUESTS, own)),
          };
        }),
        ...[...refused].map((route) => {
          const own = (labels: Sample['labels']) => labels['route'] === route;
          return refusedRoute(route, perSecond(sumOf(samples, REFUSALS, own)));
        }),
      ],
      ({ requests_per_second }) => requests_per_second,
    ),
    database: busiest(
      [...operations].map((operation) => {
        const own = (labels: Sample['labels']) => labels['operation'] === operation;
        const p95_seconds = orNull(quantileOf(samples, 0.95, QUERIES, own));
        return { operation, per_second: perSecond(sumOf(samples, `${QUERIES}_count`, own)), p95_seconds };
      }),
      ({ per_second }) => per_second,
    ),
  };
}

function orNull(value: number | undefined): number | null {
  return value === undefined || !Number.isFinite(value) ? null : rounded(value);
}
