import { METRICS, requestRate } from '../../app/telemetry/names';
import {
  ACCESS_LOG_METRICS,
  CONTAINER_METRICS,
  HOST_METRICS,
  JOBS,
  NGINX_METRICS,
  POSTGRES_METRICS,
  PROBE_METRICS,
  RUNTIME_METRICS,
} from './exporters';
import { USER_ROUTES } from './prometheus';
import { type Alert, bucketUpTo, renderRuleFile, type RuleFileOptions, type RuleGroup } from './rules';
import { DEFAULT_OBJECTIVES, type Objectives, sloGroups } from './slo';

/**
 * The alerts of an environment as data, built from the names that are exported: a rule cannot ask for a metric that
 * nobody exports. Each has a page in docs/runbooks and a test in tests/alerts.
 *
 * Expressions are true at once when the fault is there, and `for` alone says how long it is borne: an average over
 * minutes on top of that would tell later than promised. Deploys and maintenance raise none of them: a deploy takes no
 * part of the API away for as long, and probes pass a gateway that is closed.
 */

/** What users may want otherwise; everything else is a fact of the system. */
export interface Thresholds {
  /** Share of failed requests, in percent. */
  readonly errorPercent: number;
  readonly errorsPerMinute: number;
  /** 95th percentile of the answers' time. */
  readonly p95Seconds: number;
  /** Share of health checks that must succeed, in percent. */
  readonly healthPercent: number;
  /** Share of the database's usable connections, in percent. */
  readonly connectionsPercent: number;
  /** How long before its end a certificate is complained about. */
  readonly certificateDays: number;
}

export const DEFAULT_THRESHOLDS: Thresholds = {
  errorPercent: 5,
  errorsPerMinute: 5,
  p95Seconds: 1,
  healthPercent: 90,
  connectionsPercent: 80,
  certificateDays: 21,
};

/** Share of the database's usable connections with which there is none left to speak of. */
export const CONNECTIONS_EXHAUSTED = 0.97;

export interface AlertOptions extends RuleFileOptions {
  /** Begins the names of the environment's containers: the exporter sees those of others too. */
  readonly prefix: string;
  /** Values of the label `job` that are scraped: rules about anything else would be silent for ever. */
  readonly jobs: ReadonlySet<string>;
  /** API containers that there should be. */
  readonly replicas: number;
  readonly thresholds?: Thresholds;
  readonly objectives?: Objectives;
  /** Whether loans are asked for all the time, so that none for hours is strange. */
  readonly busy?: boolean;
}

/** Text of the environment's rule file. */
export function renderRules(options: AlertOptions): string {
  return renderRuleFile(ruleGroups(options), options);
}

/** Everything Prometheus evaluates, objectives first. */
export function ruleGroups(options: AlertOptions): RuleGroup[] {
  const { jobs, thresholds = DEFAULT_THRESHOLDS, objectives = DEFAULT_OBJECTIVES } = options;
  const groups: [name: string, job: string | undefined, rules: readonly Alert[]][] = [
    ['meta', undefined, metaAlerts(jobs)],
    ['api', JOBS.api, apiAlerts(options.replicas, thresholds)],
    ['postgres', JOBS.postgres, postgresAlerts(thresholds)],
    ['nginx', JOBS.nginx, nginxAlerts(jobs)],
    ['gateway', JOBS.accessLog, gatewayAlerts(thresholds)],
    ['entrance', JOBS.probe, entranceAlerts(thresholds)],
    ['host', JOBS.host, hostAlerts()],
    ['containers', JOBS.containers, containerAlerts(options.prefix)],
    ['prometheus', JOBS.prometheus, prometheusAlerts()],
    ['alertmanager', JOBS.alertmanager, alertmanagerAlerts()],
    ['business', JOBS.api, businessAlerts(options.busy ?? false)],
  ];
  return [
    ...sloGroups(objectives, jobs),
    ...groups.filter(([, job]) => job === undefined || jobs.has(job)).map(([name, , rules]) => ({ name, rules })),
  ];
}

