import type { Config } from '../config';
import { BREAKER } from '../db/breaker';
import type { Logger } from '../telemetry/logger';
import { METRICS } from '../telemetry/names';
import { traceHeaders } from '../telemetry/requests';
import type { SystemFigures, SystemReader } from '../telemetry/system';
import { type Alerts, alertsOf, listed } from './alerts';
import { type Capacity, capacityFrom, capacityOfProcess } from './capacity';
import { readExposition, sumOf } from './exposition';
import {
  type Breakdown,
  breakdownFrom,
  breakdownOfProcess,
  type Counted,
  evaluate,
  expressions,
  type Limits,
  type Overview,
  overviewFrom,
  overviewOfProcess,
  uptimeSecondsOf,
} from './figures';
import { type History, historyFrom, noHistory } from './history';
import { type ObjectiveFigures, objectivesFrom, objectivesOfProcess } from './objectives';
import { createPrometheus, kept, type Prometheus, PrometheusAway, RETRY_MS } from './prometheus';

/**
 * How the service is, for who runs it: figures of all containers from the stack's Prometheus, or of this container
 * alone where that is away or not there. Every answer says which, and of when; none waits long for Prometheus.
 */
export interface Source {
  /** "process": what this container knows of itself. */
  readonly source: 'prometheus' | 'process';
  /** The time of the figures. */
  readonly as_of: string;
  /** Why they are not from Prometheus; null where they are. */
  readonly note: string | null;
}

export interface CircuitBreaker {
  readonly name: 'database' | 'prometheus';
  readonly state: 'closed' | 'open' | 'not-configured';
  readonly open_since: string | null;
  /** Processes to which it is open. */
  readonly processes_open: number | null;
  /** Failures in a row that open it. */
  readonly failures_to_open: number;
  /** How often it is asked whether what failed is back. */
  readonly retry_every_ms: number;
  /** Requests that it refused, since the processes started; null where that is not counted. */
  readonly refused: number | null;
  /** What happens instead. */
  readonly fallback: string;
}

export interface CircuitBreakers {
  readonly circuit_breakers: readonly CircuitBreaker[];
}

export interface Objectives {
  readonly objectives: readonly ObjectiveFigures[];
}

export interface Dashboard extends Overview, CircuitBreakers, Objectives, Source {
  readonly environment: string;
  readonly version: string;
  readonly status: 'ok' | 'attention' | 'critical';
  /** Why it is not ok, in words. */
  readonly reasons: readonly string[];
  readonly alerts: { readonly firing: number; readonly pending: number };
}

export interface Check {
  readonly name: string;
  readonly status: 'up' | 'down' | 'not-configured' | 'unknown';
  readonly detail: string;
}

export interface Health extends Source {
  readonly status: 'ok' | 'degraded';
  readonly checks: readonly Check[];
}

export interface Sre {
  readonly dashboard: () => Promise<Dashboard>;
  readonly health: () => Promise<Health>;
  readonly metrics: () => Promise<Breakdown & Source>;
  readonly capacity: () => Promise<Capacity & Source>;
  readonly circuitBreakers: () => Promise<CircuitBreakers & Source>;
  readonly alerts: () => Promise<Alerts & Source>;
  /** For users: it names nothing but times, shares and plain words. */
  readonly history: () => Promise<History & Source>;
  close(): void;
}

interface Parts {
  readonly config: Config;
  /** Of the whole container, in the text format. */
  readonly metricsText: () => Promise<string>;
  readonly system: SystemReader;
  /** Whether the database answers, as everybody is told. */
  readonly databaseIsUp: () => Promise<boolean>;
  readonly logger: Logger;
  readonly now: () => Date;
  /** How many times as long answers are kept as usually; 0 for tests. */
  readonly keep?: number | undefined;
}

/** Milliseconds. Prometheus scrapes every 15 s and evaluates its rules no more often. */
const KEEP = { figures: 5_000, objectives: 15_000, capacity: 60_000, history: 60_000, process: 1_000 } as const;

