import { METRICS, requestRate } from '../../app/telemetry/names';
import { JOBS, PROBE_METRICS } from './exporters';
import { USER_ROUTES } from './prometheus';
import { type Alert, bucketUpTo, type RecordingRule, type RuleGroup, secondsOf, type Severity } from './rules';

/**
 * Service level objectives: what is promised, how much of it is left, and alerts when it is used up too fast
 * (multi-window, multi-burn-rate, as in Google's SRE workbook). Why it is computed so: docs/decisions/0031.
 */

export const SLO_NAMES = ['availability', 'success', 'latency', 'freshness'] as const;
export type SloName = (typeof SLO_NAMES)[number];

/** Days over which a budget is counted. */
export type Period = 30 | 28 | 7;

export interface Objectives {
  readonly periodDays: Period;
  /** Share of good events that is promised, between 0 and 1. */
  readonly objectives: Readonly<Record<SloName, number>>;
}

export const DEFAULT_OBJECTIVES: Objectives = {
  periodDays: 30,
  objectives: { availability: 0.999, success: 0.99, latency: 0.95, freshness: 0.995 },
};

/** What differs from the default, in percent, as the API reads it (SLO). */
export function promisesOf({ objectives }: Objectives): string {
  return SLO_NAMES.filter((name) => objectives[name] !== DEFAULT_OBJECTIVES.objectives[name])
    .map((name) => `${name}=${round(100 * objectives[name])}`)
    .join();
}

/** Label `service` of all objectives. */
export const SERVICE = 'loans-api';

export interface Tier {
  readonly burn: 'fast' | 'medium' | 'slow' | 'very-slow';
  readonly severity: Severity;
  /** Both windows must be over the threshold: the long one says that it matters, the short one that it still goes on. */
  readonly long: string;
  readonly short: string;
  readonly for: string;
  /** Percent of the period's budget that is gone when the long window is at its threshold. */
  readonly spendsPercent: Readonly<Record<Period, number>>;
}

export const TIERS: readonly Tier[] = [
  { burn: 'fast', severity: 'critical', long: '1h', short: '5m', for: '2m', spendsPercent: { 30: 2, 28: 2, 7: 8 } },
  {
    burn: 'medium',
    severity: 'critical',
    long: '6h',
    short: '30m',
    for: '2m',
    spendsPercent: { 30: 5, 28: 5, 7: 12.5 },
  },
  { burn: 'slow', severity: 'warning', long: '1d', short: '2h', for: '15m', spendsPercent: { 30: 10, 28: 10, 7: 20 } },
  {
    burn: 'very-slow',
    severity: 'warning',
    long: '3d',
    short: '6h',
    for: '15m',
    spendsPercent: { 30: 10, 28: 10, 7: 42 },
  },
];

/** Fewer events in the long window raise no alert: one failure in a quiet night is no incident. */
export const MINIMUM_EVENTS = 20;

/** How many times faster than evenly over the period the budget is spent at a tier's threshold. */
export function burnFactor({ long, spendsPercent }: Tier, periodDays: Period): number {
  return round((spendsPercent[periodDays] / 100) * ((periodDays * 86_400) / secondsOf(long)));
}

/** Share of events that may fail. */
export function errorBudget(objective: number): number {
  return round(1 - objective);
}

/** Without the noise of binary fractions: 1 - 0.999 is 0.001. */
function round(value: number): number {
  return Number(value.toPrecision(10));
}

/**
 * What is wrong with an objective; undefined when all of its alerts can fire. At most all requests fail, so a tier whose
 * threshold is a ratio of 1 or more would be silent for ever.
 */
export function objectiveFault(objective: number, periodDays: Period): string | undefined {
  if (!(objective > 0 && objective < 1)) return 'must be more than 0 and less than 100';
  const highest = Math.max(...TIERS.map((tier) => burnFactor(tier, periodDays)));
  if (highest * errorBudget(objective) < 1) return undefined;
  const least = Math.ceil((1 - 1 / highest) * 10_000 + 1e-6) / 100;
  return `must be at least ${least}: its alert for a fast burn (${highest} times) could never fire, not even if every request failed`;
}

/** As often as the indicators are recorded; `…rate5m` has one sample in this time. */
const INTERVAL = '30s';
/** Windows that are read from the service's own series. Longer ones are added up from the recorded 5 minutes. */
const LONGEST_RAW_SECONDS = secondsOf('6h');

interface Indicator {
  /** What a good event is, for the annotations. */
  readonly means: string;
  /** The job without which there is nothing to measure. */
  readonly job: string;
  readonly dashboard: string;
  readonly before?: readonly RecordingRule[];
  /** PromQL: events per second over a window, without labels. There as long as the service is measured, 0 when it idles. */
  readonly requests: (window: string) => string;
  /** PromQL: those of them that failed. May have no value where there are none. */
  readonly errors: (window: string) => string;
}