const of = (metric: string, job: string, more = '') => `${metric}{job="${job}"${more}}`;
const api = (metric: string, more = '') => of(metric, JOBS.api, more);
const percentOf = (percent: number) => Number((percent / 100).toPrecision(10));

/** Always there, whatever else is: proves the way to whoever is paged. */
function metaAlerts(jobs: ReadonlySet<string>): Alert[] {
  return [
    {
      alert: 'Watchdog',
      expr: 'vector(1)',
      severity: 'none',
      summary: 'Fires always: the way from Prometheus to the receivers works',
      description: "Sent to the dead man's switch every minute. When it stops coming there, nobody would be paged.",
      dashboard: 'loans-monitoring',
    },
    {
      alert: 'InfoInhibitor',
      expr:
        '(count(ALERTS{alertstate="firing",severity="info"}) > 0) ' +
        'unless (count(ALERTS{alertstate="firing",severity=~"warning|critical"}) > 0)',
      severity: 'none',
      summary: 'Only alerts of severity info fire',
      description: 'Holds them back: they explain other alerts, and alone are worth no message.',
      dashboard: 'loans-monitoring',
    },
    {
      alert: 'TargetDown',
      expr: '(count by (job) (up == 0) / count by (job) (up)) > 0.1',
      for: '10m',
      severity: 'warning',
      summary: 'Prometheus does not reach all of {{ $labels.job }}',
      description:
        '{{ $value | humanizePercentage }} of the targets of {{ $labels.job }} do not answer: what they measure is missing.',
      dashboard: 'loans-monitoring',
    },
    {
      alert: 'TargetMissing',
      expr: [...jobs].map((job) => `absent(up{job="${job}"})`).join(' or '),
      for: '10m',
      severity: 'critical',
      summary: 'Prometheus knows no target of {{ $labels.job }}',
      description: 'Nothing of this job is even tried, so the alerts about it are silent.',
      dashboard: 'loans-monitoring',
    },
  ];
}

const REQUESTS = METRICS.httpRequestDuration.name;
/** Rates of few events jump: below this many in the window there is no ratio to speak of. */
const FEW = 20;

const requests = (window: string, more = '') => `sum${requestRate(`job="${JOBS.api}",${USER_ROUTES}${more}`, window)}`;
const failures = (window: string) => requests(window, ',status_code=~"5.."');
const buckets = (window: string, more = '') =>
  `rate(${api(`${REQUESTS}_bucket`, `,${USER_ROUTES}${more}`)}[${window}])`;
const enough = `and ${requests('5m')} * 300 >= ${FEW}`;
const SLOW_SECONDS = 2;