export function createSre(parts: Parts): Sre {
  const { config, metricsText, system, databaseIsUp, logger, now, keep = 1 } = parts;
  const { environment: env, version, prometheusUrl } = config;
  const prometheus =
    prometheusUrl === undefined ? undefined : createPrometheus(prometheusUrl, logger, now, traceHeaders);
  const firstSeen = { database: undefined as string | undefined };

  const count = kept(KEEP.process * keep, async (): Promise<Counted> => {
    const [text, figures] = await Promise.all([metricsText(), system.read()]);
    return { samples: readExposition(text), asOf: now().getTime() / 1_000, system: figures };
  });
  const limitsOf = ({ cpu, memory }: SystemFigures): Limits => ({
    cpus: cpu.count,
    memoryBytes: memory.total,
    // One connection of each process is kept aside for probes.
    connections: Math.max(1, config.database.poolSize - 1) * config.processes,
  });

  /**
   * Asks Prometheus for all of an answer, or else finds all of it here: an answer has one source. What the processes
   * have counted is asked of all of them, so only who uses it waits for that, or fails with it.
   */
  async function from<T extends object>(
    ask: (prometheus: Prometheus, at: number) => Promise<T | undefined>,
    here: () => T | Promise<T>,
  ): Promise<T & Source> {
    let note = 'No Prometheus is configured (PROMETHEUS_URL).';
    if (prometheus !== undefined) {
      try {
        const at = await prometheus.now();
        const found = Number.isFinite(at) ? await ask(prometheus, at) : undefined;
        if (found !== undefined) {
          return { source: 'prometheus', as_of: new Date(at * 1_000).toISOString(), note: null, ...found };
        }
        note = `Prometheus knows no container of the API of ${env} yet.`;
      } catch (error) {
        if (!(error instanceof PrometheusAway)) throw error;
        note = 'Prometheus does not answer.';
      }
    }
    const found = await here();
    return { source: 'process', as_of: now().toISOString(), note, ...found };
  }

  const database = (open: number | undefined, refused: number | undefined): CircuitBreaker => {
    const isOpen = (open ?? 0) > 0;
    firstSeen.database = isOpen ? (firstSeen.database ?? now().toISOString()) : undefined;
    return {
      name: 'database',
      state: isOpen ? 'open' : 'closed',
      open_since: firstSeen.database ?? null,
      processes_open: open ?? null,
      failures_to_open: BREAKER.failures,
      retry_every_ms: BREAKER.askEveryMs,
      refused: refused ?? null,
      fallback: 'Requests that need the database get 503 db-unavailable at once, with Retry-After.',
    };
  };
  const ofPrometheus = (): CircuitBreaker => {
    const state = prometheus?.state();
    return {
      name: 'prometheus',
      state: state === undefined ? 'not-configured' : state.open ? 'open' : 'closed',
      open_since: state?.openedAt ?? null,
      processes_open: state === undefined ? null : Number(state.open),
      failures_to_open: 1,
      retry_every_ms: RETRY_MS,
      refused: null,
      fallback: 'The figures of /sre/ are those of the container that answers, and say so.',
    };
  };
  const breakersHere = async (): Promise<CircuitBreakers> => {
    const { samples } = await count();
    const shed = sumOf(samples, METRICS.requestsShed.name, ({ reason }) => reason === 'circuit_open');
    return { circuit_breakers: [database(sumOf(samples, METRICS.dbCircuitOpen.name), shed), ofPrometheus()] };
  };
  async function breakersFrom(source: Prometheus, at: number): Promise<CircuitBreakers | undefined> {
    const { known, openCircuits } = expressions(env);
    const shed = `sum(${METRICS.requestsShed.name}{job="api",env="${env}",reason="circuit_open"})`;
    const values = await evaluate(source, { known, openCircuits, shed }, at);
    if (values.known === undefined) return undefined;
    return { circuit_breakers: [database(values.openCircuits, values.shed), ofPrometheus()] };
  }

  /** What a process can tell without rules: that it has no database, and that it has no Prometheus. */
  async function alertsHere(): Promise<Alerts> {
    const since = now().toISOString();
    const alert = (name: string, severity: string, summary: string, from: string | null) => ({
      ...{ name, severity, state: 'firing' as const, active_since: from ?? since, summary },
      ...{ description: null, runbook_url: null, labels: {} },
    });
    const away = prometheus?.state();
    const found = [
      ...((await databaseIsUp())
        ? []
        : [
            alert(
              'DatabaseUnavailable',
              'critical',
              'The database does not answer this container',
              firstSeen.database ?? null,
            ),
          ]),
      ...(away?.open === true
        ? [alert('PrometheusUnavailable', 'warning', 'Prometheus does not answer this container', away.openedAt)]
        : []),
    ];
    return { watchdog: null, ...listed(found) };
  }

  const objectivesKept = kept(KEEP.objectives * keep, () =>
    from<Objectives>(
      async (source, at) => ({ objectives: await objectivesFrom(source, env, at, config.promises) }),
      async () => {
        const counted = await count();
        return { objectives: objectivesOfProcess(counted.samples, uptimeSecondsOf(counted), config.promises) };
      },
    ),
  );
  const overview = kept(KEEP.figures * keep, () =>
    from<Overview>(
      async (source, at) => overviewFrom(source, env, at, limitsOf(await system.read())),
      async () => {
        const counted = await count();
        return overviewOfProcess(counted, limitsOf(counted.system));
      },
    ),
  );
  const alerts = kept(KEEP.figures * keep, () =>
    from<Alerts>(async (source) => alertsOf(await source.alerts(), env), alertsHere),
  );
  const circuitBreakers = kept(KEEP.figures * keep, () => from<CircuitBreakers>(breakersFrom, breakersHere));
  const metrics = kept(KEEP.figures * keep, () =>
    from<Breakdown>(
      (source, at) => breakdownFrom(source, env, at),
      async () => breakdownOfProcess(await count()),
    ),
  );
  const place = (figures: SystemFigures) => ({ env, limits: limitsOf(figures), capacityRps: config.capacityRps });
  const capacity = kept(KEEP.capacity * keep, () =>
    from<Capacity>(
      async (source, at) => {
        const figures = await system.read();
        return capacityFrom(source, at, figures, place(figures));
      },
      async () => {
        const counted = await count();
        return capacityOfProcess(counted, place(counted.system));
      },
    ),
  );
  const history = kept(KEEP.history * keep, () =>
    from<History>(
      (source, at) => historyFrom(source, env, at),
      () => noHistory(now().getTime() / 1_000),
    ),
  );

  return {
    metrics,
    capacity,
    circuitBreakers,
    alerts,
    history,
    async dashboard() {
      const [figures, { objectives }, { circuit_breakers }, found] = await Promise.all([
        overview(),
        objectivesKept(),
        circuitBreakers(),
        alerts(),
      ]);
      const urgent = found.alerts.filter(({ state, severity }) => state === 'firing' && severity === 'critical');
      const firing = found.alerts.filter(({ state, severity }) => state === 'firing' && severity === 'warning');
      const open = circuit_breakers.filter(({ state, name }) => state === 'open' && name === 'database');
      const spent = objectives.filter(({ error_budget_remaining: left }) => left !== null && left <= 0);
      const words = (list: Alerts['alerts']) => [...new Set(list.map(({ name, summary }) => `${name}: ${summary}`))];
      const critical = [...words(urgent), ...open.map(({ name }) => `The circuit breaker of the ${name} is open`)];
      const attention = [...words(firing), ...spent.map(({ name }) => `The error budget of ${name} is used up`)];
      return {
        environment: env,
        version,
        ...figures,
        status: critical.length > 0 ? 'critical' : attention.length > 0 ? 'attention' : 'ok',
        reasons: [...critical, ...attention],
        objectives,
        circuit_breakers,
        alerts: { firing: found.firing, pending: found.pending },
      };
    },
    async health() {
      const [up, { source, as_of, note, resources }] = await Promise.all([databaseIsUp(), overview()]);
      const { containers_answering: answering, containers_known: known } = resources;
      const state = prometheus?.state();
      const checks: Check[] = [
        { name: 'process', status: 'up', detail: 'It answers.' },
        {
          name: 'database',
          status: up ? 'up' : 'down',
          detail: up ? 'It answers this container.' : 'It does not answer this container.',
        },
        {
          name: 'containers',
          status: source === 'process' ? 'unknown' : answering === known ? 'up' : 'down',
          detail:
            source === 'process' ? 'Only Prometheus sees the others.' : `${answering} of ${known} answer Prometheus.`,
        },
        {
          name: 'prometheus',
          status: state === undefined ? 'not-configured' : state.open ? 'down' : 'up',
          detail: state?.reason ?? (state === undefined ? 'No address is configured (PROMETHEUS_URL).' : 'It answers.'),
        },
      ];
      const status = checks.every((check) => check.status !== 'down') ? 'ok' : 'degraded';
      return { source, as_of, note, status, checks };
    },
    close: () => prometheus?.close(),
  };
}