const REQUESTS = METRICS.httpRequestDuration.name;
const users = (more = '') => `job="${JOBS.api}",${USER_ROUTES}${more}`;
const perSecond = (series: string, selector: string, window: string) => `sum(rate(${series}{${selector}}[${window}]))`;
/** A release that does not count failures from 0 has no series of requests before the first one, but it says what it is. */
const orIdle = (expr: string) => `(${expr} or 0 * count(${METRICS.appInfo.name}{job="${JOBS.api}"}))`;

/** Seconds: a bound of the histogram's buckets. */
export const LATENCY_SECONDS = 0.2;
/** How old the figures of the book may be. */
export const FRESH_SECONDS = 60;

/** Of a series of 0 and 1, per second: how many samples there are, and how many of them are 1. */
const samples = (series: string, window: string) => `sum(count_over_time(${series}[${window}])) / ${secondsOf(window)}`;
const ones = (series: string, window: string) => `sum(sum_over_time(${series}[${window}])) / ${secondsOf(window)}`;

const PROBE = `${PROBE_METRICS.success}{job="${JOBS.probe}",probe="api"}`;
const STALE = 'slo:sli_stale:bool';

const INDICATORS: Readonly<Record<SloName, Indicator>> = {
  availability: {
    means: 'probes through the public entrance that got an answer',
    job: JOBS.probe,
    dashboard: 'loans-edge',
    requests: (window) => samples(PROBE, window),
    errors: (window) => `${samples(PROBE, window)} - ${ones(PROBE, window)}`,
  },
  success: {
    means: 'requests of users that were not answered with 5xx',
    job: JOBS.api,
    dashboard: 'loans-api',
    requests: (window) => orIdle(`sum${requestRate(users(), window)}`),
    errors: (window) => `sum${requestRate(users(',status_code=~"5.."'), window)}`,
  },
  latency: {
    means: `requests of users, answered other than with 5xx, that took at most ${LATENCY_SECONDS} s`,
    job: JOBS.api,
    dashboard: 'loans-api',
    requests: (window) => orIdle(perSecond(`${REQUESTS}_count`, users(',status_code!~"5.."'), window)),
    errors: (window) => {
      const answered = users(',status_code!~"5.."');
      const all = perSecond(`${REQUESTS}_count`, answered, window);
      // Two sums of the same events may differ by a rounding.
      return `clamp_min(${all} - ${perSecond(`${REQUESTS}_bucket`, `${answered},${bucketUpTo(LATENCY_SECONDS)}`, window)}, 0)`;
    },
  },
  freshness: {
    means: `moments at which the figures of the book were at most ${FRESH_SECONDS} s old`,
    job: JOBS.api,
    dashboard: 'loans-business',
    before: [
      {
        record: STALE,
        expr: `time() - min(${METRICS.loansRefreshed.name}{job="${JOBS.api}"}) > bool ${FRESH_SECONDS}`,
      },
    ],
    requests: (window) => samples(STALE, window),
    errors: (window) => ones(STALE, window),
  },
};

const WINDOWS = [...new Set(TIERS.flatMap(({ short, long }) => [short, long]))].sort(
  (a, b) => secondsOf(a) - secondsOf(b),
);

/**
 * The rules of all objectives that can be measured.
 * @param jobs values of the label `job` that are scraped; an objective over nothing would read as met
 * @throws Error for an objective that `objectiveFault` refuses
 */
export function sloGroups({ periodDays, objectives }: Objectives, jobs: ReadonlySet<string>): RuleGroup[] {
  return SLO_NAMES.filter((slo) => jobs.has(INDICATORS[slo].job)).flatMap((slo) => {
    const objective = objectives[slo];
    const fault = objectiveFault(objective, periodDays);
    if (fault !== undefined) throw new Error(`slo.${slo}: ${round(objective * 100)} ${fault}`);
    return groupsOf(slo, INDICATORS[slo], objective, periodDays);
  });
}

function groupsOf(slo: SloName, indicator: Indicator, objective: number, periodDays: Period): RuleGroup[] {
  const labels = { slo, service: SERVICE };
  const series = (name: string) => `${name}{slo="${slo}",service="${SERVICE}"}`;
  return [
    // One group, so that an alert sees what was recorded in the same moment, not half a minute before.
    {
      name: `slo-${slo}`,
      interval: INTERVAL,
      rules: [
        ...(indicator.before ?? []),
        ...WINDOWS.flatMap((window) => indicatorRules(indicator, window, series)).map((rule) => ({ ...rule, labels })),
        ...[
          ...TIERS.map((tier) => burnAlert(tier, slo, indicator, objective, periodDays, series)),
          exhaustedAlert(slo, indicator, objective, periodDays, series),
          absentAlert(slo, series),
        ].map((alert) => ({ ...alert, labels: { ...alert.labels, ...labels }, dashboard: 'loans-slo' })),
      ],
    },
    {
      name: `slo-${slo}-meta`,
      interval: '1m',
      rules: metaRules(objective, periodDays, series).map((rule) => ({ ...rule, labels })),
    },
  ];
}

