import * as units from '@grafana/grafana-foundation-sdk/units';
import { ALERTMANAGER_METRICS as alertmanager, JOBS, PROMETHEUS_METRICS as prometheus } from '../exporters';
import { type DashboardSpec, type PanelSpec, PER_MINUTE } from './builder';
import { max, min, perMinute, ratio, seriesOf, sum } from './query';

const self = seriesOf(JOBS.prometheus);
const notifier = seriesOf(JOBS.alertmanager);
/** Of every target, whatever its job. */
const ANY = '{env=~"$env"}';

/** What the overview shows too. */
export const targets: PanelSpec = {
  kind: 'stat',
  title: 'Targets by job',
  description: 'Whether every target of a job answered its last scrape. Down: what it measures is not seen.',
  unit: units.BoolYesNo,
  width: 12,
  queries: { '{{job}}': min(`${prometheus.up}${ANY}`, 'job') },
  words: { 0: 'down', 1: 'up' },
  thresholds: { critical: 1, low: true },
  alerts: ['TargetDown', 'TargetMissing'],
};

/** What fires, with the time at which its expression became true. */
const FIRING = `${prometheus.alertsForState}{env=~"$env|"} and ignoring (alertstate) ${prometheus.alerts}{alertstate="firing",env=~"$env|"}`;

const firing: PanelSpec = {
  kind: 'table',
  title: 'Firing alerts',
  description:
    'What fires now, the youngest first, and since when its expression is true. The watchdog always does: it shows that alerts get through.',
  width: 24,
  queries: { Since: `1000 * (${FIRING})` },
  columns: [
    { heading: 'Since', unit: 'dateTimeFromNow', sort: 'down', width: 140 },
    { heading: 'Severity', label: 'severity', width: 100 },
    { heading: 'Alert', label: 'alertname' },
    { heading: 'Job', label: 'job' },
    { heading: 'Instance', label: 'instance' },
    { heading: 'Container', label: 'name' },
    { heading: 'SLO', label: 'slo' },
  ],
  alerts: ['Watchdog'],
};

export const monitoringDashboard: DashboardSpec = {
  uid: 'loans-monitoring',
  title: 'Monitoring',
  description: 'Whether what watches the stack works itself: targets, Prometheus, its rules, Alertmanager.',
  rows: { Scrapes: scrapes(), Prometheus: prometheusPanels(), 'Rules and alerts': alerts() },
};

function scrapes(): PanelSpec[] {
  return [
    targets,
    {
      title: 'Scrape duration',
      description: 'Time of a scrape. At 10 s it is given up, and the target counts as down.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{job}}': max(`${prometheus.scrapeDuration}${ANY}`, 'job') },
      thresholds: { warning: 5, critical: 10 },
    },
    {
      title: 'Samples by job',
      description: 'Samples of one scrape. A target of more than 10,000 is refused whole: a label is out of bounds.',
      unit: units.Short,
      width: 12,
      queries: { '{{job}}': max(`${prometheus.scrapeSamples}${ANY}`, 'job') },
      thresholds: { warning: 5_000, critical: 10_000 },
    },
    {
      title: 'Series in memory',
      description: 'Series that Prometheus holds. They cost memory: growing without an end, a label is out of bounds.',
      unit: units.Short,
      width: 12,
      queries: { series: sum(self.select(prometheus.headSeries)) },
    },
  ];
}

