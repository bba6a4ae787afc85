import { reachable, rounded } from './objectives';
import type { Prometheus, Series } from './prometheus';
import type { Point } from './trend';

/** How the service was, for its users: by day and by hour, with what went wrong in plain words. Times are UTC. */
export interface Period {
  /** When it begins. */
  readonly from: string;
  /** Share of the known time in which the service could be reached; null where hardly anything is known. */
  readonly availability: number | null;
  /** Share of the period, as far as it is past, that anything is known of. */
  readonly known: number;
}

export interface Incident {
  readonly what: string;
  readonly from: string;
  /** Null while it lasts. */
  readonly to: string | null;
}

export interface History {
  /** Oldest first; the last one is today. */
  readonly days: readonly Period[];
  /** Oldest first; the last one is the current hour. */
  readonly hours: readonly Period[];
  /** Newest first. */
  readonly incidents: readonly Incident[];
  /** How far back incidents are known. */
  readonly incidents_from: string;
}

export const DAYS = 30;
export const HOURS = 48;
const DAY = 86_400;
const HOUR = 3_600;
const MINUTE = 60;
const INCIDENT_DAYS = 14;
const INCIDENT_STEP = 2 * MINUTE;
/** What comes again within this time is the same incident. */
const INCIDENT_GAP = 10 * MINUTE;

/** @param at now, in seconds on Prometheus' clock */
export async function historyFrom(prometheus: Prometheus, env: string, at: number): Promise<History> {
  const from = Math.floor((at - INCIDENT_DAYS * DAY) / INCIDENT_STEP) * INCIDENT_STEP;
  const to = Math.floor(at / INCIDENT_STEP) * INCIDENT_STEP;
  const firing = `max by (alertname, severity, slo, probe) (ALERTS{alertstate="firing",severity=~"critical|warning",env=~"${env}|"})`;
  const [days, hours, alerts] = await Promise.all([
    periodsFrom(prometheus, env, { at, length: DAY, count: DAYS }),
    periodsFrom(prometheus, env, { at, length: HOUR, count: HOURS }),
    prometheus.range(firing, { from, to, step: INCIDENT_STEP }),
  ]);
  return { days, hours, incidents: incidentsOf(alerts, to), incidents_from: iso(from) };
}

interface Grid {
  readonly at: number;
  /** Of a period, in seconds; days and hours begin at multiples of theirs. */
  readonly length: number;
  readonly count: number;
}

async function periodsFrom(prometheus: Prometheus, env: string, grid: Grid): Promise<Period[]> {
  const { at, length, count } = grid;
  const current = Math.floor(at / length) * length;
  const over = (aggregation: string, seconds: number) => `${aggregation}(${reachable(env)}[${seconds}s:${MINUTE}s])`;
  // What is past ends where the next begins; of the current period as much as there is of it.
  const span = { from: current - (count - 2) * length, to: current, step: length };
  const past = Math.max(MINUTE, Math.floor((at - current) / MINUTE) * MINUTE);
  const [shares, counts, [share], [seen]] = await Promise.all([
    prometheus.range(over('avg_over_time', length), span),
    prometheus.range(over('count_over_time', length), span),
    prometheus.query(over('avg_over_time', past), at),
    prometheus.query(over('count_over_time', past), at),
  ]);
  const [available, known] = [shares, counts].map((series) => new Map(series[0]?.points ?? []));
  return Array.from({ length: count }, (_, index): Period => {
    const begin = current - (count - 1 - index) * length;
    if (begin === current) return period(begin, share?.value, seen?.value, past);
    return period(begin, available?.get(begin + length), known?.get(begin + length), length);
  });
}

/** A last sample is remembered for minutes: of a day that is nothing to judge by. */
const LEAST_KNOWN = 0.01;

/** @param minutes of which something is known */
function period(begin: number, share: number | undefined, minutes: number | undefined, seconds: number): Period {
  // Both ends of a span may count, with some versions of Prometheus.
  const known = minutes === undefined ? 0 : Math.min(1, minutes / (seconds / MINUTE));
  const availability = share === undefined || !Number.isFinite(share) || known < LEAST_KNOWN ? null : rounded(share);
  return { from: iso(begin), availability, known: rounded(known) };
}

