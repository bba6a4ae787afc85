import { METRICS } from '../telemetry/names';
import type { SystemFigures } from '../telemetry/system';
import { type Counted, evaluate, expressions, type Limits, overviewOfProcess } from './figures';
import { rounded } from './objectives';
import type { Prometheus } from './prometheus';
import { CONFIDENCE, fitTrend, type Point, secondsUntil, type Trend } from './trend';

/** How full things are, how they grow, when they are full, and what is to be done about it. */
export interface Growth {
  readonly per_day: number;
  /** The ends of its interval with this confidence; null where there are too few points to give one. */
  readonly low_per_day: number | null;
  readonly high_per_day: number | null;
  readonly confidence: number;
  readonly method: 'theil-sen';
  readonly points: number;
  readonly history_seconds: number;
}

export interface Resource {
  /** `database_disk` only where the database's files are on another file system than the engine's. */
  readonly name: 'requests' | 'cpu' | 'memory' | 'database_connections' | 'disk' | 'database_disk' | 'loans';
  readonly unit: 'requests per second' | 'cores' | 'bytes' | 'connections' | 'loans';
  readonly used: number | null;
  readonly limit: number | null;
  /** Share of the limit that is used. */
  readonly utilisation: number | null;
  readonly growth: Growth | null;
  /** By the middle of the fit; null where nothing grows to the limit in a time that the history can speak of. */
  readonly days_until_limit: number | null;
  /** By the steepest growth of the interval: hardly sooner than this. */
  readonly days_until_limit_at_soonest: number | null;
  /** What is not known, and why; null where nothing is to be said. */
  readonly note: string | null;
}

export interface Capacity {
  readonly containers: number;
  readonly resources: readonly Resource[];
  readonly recommendation: {
    readonly action: 'keep' | 'add' | 'remove' | 'unknown';
    readonly containers: number;
    readonly reason: string;
    /** Other things to do, in words, the most urgent first. */
    readonly further: readonly string[];
  };
}

/** The aim of `make autoscale` where a stack names no other. */
export const CPU_AIM = 0.7;
/** Share of what a container is known to bear that it should get: at all of it the objectives are only just kept. */
const REQUESTS_AIM = 0.8;
const TOLERANCE = 0.1;
/** How long fewer containers must have been enough. */
const SCALE_WINDOW_SECONDS = 300;
/** Who is as near as that to a limit is told so. */
const URGENT_DAYS = 14;
const FULL = 0.85;

/** The rule of infra/ops/autoscale.ts, which acts by it: at most doubled or halved at once; a test holds them together. */
export function containersWanted(current: number, now: number, peak: number, aim = CPU_AIM): number {
  const wanted = (total: number) =>
    Math.abs(total / (aim * current) - 1) <= TOLERANCE ? current : Math.max(1, Math.ceil(total / aim - 1e-9));
  const byNow = wanted(now);
  if (byNow > current) return Math.min(byNow, 2 * current);
  if (byNow === current) return current;
  const byPeak = wanted(Math.max(peak, now));
  return byPeak >= current ? current : Math.max(byPeak, Math.floor(current / 2));
}

interface Measured {
  readonly used: number | undefined;
  readonly limit: number | undefined;
  readonly history?: readonly Point[] | undefined;
  readonly note?: string | undefined;
}

/** @param now in seconds, on the clock of the history */
export function resourceOf(
  name: Resource['name'],
  unit: Resource['unit'],
  { used, limit, history, note }: Measured,
  now: number,
): Resource {
  const trend = history === undefined ? undefined : fitTrend(history);
  const until = (slope?: number) => {
    const seconds = trend === undefined || limit === undefined ? undefined : secondsUntil(limit, trend, now, slope);
    return seconds === undefined ? null : rounded(seconds / 86_400);
  };
  const tooYoung = history !== undefined && trend === undefined ? 'The history is too short for a trend.' : undefined;
  return {
    name,
    unit,
    used: used ?? null,
    limit: limit ?? null,
    utilisation: used === undefined || limit === undefined || limit <= 0 ? null : rounded(used / limit),
    growth: trend === undefined ? null : growthOf(trend),
    days_until_limit: until(),
    days_until_limit_at_soonest: until(trend?.high),
    note: [note, tooYoung].filter((text) => text !== undefined).join(' ') || null,
  };
}

function growthOf({ slope, low, high, points, spanSeconds }: Trend): Growth {
  const perDay = (perSecond: number) => (Number.isFinite(perSecond) ? rounded(perSecond * 86_400) : null);
  return {
    per_day: rounded(slope * 86_400),
    low_per_day: perDay(low),
    high_per_day: perDay(high),
    confidence: CONFIDENCE,
    method: 'theil-sen',
    points,
    history_seconds: spanSeconds,
  };
}