function apiAlerts(replicas: number, thresholds: Thresholds): Alert[] {
  const { errorPercent, errorsPerMinute, p95Seconds } = thresholds;
  const dashboard = 'loans-api';
  const alerts: Alert[] = [
    {
      alert: 'ApiDown',
      // A container that is gone has no series at all: the name service no longer knows it.
      expr: `(count(${api('up')} == 1) or vector(0)) == 0`,
      for: '1m',
      severity: 'critical',
      summary: 'No container of the API answers',
      description: 'Prometheus reaches none of them; users get 502 or 503.',
    },
    {
      alert: 'ApiReplicasMissing',
      expr: `(count(${api('up', ',track="stable"')} == 1) or vector(0)) < ${replicas}`,
      for: '5m',
      severity: 'warning',
      summary: 'Fewer API containers answer than there should be',
      description: `{{ $value }} of ${replicas} answer. Users are served by the others, with less to spare.`,
    },
    {
      alert: 'ApiErrorRateHigh',
      expr: `${failures('5m')} / (${requests('5m')} > 0) > ${percentOf(errorPercent)} ${enough}`,
      for: '5m',
      severity: 'critical',
      summary: `More than ${errorPercent} % of the requests fail`,
      description: '{{ $value | humanizePercentage }} of the requests of the last 5 minutes were answered with 5xx.',
    },
    {
      alert: 'ApiErrors',
      expr: `${failures('1m')} * 60 > ${errorsPerMinute}`,
      for: '1m',
      severity: 'warning',
      summary: `More than ${errorsPerMinute} errors a minute`,
      description: '{{ $value | humanize }} requests a minute are answered with 5xx.',
    },
    {
      alert: 'ApiSlow',
      expr: `histogram_quantile(0.95, sum by (le) (${buckets('5m')})) > ${p95Seconds} ${enough}`,
      for: '5m',
      severity: 'warning',
      summary: `The API's p95 is above ${p95Seconds} s`,
      description: 'One request in twenty takes longer than {{ $value | humanizeDuration }}.',
    },
    {
      alert: 'ApiResponsesVerySlow',
      expr: `1 - sum(${buckets('5m', `,${bucketUpTo(SLOW_SECONDS)}`)}) / (${requests('5m')} > 0) > 0.01 ${enough}`,
      for: '2m',
      severity: 'warning',
      summary: `Answers take longer than ${SLOW_SECONDS} s`,
      description: `{{ $value | humanizePercentage }} of the requests of the last 5 minutes took longer than ${SLOW_SECONDS} s.`,
    },
    {
      alert: 'ApiEventLoopLag',
      expr: `max by (instance) (max_over_time(${api(RUNTIME_METRICS.eventLoopLagP99)}[5m])) > 0.25`,
      for: '10m',
      severity: 'warning',
      summary: 'The event loop of {{ $labels.instance }} lags',
      description:
        'One turn in a hundred waits {{ $value | humanizeDuration }}: something computes for too long, or CPU is short.',
    },
    {
      alert: 'ApiDbPoolSaturated',
      expr: `max by (instance) (${api(METRICS.dbPoolWaiting.name)}) > 0`,
      for: '5m',
      severity: 'warning',
      summary: 'Requests wait for a connection to the database',
      description:
        '{{ $value }} requests of {{ $labels.instance }} wait at every look: its pool is too small, or its statements take too long.',
    },
    {
      alert: 'ApiDatabaseAway',
      expr: `max(${api(METRICS.dbCircuitOpen.name)}) > 0`,
      for: '1m',
      severity: 'critical',
      summary: 'The API cannot use its database',
      description: '{{ $value }} processes of a container refuse at once (503) what needs the database.',
    },
    {
      alert: 'ApiRequestsShed',
      expr: `sum by (reason) (rate(${api(METRICS.requestsShed.name)}[1m])) * 60 > ${errorsPerMinute}`,
      for: '2m',
      severity: 'warning',
      summary: 'The API refuses work that it could not do in time',
      description: '{{ $value | humanize }} a minute are refused at once ({{ $labels.reason }}).',
    },
    {
      alert: 'ApiRestartLoop',
      // Of one container, since `instance` is its name: those of a deploy are other series. A process of it that dies
      // alone does not count, see PROCESS_START.
      expr: `changes(${api(RUNTIME_METRICS.startTime)}[15m]) > 2`,
      severity: 'warning',
      summary: '{{ $labels.instance }} starts again and again',
      description: 'This container of the API started {{ $value }} times within 15 minutes; a deploy makes new ones.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard }));
}

function postgresAlerts({ connectionsPercent }: Thresholds): Alert[] {
  const metric = (name: keyof typeof POSTGRES_METRICS, more = '') => of(POSTGRES_METRICS[name], JOBS.postgres, more);
  const ours = ',datname!~"template.*|postgres|"';
  const usable = `sum(${metric('maxConnections')} - ${metric('reservedConnections')})`;
  const used = `sum(${metric('activity')})`;
  const rate = (name: keyof typeof POSTGRES_METRICS, window: string, more = ours) =>
    `sum by (datname) (rate(${metric(name, more)}[${window}]))`;
  const alerts: Alert[] = [
    {
      alert: 'PostgresDown',
      // Without its exporter nobody knows: that is TargetDown.
      expr: `max(${metric('up')}) == 0`,
      for: '1m',
      severity: 'critical',
      summary: 'PostgreSQL does not answer',
      description: 'Its exporter cannot connect; every request that needs the database gets 503.',
    },
    {
      alert: 'PostgresConnectionsHigh',
      expr: `${used} / ${usable} > ${percentOf(connectionsPercent)}`,
      for: '5m',
      severity: 'warning',
      summary: `More than ${connectionsPercent} % of the database's connections are taken`,
      description:
        '{{ $value | humanizePercentage }} of the usable connections: the next deploy or canary may not get its own.',
    },
    {
      alert: 'PostgresConnectionsExhausted',
      expr: `${used} / ${usable} >= ${CONNECTIONS_EXHAUSTED}`,
      for: '1m',
      severity: 'critical',
      summary: 'The database has no connection left',
      description:
        '{{ $value | humanizePercentage }} of the usable connections are taken: who wants another one is refused.',
    },
    {
      alert: 'PostgresLongTransaction',
      expr: `max by (datname, state) (${metric('longestTransaction', ours)}) > 300`,
      for: '2m',
      severity: 'warning',
      summary: 'A transaction in {{ $labels.datname }} is open for {{ $value | humanizeDuration }}',
      description:
        'It is {{ $labels.state }}. It keeps its locks, and nothing that was deleted since can be cleaned up.',
    },
    {
      alert: 'PostgresDeadlocks',
      expr: `sum by (datname) (increase(${metric('deadlocks', ours)}[15m])) > 0`,
      severity: 'warning',
      summary: 'Transactions in {{ $labels.datname }} locked each other out',
      description: '{{ $value | humanize }} times within 15 minutes PostgreSQL ended one of them.',
    },
    {
      alert: 'PostgresRollbackRatioHigh',
      expr: `${rate('rollbacks', '5m')} / (${rate('commits', '5m')} + ${rate('rollbacks', '5m')} > 0.1) > 0.1`,
      for: '10m',
      severity: 'warning',
      summary: 'Many transactions of {{ $labels.datname }} are rolled back',
      description: '{{ $value | humanizePercentage }} of them over 5 minutes; normal is next to none.',
    },
    {
      alert: 'PostgresCacheHitRatioLow',
      expr: `${rate('blocksHit', '30m')} / (${rate('blocksHit', '30m')} + ${rate('blocksRead', '30m')} > 10) < 0.95`,
      for: '30m',
      severity: 'info',
      summary: 'The database reads much from disk',
      description:
        'Only {{ $value | humanizePercentage }} of the blocks that {{ $labels.datname }} wants are in its buffers.',
    },
    {
      alert: 'PostgresMeanQueryTimeHigh',
      expr: `${rate('statementSeconds', '5m', '')} / (${rate('statementCalls', '5m', '')} > 0) > 0.5`,
      for: '10m',
      severity: 'warning',
      summary: 'Statements in {{ $labels.datname }} are slow',
      description: 'They take {{ $value | humanizeDuration }} on average.',
    },
    {
      alert: 'PostgresExporterErrors',
      expr: `max(${metric('lastScrapeError')}) > 0`,
      for: '15m',
      severity: 'warning',
      summary: "The database's exporter reports errors",
      description: 'Some of its figures are missing: other alerts about PostgreSQL may be blind.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-postgres' }));
}

function nginxAlerts(jobs: ReadonlySet<string>): Alert[] {
  const metric = (name: keyof typeof NGINX_METRICS) => of(NGINX_METRICS[name], JOBS.nginx);
  // The port of its metrics alone may be silent. Whoever gets in by the public one proves that it is up.
  const probed = jobs.has(JOBS.probe);
  const getsIn = `max(${of(PROBE_METRICS.success, JOBS.probe)}) == 1`;
  const alerts: Alert[] = [
    {
      alert: 'NginxDown',
      expr: `max(${metric('up')}) == 0${probed ? ` unless on () (${getsIn})` : ''}`,
      for: '1m',
      severity: 'critical',
      summary: 'The gateway does not answer',
      description: probed
        ? 'nginx does not tell its status, and no check gets through the public entrance: nobody gets in.'
        : 'nginx does not tell its status: nobody gets in.',
    },
    {
      alert: 'NginxDroppedConnections',
      expr: `sum(rate(${metric('accepted')}[5m]) - rate(${metric('handled')}[5m])) > 0`,
      for: '5m',
      severity: 'warning',
      summary: 'The gateway drops connections',
      description: '{{ $value | humanize }} a second: its worker_connections are used up.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-edge' }));
}

