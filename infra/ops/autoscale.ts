import { METRICS } from '../../app/telemetry/names';
import type { AutoscaleSpec, Limits } from '../environment';
import { CONTAINER_METRICS, JOBS, RUNTIME_METRICS } from './exporters';
import { type Track, TRACK_NAMES } from './prometheus';

/**
 * How many API containers a load wants. The rules are those of Kubernetes' horizontal pod autoscaler: as many as bring
 * each signal to its target, the most that any signal wants, nothing within a band around the target, and fewer only
 * when fewer would have been enough all the time of a window.
 */

/** What a signal is, and how Prometheus is asked for it. */
export interface SignalQuery {
  readonly name: string;
  readonly unit: 'share' | 'seconds' | 'number';
  readonly target: number;
  /** PromQL for the value now. */
  readonly now: string;
  /** PromQL for the highest value x containers in the window: the window needs no state of ours. */
  readonly peak: string;
}

export interface Signal extends Pick<SignalQuery, 'name' | 'unit' | 'target'> {
  /** Undefined where Prometheus knows none. */
  readonly now: number | undefined;
  /** The highest value x containers in the window; undefined where Prometheus knows none. */
  readonly peak: number | undefined;
}

export interface Situation {
  readonly current: number;
  readonly min: number;
  readonly max: number;
  readonly signals: readonly Signal[];
  /** Since the newest container started: until it is measured, the signals speak of fewer containers. */
  readonly secondsSinceChange: number;
}

export interface Recommendation {
  readonly replicas: number;
  /** In words, for the operator. */
  readonly reason: string;
  /** Containers that each signal wants by its value now, before all limits; undefined where it has none. */
  readonly wanted: Readonly<Record<string, number | undefined>>;
}

/** A signal this near to its target, as a share of it, changes nothing. */
const TOLERANCE = 0.1;
/** How long fewer containers must have been enough before some go. */
export const WINDOW_SECONDS = 300;
/** After a change nothing is added for this long: the rates are those of a minute. */
const SETTLE_SECONDS = 60;

export function recommend({ current, min, max, signals, secondsSinceChange }: Situation): Recommendation {
  const known = signals.filter((signal): signal is Signal & { now: number } => isKnown(signal.now));
  const wanted = Object.fromEntries(
    signals.map(({ name, now, target }) => [name, isKnown(now) ? wantedBy(now * current, target, current) : undefined]),
  );
  const decide = (replicas: number, reason: string): Recommendation => {
    const within = Math.min(max, Math.max(min, replicas));
    const limit = within === replicas ? '' : `; the settings allow ${min} to ${max}`;
    return { replicas: within, reason: reason + limit, wanted };
  };

  if (known.length === 0) return decide(current, 'Prometheus knows nothing of the signals, so nothing is changed');
  const most = Math.max(...known.map(({ name }) => wanted[name] ?? 0));
  const because = known
    .filter(({ name }) => wanted[name] === most)
    .map(({ name, now, target, unit }) => `${name} is ${format(now, unit)}, the aim is ${format(target, unit)}`)
    .join(', ');
  if (most === current) return decide(current, `${because}: near enough`);

  if (most > current) {
    if (secondsSinceChange < SETTLE_SECONDS) {
      return decide(current, `${because}, but the last change is ${Math.floor(secondsSinceChange)} s ago: wait`);
    }
    const step = Math.min(most, 2 * current);
    return decide(step, step < most ? `${because}: ${most} wanted, at most doubled at once` : because);
  }

  const unknown = signals.filter(({ now, peak }) => !isKnown(now) || !isKnown(peak)).map(({ name }) => name);
  if (unknown.length > 0) return decide(current, `${because}, but Prometheus does not know ${unknown.join(' and ')}`);
  if (secondsSinceChange < WINDOW_SECONDS) {
    return decide(current, `${because}, but the last change is less than ${WINDOW_SECONDS / 60} minutes ago: wait`);
  }
  const enough = Math.max(
    ...known.map(({ now, peak = 0, target }) => wantedBy(Math.max(peak, now * current), target, current)),
  );
  if (enough >= current)
    return decide(current, `${because}, but within ${WINDOW_SECONDS / 60} minutes it was not: wait`);
  const step = Math.max(enough, Math.floor(current / 2));
  return decide(step, step > enough ? `${because}: ${enough} are enough, at most halved at once` : because);
}

/** Containers that bring a total to `target` each; as many as now within the band around it. */
function wantedBy(total: number, target: number, current: number): number {
  if (Math.abs(total / (target * current) - 1) <= TOLERANCE) return current;
  // What is whole but for the rounding of a division is whole.
  return Math.max(1, Math.ceil(total / target - 1e-9));
}

const isKnown = (value: number | undefined): value is number => value !== undefined && Number.isFinite(value);

/** For people: a share in percent, seconds in milliseconds. */
export function format(value: number, unit: Signal['unit']): string {
  if (unit === 'share') return `${Math.round(value * 100)} %`;
  if (unit === 'seconds') return `${Math.round(value * 1000)} ms`;
  return String(Number(value.toPrecision(4)));
}

/** A canary's containers are none of those that are counted and scaled. */
const API = `job="api",track="${'stable' satisfies Track}"`;
const ANSWERING = `count(up{${API}} == 1)`;
/** Neither probes nor scrapes, which are fast, nor exports, which take as long as they are. */
const USERS = `${API},route!~"/health.*|/metrics|.*/export"`;

/** As the kernel counts it towards the limit: what the workers of a container share counts once. */
const MEMORY = `sum(${CONTAINER_METRICS.workingSet}{job="${JOBS.containers}",component="${TRACK_NAMES.stable}"})`;

/** @param limits of one container */
export function signalQueries(spec: AutoscaleSpec, limits: Limits, current: number): SignalQuery[] {
  const highest = (expression: string) => `max_over_time((${expression})[${WINDOW_SECONDS}s:15s])`;
  const queries: SignalQuery[] = [];
  const { cpus } = limits;
  if (spec.cpuPercent !== undefined) {
    const cores = `sum(rate(${RUNTIME_METRICS.cpuSeconds}{${API}}[1m]))`;
    queries.push({
      name: 'cpu',
      unit: 'share',
      target: spec.cpuPercent / 100,
      now: `${cores} / ${cpus * current}`,
      peak: highest(`${cores} / ${cpus}`),
    });
  }
  if (spec.memoryPercent !== undefined) {
    const bytes = limits.memoryMib * 1024 * 1024;
    queries.push({
      name: 'memory',
      unit: 'share',
      target: spec.memoryPercent / 100,
      now: `${MEMORY} / ${bytes * current}`,
      peak: highest(`${MEMORY} / ${bytes}`),
    });
  }
  if (spec.latencySeconds !== undefined) {
    const buckets = `rate(${METRICS.httpRequestDuration.name}_bucket{${USERS}}[1m])`;
    // Nobody asks: then nobody waits. Without any container there is no value.
    const p95 = `((histogram_quantile(0.95, sum by (le) (${buckets})) > 0) or (0 * ${ANSWERING}))`;
    queries.push({
      name: 'latency',
      unit: 'seconds',
      target: spec.latencySeconds,
      now: p95,
      peak: highest(`${p95} * ${ANSWERING}`),
    });
  }
  if (spec.custom !== undefined) {
    const { query, target } = spec.custom;
    queries.push({
      name: 'custom',
      unit: 'number',
      target,
      now: query,
      peak: highest(`(${query}) * scalar(${ANSWERING})`),
    });
  }
  return queries;
}
