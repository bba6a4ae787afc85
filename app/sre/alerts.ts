import type { ActiveAlert } from './prometheus';

/** What is wrong now, by the rules of Prometheus, or by what a process knows of itself. */
export interface Alert {
  readonly name: string;
  readonly severity: string;
  readonly state: 'pending' | 'firing';
  readonly active_since: string;
  readonly summary: string;
  readonly description: string | null;
  readonly runbook_url: string | null;
  /** Further labels, which tell alerts of one name apart. */
  readonly labels: Readonly<Record<string, string>>;
}

export interface Alerts {
  /** Whether the alert that always fires does: the rules are evaluated. Null where nobody evaluates any. */
  readonly watchdog: boolean | null;
  readonly firing: number;
  readonly pending: number;
  /** Firing before pending, the most severe first. */
  readonly alerts: readonly Alert[];
}

const SEVERITIES = ['critical', 'warning', 'info'];
const rank = (severity: string) => SEVERITIES.indexOf(severity) + 1 || SEVERITIES.length + 1;

export function alertsOf(active: readonly ActiveAlert[], env: string): Alerts {
  const own = active.filter(({ labels }) => labels['env'] === undefined || labels['env'] === env);
  const isWatchdog = ({ labels }: ActiveAlert) => labels['alertname'] === 'Watchdog';
  // Severity none is for machines: the watchdog, and what silences others.
  const shown = own.filter((alert) => !isWatchdog(alert) && alert.labels['severity'] !== 'none');
  return {
    watchdog: own.some((alert) => isWatchdog(alert) && alert.state === 'firing'),
    ...listed(shown.map(alertOf)),
  };
}

export function listed(alerts: readonly Alert[]): Pick<Alerts, 'firing' | 'pending' | 'alerts'> {
  const sorted = [...alerts].sort(
    (a, b) =>
      Number(a.state === 'pending') - Number(b.state === 'pending') ||
      rank(a.severity) - rank(b.severity) ||
      a.active_since.localeCompare(b.active_since),
  );
  const count = (state: Alert['state']) => alerts.filter((alert) => alert.state === state).length;
  return { firing: count('firing'), pending: count('pending'), alerts: sorted };
}

function alertOf({ labels, annotations, state, activeAt }: ActiveAlert): Alert {
  const { alertname = '', severity = '' } = labels;
  const rest = Object.entries(labels).filter(([label]) => !['alertname', 'severity', 'env'].includes(label));
  return {
    name: alertname,
    severity,
    state,
    active_since: new Date(activeAt).toISOString(),
    summary: annotations['summary'] ?? alertname,
    description: annotations['description'] ?? null,
    runbook_url: annotations['runbook_url'] ?? null,
    labels: Object.fromEntries(rest),
  };
}