/** What the API cannot know of: requests that it never got, or never answered. Maintenance is a 503. */
function gatewayAlerts({ errorPercent }: Thresholds): Alert[] {
  const answers = (window: string, more = '') =>
    `sum(rate(${of(ACCESS_LOG_METRICS.responses, JOBS.accessLog, more)}[${window}]))`;
  return [
    {
      alert: 'GatewayErrorRateHigh',
      expr:
        `${answers('1m', ',status=~"502|504"')} / (${answers('1m')} > 0) > ${percentOf(errorPercent)} ` +
        `and ${answers('5m')} * 300 >= ${FEW}`,
      for: '2m',
      severity: 'critical',
      summary: `More than ${errorPercent} % of the requests get no answer from the API`,
      description:
        '{{ $value | humanizePercentage }} of the last minute ended with 502 or 504 at the gateway: neither the figures of the API nor the error budgets show them.',
      dashboard: 'loans-edge',
    },
  ];
}
/** When the complaint about a certificate becomes a page: never before the complaint. */
export const certificateDaysCritical = ({ certificateDays }: Thresholds) => Math.min(7, certificateDays);

function entranceAlerts(thresholds: Thresholds): Alert[] {
  const { healthPercent, certificateDays } = thresholds;
  const success = (probe: string) => of(PROBE_METRICS.success, JOBS.probe, `,probe${probe}`);
  const left = `min(${of(PROBE_METRICS.certificateExpiry, JOBS.probe)}) - time()`;
  const alerts: Alert[] = [
    {
      alert: 'ProbeFailing',
      expr: `max by (probe) (${success('=~"api|database"')}) == 0`,
      for: '2m',
      severity: 'critical',
      summary: 'The check {{ $labels.probe }} fails through the public entrance',
      description: 'Asked as users ask, by name and through TLS, for as long as this no answer was a good one.',
    },
    {
      alert: 'ProbeFailing',
      expr: `max by (probe) (${success('!~"api|database"')}) == 0`,
      for: '2m',
      severity: 'warning',
      summary: 'The check {{ $labels.probe }} fails through the public entrance',
      description: 'Users of the API do not notice.',
    },
    {
      alert: 'ApiHealthFailing',
      expr: `avg(avg_over_time(${success('="api"')}[10m])) < ${percentOf(healthPercent)}`,
      for: '1m',
      severity: 'warning',
      summary: `Fewer than ${healthPercent} % of the health checks succeed`,
      description: 'Only {{ $value | humanizePercentage }} of those of the last 10 minutes did.',
    },
    {
      alert: 'TlsCertificateExpiresSoon',
      expr: `${left} < ${certificateDays} * 86400`,
      for: '1h',
      severity: 'warning',
      summary: 'The certificate expires in {{ $value | humanizeDuration }}',
      description: 'After that browsers and clients refuse to connect.',
    },
    {
      alert: 'TlsCertificateExpiresVerySoon',
      expr: `${left} < ${certificateDaysCritical(thresholds)} * 86400`,
      for: '10m',
      severity: 'critical',
      summary: 'The certificate expires in {{ $value | humanizeDuration }}',
      description: 'After that browsers and clients refuse to connect. Whatever should have renewed it has not.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-edge' }));
}