type Series = (name: string) => string;

function indicatorRules({ requests, errors }: Indicator, window: string, series: Series): RecordingRule[] {
  const seconds = secondsOf(window);
  // Of days there would be thousands of samples to read, of every route, each half minute. Every sample of `…rate5m`
  // stands for the interval after it, so their sum is the number of events; a gap counts as nothing, not as the average.
  const added = (name: string) =>
    `sum_over_time(${series(`${name}:rate5m`)}[${window}]) * ${secondsOf(INTERVAL)} / ${seconds}`;
  const raw = seconds <= LONGEST_RAW_SECONDS;
  return [
    {
      record: `slo:sli_errors:rate${window}`,
      // A service without a single failure has a ratio of 0, not none.
      expr: raw ? `(${errors(window)}) or 0 * ${requests(window)}` : added('slo:sli_errors'),
    },
    { record: `slo:sli_requests:rate${window}`, expr: raw ? requests(window) : added('slo:sli_requests') },
    {
      record: `slo:sli_error:ratio_rate${window}`,
      // Without requests there is no ratio, rather than one that is not a number.
      expr: `${series(`slo:sli_errors:rate${window}`)} / (${series(`slo:sli_requests:rate${window}`)} > 0)`,
    },
  ];
}

function metaRules(objective: number, periodDays: Period, series: Series): RecordingRule[] {
  const budget = errorBudget(objective);
  const period = `${periodDays}d`;
  const sum = (name: string) => `sum_over_time(${series(`${name}:rate5m`)}[${period}])`;
  return [
    { record: 'slo:objective:ratio', expr: `vector(${objective})` },
    { record: 'slo:error_budget:ratio', expr: `vector(${budget})` },
    { record: 'slo:time_period:days', expr: `vector(${periodDays})` },
    // Weighted by traffic: an average of ratios would give a quiet night as much weight as a busy day.
    {
      record: 'slo:period_error:ratio',
      expr: `${sum('slo:sli_errors')} / (${sum('slo:sli_requests')} > 0)`,
    },
    { record: 'slo:error_budget_remaining:ratio', expr: `1 - ${series('slo:period_error:ratio')} / ${budget}` },
    { record: 'slo:current_burn_rate:ratio', expr: `${series('slo:sli_error:ratio_rate1h')} / ${budget}` },
  ];
}

function burnAlert(
  tier: Tier,
  slo: SloName,
  { means }: Indicator,
  objective: number,
  periodDays: Period,
  series: Series,
): Alert {
  const { burn, severity, long, short } = tier;
  const factor = burnFactor(tier, periodDays);
  const threshold = `(${factor} * ${errorBudget(objective)})`;
  const days = (periodDays / factor).toFixed(1);
  return {
    alert: 'SLOErrorBudgetBurn',
    expr:
      `(${series(`slo:sli_error:ratio_rate${long}`)} > ${threshold})` +
      ` and (${series(`slo:sli_error:ratio_rate${short}`)} > ${threshold})` +
      ` and (${series(`slo:sli_requests:rate${long}`)} * ${secondsOf(long)} >= ${MINIMUM_EVENTS})`,
    for: tier.for,
    severity,
    labels: { burn, long, short },
    summary: `${slo} burns its error budget of ${periodDays} d ${factor} times too fast (${long} and ${short})`,
    description:
      `{{ $value | humanizePercentage }} failed over ${long}, where ${percent(objective)} must be ${means}. ` +
      `If it stays so, the budget of ${periodDays} d is gone in ${days} d.`,
  };
}

function exhaustedAlert(
  slo: SloName,
  { means }: Indicator,
  objective: number,
  periodDays: Period,
  series: Series,
): Alert {
  // A budget of less than one event is gone with the first.
  const least = Math.max(MINIMUM_EVENTS, Math.ceil(round(1 / errorBudget(objective))));
  const events = `sum_over_time(${series('slo:sli_requests:rate5m')}[${periodDays}d]) * ${secondsOf(INTERVAL)}`;
  return {
    alert: 'SLOErrorBudgetExhausted',
    expr: `(${series('slo:error_budget_remaining:ratio')} <= 0) and (${events} >= ${least})`,
    for: '15m',
    severity: 'warning',
    summary: `${slo} has no error budget left`,
    description:
      `Over the last ${periodDays} d less than ${percent(objective)} were ${means}: ` +
      `{{ $value | humanizePercentage }} of the budget is left.`,
  };
}

function absentAlert(slo: SloName, series: Series): Alert {
  return {
    alert: 'SLOMetricAbsent',
    expr: `absent(${series('slo:sli_requests:rate5m')})`,
    for: '10m',
    severity: 'warning',
    summary: `${slo} is not measured`,
    description: 'No data for this objective: over nothing it reads as met, and none of its other alerts can fire.',
  };
}

function percent(ratio: number): string {
  return `${round(ratio * 100)} %`;
}