function prometheusPanels(): PanelSpec[] {
  return [
    {
      title: 'Samples appended',
      description: 'Samples per second. A fall: targets went away.',
      unit: units.CountsPerSecond,
      width: 6,
      queries: { appended: sum(self.rate(prometheus.samplesAppended)) },
    },
    {
      title: 'Query time p90',
      description:
        'Time of queries by their part, as Prometheus measures it. Seconds: a panel or a rule asks for too much.',
      unit: units.Seconds,
      width: 6,
      queries: { '{{slice}}': max(self.select(prometheus.queryDuration, 'quantile="0.9"'), 'slice') },
    },
    {
      title: 'Memory',
      description: 'Resident memory of Prometheus. Its limit is on the dashboard of the resources.',
      unit: units.BytesIEC,
      width: 4,
      queries: { resident: sum(self.select(prometheus.residentMemory)) },
    },
    {
      kind: 'gauge',
      title: 'Storage',
      description:
        'Blocks of the size that they may have. At 100 % the oldest days go, and objectives over 30 days lose their past.',
      unit: units.PercentUnit,
      width: 4,
      queries: { used: ratio(sum(self.select(prometheus.blockBytes)), sum(self.select(prometheus.retentionBytes))) },
      thresholds: { warning: 0.8, critical: 0.95 },
      alerts: ['PrometheusTsdbNearRetentionSize'],
    },
    {
      kind: 'stat',
      title: 'Configuration',
      description: 'Whether the last configuration was accepted. Refused: the one before is still in use.',
      unit: units.BoolYesNo,
      width: 4,
      queries: {
        Prometheus: min(self.select(prometheus.reloadSuccessful)),
        Alertmanager: min(notifier.select(alertmanager.reloadSuccessful)),
      },
      words: { 0: 'refused', 1: 'in use' },
      thresholds: { critical: 1, low: true },
      alerts: ['PrometheusConfigReloadFailed', 'AlertmanagerConfigReloadFailed'],
    },
  ];
}

function alerts(): PanelSpec[] {
  return [
    {
      title: 'Rule evaluation time / interval',
      description: 'Time of a group of rules as a share of its interval. At 100 % evaluations are left out.',
      unit: units.PercentUnit,
      width: 12,
      queries: {
        '{{rule_group}}': ratio(
          max(self.select(prometheus.ruleGroupDuration), 'rule_group'),
          max(self.select(prometheus.ruleGroupInterval), 'rule_group'),
        ),
      },
      thresholds: { warning: 0.5, critical: 0.9 },
    },
    {
      title: 'Failed rules',
      description: 'Evaluations of rules per minute that failed. Any: an alert is blind.',
      unit: PER_MINUTE,
      width: 12,
      queries: { failed: perMinute(sum(self.rate(prometheus.ruleFailures))) },
      alerts: ['PrometheusRuleFailures'],
    },
    {
      title: 'Alerts sent to Alertmanager',
      description: 'Alerts per second that Prometheus sent, and those that it could not. Dropped ones reach no one.',
      unit: units.OpsPerSecond,
      width: 8,
      queries: {
        sent: sum(self.rate(prometheus.notificationsSent)),
        dropped: sum(self.rate(prometheus.notificationsDropped)),
      },
      alerts: ['PrometheusNotConnectedToAlertmanager'],
    },
    {
      kind: 'stat',
      title: 'Alerts in Alertmanager',
      description: 'Alerts by state. Suppressed: silenced, or inhibited by a graver one.',
      unit: units.Short,
      width: 4,
      queries: { '{{state}}': sum(notifier.select(alertmanager.alerts), 'state') },
    },
    {
      title: 'Notifications',
      description:
        'Messages per second to webhook, mail or pager, and those that failed. Failed above zero: people do not learn of alerts.',
      unit: units.OpsPerSecond,
      width: 8,
      queries: {
        'sent {{integration}}': sum(notifier.rate(alertmanager.notifications), 'integration'),
        'failed {{integration}}': sum(notifier.rate(alertmanager.notificationsFailed), 'integration'),
      },
      alerts: ['AlertmanagerNotificationsFailing'],
    },
    {
      kind: 'stat',
      title: 'Silences',
      description: 'Silences by state. One that was forgotten hides the next incident.',
      unit: units.Short,
      width: 4,
      queries: { '{{state}}': sum(notifier.select(alertmanager.silences), 'state') },
    },
    firing,
  ];
}