/** Neither memory nor images that are full by nature. */
const DISKS = ',fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|erofs"';

function hostAlerts(): Alert[] {
  const metric = (name: keyof typeof HOST_METRICS, more = '') => of(HOST_METRICS[name], JOBS.host, more);
  const left = `${metric('filesystemAvailable', DISKS)} / ${metric('filesystemSize', DISKS)}`;
  const alerts: Alert[] = [
    {
      alert: 'HostFilesystemFillingUp',
      expr: `${left} < 0.15 and predict_linear(${metric('filesystemAvailable', DISKS)}[6h], 24 * 3600) < 0`,
      for: '1h',
      severity: 'warning',
      summary: '{{ $labels.mountpoint }} of the host will be full within a day',
      description:
        '{{ $value | humanizePercentage }} is left, and it shrinks. The database stops writing when it is full.',
    },
    {
      alert: 'HostFilesystemAlmostFull',
      expr: `${left} < 0.05`,
      for: '15m',
      severity: 'critical',
      summary: '{{ $labels.mountpoint }} of the host is almost full',
      description: '{{ $value | humanizePercentage }} is left. The database stops writing when it is full.',
    },
    {
      alert: 'HostMemoryHigh',
      expr: `1 - ${metric('memoryAvailable')} / ${metric('memoryTotal')} > 0.9`,
      for: '15m',
      severity: 'warning',
      summary: "The host's memory is almost used up",
      description: '{{ $value | humanizePercentage }} is in use. What the kernel ends then is not chosen by us.',
    },
    {
      alert: 'HostCpuSaturated',
      expr: `${metric('load1')} / on (instance) count by (instance) (${metric('cpuSeconds', ',mode="idle"')}) > 2`,
      for: '15m',
      severity: 'warning',
      summary: 'The host has more to do than its CPUs can',
      description: '{{ $value | humanize }} processes per CPU want to run.',
    },
    {
      alert: 'HostClockSkew',
      expr: `max_over_time(${metric('timeSynced')}[5m]) == 0`,
      for: '10m',
      severity: 'warning',
      summary: "The host's clock is not synchronised",
      description: 'Logs, schedules of payments and expiry of keys go by it.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-resources' }));
}