/**
 * By CPU and requests, which fall in each container as others are added. Memory does not: most of it each process takes by
 * itself, and what is full of it wants a higher limit. It is told among the further things; a stack that knows its
 * containers gives `make autoscale` an aim for it.
 * @param load cores that are used now, and at most within the window; undefined where nobody knows
 */
export function recommend(
  containers: number,
  cpusEach: number,
  load: { readonly now: number; readonly peak: number } | undefined,
  resources: readonly Resource[],
): Capacity['recommendation'] {
  const further = resources.flatMap(warningsOf);
  if (load === undefined || containers === 0) {
    return { action: 'unknown', containers, reason: 'Nobody has measured the CPU use of the containers.', further };
  }
  const [now, peak] = [load.now / cpusEach, load.peak / cpusEach];
  const byCpu = containersWanted(containers, now, peak);
  const share = `CPU is ${Math.round((100 * now) / containers)} % of the limits, the aim is ${100 * CPU_AIM} %`;
  const requests = resources.find(({ name }) => name === 'requests');
  const byRequests =
    requests?.utilisation == null
      ? 0
      : Math.min(Math.ceil((requests.utilisation * containers) / REQUESTS_AIM - 1e-9), 2 * containers);
  if (byRequests > byCpu && byRequests > containers) {
    const known = `what ${containers} ${containers === 1 ? 'container is' : 'containers are'} known to bear`;
    const reason = `Requests are ${Math.round(100 * (requests?.utilisation ?? 0))} % of ${known}, the aim is ${100 * REQUESTS_AIM} %`;
    return { action: 'add', containers: byRequests, reason, further };
  }
  const wanted = byCpu < containers ? Math.max(byCpu, byRequests) : byCpu;
  const action = wanted > containers ? 'add' : wanted < containers ? 'remove' : 'keep';
  return { action, containers: wanted, reason: share, further };
}

const WORDS: Readonly<Record<Resource['name'], string>> = {
  requests: 'requests',
  cpu: 'CPU',
  memory: 'memory',
  database_connections: 'database connections',
  disk: 'disk',
  database_disk: 'disk of the database',
  loans: 'loans',
};

function warningsOf({ name, utilisation, days_until_limit: days }: Resource): string[] {
  if (utilisation !== null && utilisation >= FULL) {
    return [`${WORDS[name]}: ${Math.round(100 * utilisation)} % of the limit are used`];
  }
  if (days !== null && days <= URGENT_DAYS) {
    return [
      `${WORDS[name]}: full in about ${days < 1 ? 'less than a day' : `${Math.round(days)} days`} at this growth`,
    ];
  }
  return [];
}

/** Long enough to see growth over weeks; where a stack is younger, its last day. */
const HISTORIES = [
  { seconds: 30 * 86_400, step: 6 * 3_600 },
  { seconds: 86_400, step: 900 },
] as const;

interface Place {
  readonly env: string;
  readonly limits: Limits;
  /** Requests per second that one container is known to bear: CAPACITY_RPS. */
  readonly capacityRps: number | undefined;
}

/** Of node_exporter; of the file system that the engine keeps its files on, as far as that can be told. */
const ROOT = (metric: string) => `(max(${metric}{mountpoint=~"engine|/"}) or max(${metric}))`;
/** The same of the one that the database lies on, where that is another one. */
const DATABASE_ROOT = (metric: string) =>
  `max(${metric}{mountpoint="database"} unless on (instance, device) ${metric}{mountpoint="engine"})`;
/** Both may fill up first, each in its own time. */
const DISKS = { size: 'node_filesystem_size_bytes', free: 'node_filesystem_avail_bytes' } as const;
const STABLE = 'job="api",track="stable"';

/** PromQL by the name of the figure, for an environment. */
export function capacityExpressions(env: string) {
  const { requests, memory, connections, answering } = expressions(env);
  // As `make autoscale` asks: a canary's containers are not those that are counted and scaled.
  const cores = `sum(rate(process_cpu_seconds_total{${STABLE},env="${env}"}[1m]))`;
  return {
    requests,
    memory,
    connections,
    answering,
    stable: `count(up{${STABLE},env="${env}"} == 1)`,
    cores,
    peakCores: `max_over_time((${cores})[${SCALE_WINDOW_SECONDS}s:15s])`,
    diskUsed: `${ROOT(DISKS.size)} - ${ROOT(DISKS.free)}`,
    diskSize: ROOT(DISKS.size),
    databaseDiskUsed: `${DATABASE_ROOT(DISKS.size)} - ${DATABASE_ROOT(DISKS.free)}`,
    databaseDiskSize: DATABASE_ROOT(DISKS.size),
    // Every process tells of the whole book.
    loans: `sum(max by (status, currency) (${METRICS.loansCurrent.name}{job="api",env="${env}"}))`,
  } as const;
}