/** Alerts in the words of users; undefined for what they do not notice. */
export function inWords({ alertname = '', severity = '', slo = '', probe = '' }: Series['labels']): string | undefined {
  const objectives: Readonly<Record<string, string>> = {
    availability: 'The service could not be reached at times',
    success: 'Some requests failed',
    latency: 'The service was slow',
    freshness: 'Overviews were out of date',
  };
  if (alertname === 'ProbeFailing') return PROBES[probe];
  if (alertname === 'SLOErrorBudgetBurn') return objectives[slo] ?? OTHER;
  // A budget that is used up tells of incidents that stand here already.
  if (/^(SLO|Watchdog|InfoInhibitor)/.test(alertname) || OURS.test(alertname)) return undefined;
  const known = WORDS.find(([name]) => name.test(alertname));
  if (known !== undefined) return known[1];
  return severity === 'critical' ? OTHER : undefined;
}

const OTHER = 'A fault in the service was being worked on';
const UNREACHABLE = 'The service could not be reached';
const NO_LOANS = 'Loans could not be read or changed';
/** By what is asked through the public entrance. The others ask for pages of who runs the service. */
const PROBES: Readonly<Record<string, string>> = { api: UNREACHABLE, database: NO_LOANS };
const WORDS: readonly (readonly [RegExp, string])[] = [
  [/^(Api|Nginx|Gateway)Down/, UNREACHABLE],
  [/^ApiHealthFailing/, 'The service could not be reached at times'],
  [/^(Postgres|Database)(Down|ConnectionsExhausted)|^ApiDatabaseAway/, NO_LOANS],
  [/Error(s|Rate|Ratio)|Failures|^ApiRequestsShed/, 'Some requests failed'],
  [/Latency|Slow|ResponseTime/, 'The service was slow'],
  [/^LoanMetricsStale/, 'Overviews were out of date'],
];
/** The machinery that watches: users see nothing of its faults. */
const OURS =
  /^(Prometheus|Alertmanager|Grafana|Target|Rule|Tsdb|Backup|Filesystem|Clock|Container|Host|Tls|Exporter|PostgresExporter)/;

/** @param until the last time that was looked at: what fires there still lasts */
export function incidentsOf(alerts: readonly Series[], until: number): Incident[] {
  const byWords = new Map<string, Point[][]>();
  for (const { labels, points } of alerts) {
    const words = inWords(labels);
    if (words === undefined || points.length === 0) continue;
    byWords.set(words, [...(byWords.get(words) ?? []), [...points]]);
  }
  const incidents = [...byWords].flatMap(([what, series]) => {
    const times = series.flatMap((points) => points.map(([at]) => at)).sort((a, b) => a - b);
    const spans: { from: number; to: number }[] = [];
    for (const at of times) {
      const last = spans.at(-1);
      if (last !== undefined && at - last.to <= INCIDENT_GAP) last.to = at;
      else spans.push({ from: at, to: at });
    }
    return spans.map((span) => ({ what, ...span }));
  });
  return incidents
    .sort((a, b) => b.from - a.from || b.to - a.to || (a.what < b.what ? -1 : 1))
    .map(({ what, from, to }) => ({
      what,
      from: iso(from),
      // It went at some time after the last look that saw it.
      to: to >= until ? null : iso(to + INCIDENT_STEP),
    }));
}

function iso(seconds: number): string {
  return new Date(seconds * 1_000).toISOString();
}

/** Where there is no history: every period is unknown, and said to be so. @param at seconds */
export function noHistory(at: number): History {
  const periods = (length: number, count: number) => {
    const current = Math.floor(at / length) * length;
    return Array.from({ length: count }, (_, index) =>
      period(current - (count - 1 - index) * length, undefined, undefined, length),
    );
  };
  return { days: periods(DAY, DAYS), hours: periods(HOUR, HOURS), incidents: [], incidents_from: iso(at) };
}