function containerAlerts(prefix: string): Alert[] {
  const metric = (name: keyof typeof CONTAINER_METRICS) =>
    of(CONTAINER_METRICS[name], JOBS.containers, `,name=~"${prefix}-.+"`);
  const alerts: Alert[] = [
    {
      alert: 'ContainerMemoryNearLimit',
      expr: `max by (name) (${metric('workingSet')} / (${metric('memoryLimit')} > 0)) > 0.9`,
      for: '10m',
      severity: 'warning',
      summary: '{{ $labels.name }} is near its memory limit',
      description: 'It uses {{ $value | humanizePercentage }} of it. Beyond that the kernel ends it.',
    },
    {
      alert: 'ContainerOomKilled',
      expr: `sum by (name) (increase(${metric('oomEvents')}[10m])) > 0`,
      severity: 'critical',
      summary: '{{ $labels.name }} ran out of memory',
      description: 'The kernel ended a process of it within the last 10 minutes; the engine starts it again.',
    },
    {
      alert: 'ContainerCpuThrottled',
      expr:
        `sum by (name) (rate(${metric('throttledPeriods')}[5m])) / ` +
        `(sum by (name) (rate(${metric('periods')}[5m])) > 0) > 0.25`,
      for: '15m',
      severity: 'info',
      summary: '{{ $labels.name }} is held back at its CPU limit',
      description: 'In {{ $value | humanizePercentage }} of the periods it wanted more than it may have.',
    },
    {
      alert: 'ContainerRestartLoop',
      // By its id: what a deploy replaces in place keeps its name, but is another container.
      expr: `max by (name) (changes(${metric('startTime')}[15m])) > 2`,
      severity: 'warning',
      summary: '{{ $labels.name }} starts again and again',
      description: 'The same container started {{ $value }} times within 15 minutes; a deploy makes new ones.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-resources' }));
}

/** Of Prometheus and Alertmanager about themselves. */
const SELF = {
  reloaded: 'prometheus_config_last_reload_successful',
  ruleFailures: 'prometheus_rule_evaluation_failures_total',
  discovered: 'prometheus_notifications_alertmanagers_discovered',
  notDelivered: 'prometheus_notifications_errors_total',
  blocks: 'prometheus_tsdb_storage_blocks_bytes',
  blocksLimit: 'prometheus_tsdb_retention_limit_bytes',
  alertmanagerReloaded: 'alertmanager_config_last_reload_successful',
  sent: 'alertmanager_notifications_total',
  failed: 'alertmanager_notifications_failed_total',
} as const;