/** Undefined where Prometheus knows no container of this environment's API. */
export async function capacityFrom(
  prometheus: Prometheus,
  at: number,
  { disk: own }: SystemFigures,
  place: Place,
): Promise<Capacity | undefined> {
  const { env, limits, capacityRps } = place;
  const queries = capacityExpressions(env);
  const values = await evaluate(prometheus, queries, at);
  const containers = values.stable ?? values.answering;
  if (containers === undefined) return undefined;
  const history = async (name: keyof typeof queries): Promise<readonly Point[]> => {
    for (const { seconds, step } of HISTORIES) {
      // The highest within each step: a limit is hit by a peak, not by a mean.
      const expression = `max_over_time((${queries[name]})[${step}s:${Math.max(60, step / 30)}s])`;
      const to = Math.floor(at / step) * step;
      const [series] = await prometheus.range(expression, { from: to - seconds, to, step });
      if (series !== undefined && fitTrend(series.points) !== undefined) return series.points;
    }
    return [];
  };
  const [requests, cpu, memory, connections, disk, loans] = await Promise.all(
    (['requests', 'cores', 'memory', 'connections', 'diskUsed', 'loans'] as const).map(history),
  );
  const { databaseDiskUsed, databaseDiskSize } = values;
  const databaseDisk =
    databaseDiskSize === undefined
      ? []
      : [{ used: databaseDiskUsed, limit: databaseDiskSize, history: await history('databaseDiskUsed') }];
  const fullDisk =
    values.diskSize === undefined
      ? {
          used: own.used,
          limit: own.used + own.free,
          note: 'As the container that answers sees it: nothing measures the host.',
        }
      : { used: values.diskUsed, limit: values.diskSize };
  const resources = [
    resourceOf(
      'requests',
      'requests per second',
      { used: values.requests, ...bearable(capacityRps, containers), history: requests },
      at,
    ),
    resourceOf('cpu', 'cores', { used: values.cores, limit: limits.cpus * containers, history: cpu }, at),
    resourceOf('memory', 'bytes', { used: values.memory, limit: limits.memoryBytes * containers, history: memory }, at),
    resourceOf(
      'database_connections',
      'connections',
      { used: values.connections, limit: limits.connections * containers, history: connections },
      at,
    ),
    resourceOf('disk', 'bytes', { ...fullDisk, history: disk }, at),
    ...databaseDisk.map((measured) => resourceOf('database_disk', 'bytes', measured, at)),
    resourceOf('loans', 'loans', { used: values.loans, limit: undefined, history: loans }, at),
  ];
  const { cores, peakCores } = values;
  const load = cores === undefined ? undefined : { now: cores, peak: peakCores ?? cores };
  return { containers, resources, recommendation: recommend(containers, limits.cpus, load, resources) };
}

/** One container as it is now; without a past nothing grows. */
export function capacityOfProcess(counted: Counted, { limits, capacityRps }: Place): Capacity {
  const { traffic, resources } = overviewOfProcess(counted, limits);
  const { disk, cpu } = counted.system;
  const note = 'Without Prometheus there is no past.';
  const all = [
    resourceOf(
      'requests',
      'requests per second',
      { used: traffic.requests_per_second ?? undefined, ...bearable(capacityRps, 1) },
      0,
    ),
    resourceOf('cpu', 'cores', { used: resources.cpu_cores ?? undefined, limit: limits.cpus }, 0),
    resourceOf('memory', 'bytes', { used: resources.memory_bytes ?? undefined, limit: limits.memoryBytes }, 0),
    resourceOf(
      'database_connections',
      'connections',
      { used: resources.database_connections ?? undefined, limit: limits.connections },
      0,
    ),
    resourceOf('disk', 'bytes', { used: disk.used, limit: disk.used + disk.free }, 0),
  ].map((resource) => ({ ...resource, note: [resource.note, note].filter((text) => text !== null).join(' ') }));
  // A moment of one container is nothing to remove others by: it only says when it is too much.
  const now = (cpu.percent / 100) * cpu.count;
  return { containers: 1, resources: all, recommendation: recommend(1, limits.cpus, { now, peak: now }, all) };
}

function bearable(rps: number | undefined, containers: number) {
  if (rps !== undefined) return { limit: rps * containers };
  return { limit: undefined, note: 'How many requests a container bears is not set (CAPACITY_RPS).' };
}