function prometheusAlerts(): Alert[] {
  const metric = (name: keyof typeof SELF) => of(SELF[name], JOBS.prometheus);
  const alerts: Alert[] = [
    {
      alert: 'PrometheusConfigReloadFailed',
      expr: `max(max_over_time(${metric('reloaded')}[5m])) == 0`,
      for: '10m',
      severity: 'critical',
      summary: 'Prometheus runs with an old configuration',
      description: 'It could not read the last one: rules and targets are those of before.',
    },
    {
      alert: 'PrometheusRuleFailures',
      expr: `sum by (rule_group) (increase(${metric('ruleFailures')}[5m])) > 0`,
      for: '15m',
      severity: 'critical',
      summary: 'Rules cannot be evaluated',
      description:
        '{{ $value | humanize }} evaluations of {{ $labels.rule_group }} failed in 5 minutes: its alerts are blind.',
    },
    {
      alert: 'PrometheusNotConnectedToAlertmanager',
      // It knows the address from its configuration, so only what it could not hand over tells.
      expr: `max(${metric('discovered')}) < 1 or sum(rate(${metric('notDelivered')}[5m])) > 0`,
      for: '5m',
      severity: 'critical',
      summary: 'Alerts do not reach Alertmanager',
      description: 'Nobody is told of anything.',
    },
    {
      alert: 'PrometheusTsdbNearRetentionSize',
      expr: `max(${metric('blocks')} / (${metric('blocksLimit')} > 0)) > 0.9`,
      for: '1h',
      severity: 'warning',
      summary: "Prometheus' storage is almost full",
      description:
        'It uses {{ $value | humanizePercentage }} of what it may. Then the oldest figures go, and with them those of the error budgets.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-monitoring' }));
}

function alertmanagerAlerts(): Alert[] {
  const metric = (name: keyof typeof SELF) => of(SELF[name], JOBS.alertmanager);
  const alerts: Alert[] = [
    {
      alert: 'AlertmanagerConfigReloadFailed',
      expr: `max(max_over_time(${metric('alertmanagerReloaded')}[5m])) == 0`,
      for: '10m',
      severity: 'critical',
      summary: 'Alertmanager runs with an old configuration',
      description: 'It could not read the last one: receivers and routes are those of before.',
    },
    {
      alert: 'AlertmanagerNotificationsFailing',
      expr:
        `sum by (integration) (rate(${metric('failed')}[5m])) / ` +
        `(sum by (integration) (rate(${metric('sent')}[5m])) > 0) > 0.01`,
      for: '5m',
      severity: 'critical',
      summary: 'Messages by {{ $labels.integration }} do not arrive',
      description: '{{ $value | humanizePercentage }} of the attempts fail: who should be told is not.',
    },
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-monitoring' }));
}

function businessAlerts(busy: boolean): Alert[] {
  const created = (more = '') => `sum(increase(${api(METRICS.loansCreated.name)}[6h]${more}))`;
  const alerts: Alert[] = [
    {
      alert: 'LoanMetricsStale',
      expr: `time() - min(${api(METRICS.loansRefreshed.name)}) > 300`,
      for: '5m',
      severity: 'warning',
      summary: 'The figures of the book are old',
      description:
        'They were last read from the database {{ $value | humanizeDuration }} ago; dashboards show the past.',
    },
    ...(busy
      ? [
          {
            alert: 'NoLoansCreated',
            expr: `${created()} == 0 and ${created(' offset 1w')} > 5`,
            for: '30m',
            severity: 'info',
            summary: 'No loan was asked for in 6 hours',
            description: 'A week ago there were some at this time. All may be well here and the way to us broken.',
          } as const,
        ]
      : []),
  ];
  return alerts.map((alert) => ({ ...alert, dashboard: 'loans-business' }));
}
