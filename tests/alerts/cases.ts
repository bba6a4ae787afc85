/**
 * For every alert: what Prometheus would see, when it must still be silent and when it must fire. What it says is
 * rendered from the rule's own annotations, with the number that stands here.
 */
export interface Case {
  readonly alert: string;
  /** Group of its rule. */
  readonly group: string;
  /** Where an alert has more than one: what is special. */
  readonly name?: string;
  /** Series -> values, one every `INTERVALS[group]`, in promtool's notation. */
  readonly series: Readonly<Record<string, string>>;
  /** Too early, or all is well. Left out only of what fires always. */
  readonly silentAt?: string;
  /** Left out where it must not fire at all. */
  readonly firesAt?: string;
  /** Labels of each alert that fires, beside env and severity; one without further labels if left out. */
  readonly labels?: readonly Readonly<Record<string, string>>[];
  /** How `$value` reads. */
  readonly says?: string;
}

/** How often series have a value and rules are evaluated; a file has one for all of its cases. */
export const INTERVALS: Readonly<Record<string, string>> = {
  meta: '15s',
  api: '15s',
  postgres: '15s',
  nginx: '15s',
  gateway: '15s',
  entrance: '30s',
  host: '1m',
  containers: '15s',
  prometheus: '1m',
  alertmanager: '15s',
  business: '30m',
};

const target = (job: string, instance = 'a') => `job="${job}",env="staging",instance="${instance}"`;
const up = (job: string, instance?: string, more = '') => `up{${target(job, instance)}${more}}`;
const API = target('api');
/** When this container of the API started. */
const started = (name: string) => `process_start_time_seconds{${target('api', name)}}`;
const failed = (status: number, route = '/api/loans') =>
  `http_requests_failed_total{${API},method="GET",route="${route}",status_code="${status}"}`;
const requests = (status: number, route = '/api/loans') =>
  `http_request_duration_seconds_count{${API},method="GET",route="${route}",status_code="${status}"}`;
const bucket = (le: string) =>
  `http_request_duration_seconds_bucket{${API},method="GET",route="/api/loans",status_code="200",le="${le}"}`;
const postgres = (metric: string, more = ',datname="loans"') => `${metric}{${target('postgres')}${more}}`;
const statements = (seconds: string) => ({
  [postgres('pg_stat_statements_seconds_total')]: seconds,
  [postgres('pg_stat_statements_calls_total')]: '0+10x100',
});
const connections = (used: number) => ({
  [postgres('pg_stat_activity_count')]: `${used}x60`,
  [postgres('pg_settings_max_connections', '')]: '103x60',
  [postgres('pg_settings_superuser_reserved_connections', '')]: '3x60',
});
const probe = (name: string, metric = 'probe_success') => `${metric}{${target('probe')},probe="${name}"}`;
const answers = (status: number) =>
  `nginx_http_response_count_total{${target('access-log')},method="GET",status="${status}"}`;
const host = (metric: string, more = '') => `${metric}{${target('host')}${more}}`;
const DISK = ',mountpoint="/",fstype="ext4",device="/dev/vda1"';
const DISK_LABELS = { job: 'host', instance: 'a', mountpoint: '/', fstype: 'ext4', device: '/dev/vda1' };
const container = (metric: string, name = 'bl-api-1') => `${metric}{${target('containers')},name="${name}"}`;
const itself = (job: string, metric: string, more = '') => `${metric}{${target(job)}${more}}`;

const JOBS = ['api', 'prometheus', 'alertmanager', 'postgres', 'nginx', 'access-log', 'host', 'containers', 'probe'];

export const CASES: readonly Case[] = [
  { group: 'meta', alert: 'Watchdog', series: {}, firesAt: '0m' },
  {
    group: 'meta',
    alert: 'InfoInhibitor',
    series: {
      'ALERTS{alertname="A",alertstate="firing",severity="info"}': '1x40',
      'ALERTS{alertname="B",alertstate="firing",severity="warning"}': '1x20 stale',
    },
    silentAt: '4m',
    firesAt: '6m',
  },
  {
    group: 'meta',
    alert: 'TargetDown',
    series: { [up('nginx')]: '0x60', [up('host')]: '1x60' },
    silentAt: '9m',
    firesAt: '11m',
    labels: [{ job: 'nginx' }],
    says: '100%',
  },
  {
    group: 'meta',
    alert: 'TargetMissing',
    series: Object.fromEntries(JOBS.filter((job) => job !== 'nginx').map((job) => [up(job), '1x60'])),
    silentAt: '9m',
    firesAt: '11m',
    labels: [{ job: 'nginx' }],
  },

  {
    group: 'api',
    alert: 'ApiDown',
    name: 'its only container does not answer',
    series: { [up('api')]: '1x8 0x40' },
    silentAt: '3m',
    firesAt: '4m',
  },
  {
    group: 'api',
    alert: 'ApiDown',
    name: 'nobody knows its name any more',
    series: { [up('api')]: '1x8 stale' },
    silentAt: '3m',
    firesAt: '4m',
  },
  {
    group: 'api',
    alert: 'ApiReplicasMissing',
    series: { [up('api', 'a', ',track="stable"')]: '1x60', [up('api', 'b', ',track="stable"')]: '1x8 stale' },
    silentAt: '7m',
    firesAt: '8m',
    says: '1',
  },
  {
    group: 'api',
    alert: 'ApiErrorRateHigh',
    series: { [requests(200)]: '0+90x60', [requests(503)]: '0+10x60' },
    silentAt: '5m',
    firesAt: '6m',
    says: '10%',
  },
  {
    group: 'api',
    alert: 'ApiErrorRateHigh',
    name: 'a few requests are too few for a ratio',
    series: { [requests(200)]: '0x30 1x60', [requests(500)]: '0x30 1+0x20 2x40' },
    silentAt: '12m',
  },
  {
    group: 'api',
    alert: 'ApiErrors',
    series: { [requests(500)]: '0x20 3+3x40' },
    silentAt: '5m',
    firesAt: '7m30s',
    says: '12',
  },
  {
    group: 'api',
    alert: 'ApiErrors',
    name: 'each of many operations fails for the first time',
    // Two failures of another route every 15 s. The histogram has no series of a failure before the first one.
    series: Object.fromEntries(
      Array.from({ length: 16 }, (_, route) => [
        [failed(503, `/${route}`), `0x${8 + route} 2x40`],
        [requests(503, `/${route}`), `_x${9 + route} 2x40`],
      ]).flat(),
    ),
    silentAt: '2m',
    firesAt: '4m30s',
    says: '6',
  },
  {
    group: 'api',
    alert: 'ApiErrors',
    name: 'each failure counts once, though two metrics tell of it',
    series: { [failed(503)]: '0+1x60', [requests(503)]: '_ 0+1x60' },
    silentAt: '10m',
  },
  {
    group: 'api',
    alert: 'ApiErrorRateHigh',
    name: 'all requests of a new release fail',
    series: { [failed(503)]: '0x8 10+10x60', [requests(503)]: '_x8 10+10x60' },
    silentAt: '4m',
    firesAt: '7m30s',
    says: '100%',
  },
  {
    group: 'api',
    alert: 'ApiSlow',
    series: {
      [requests(200)]: '0+100x60',
      [bucket('1.0')]: '0+80x60',
      [bucket('2.0')]: '0+100x60',
      [bucket('+Inf')]: '0+100x60',
    },
    silentAt: '5m',
    firesAt: '6m',
    says: '1.75s',
  },
  ...['2', '2.0'].map((le): Case => ({
    group: 'api',
    alert: 'ApiResponsesVerySlow',
    name: `the bound is written ${le}`,
    series: { [requests(200)]: '0+100x60', [bucket(le)]: '0+90x60', [bucket('+Inf')]: '0+100x60' },
    silentAt: '2m',
    firesAt: '3m',
    says: '10%',
  })),
  {
    group: 'api',
    alert: 'ApiEventLoopLag',
    name: 'a scrape that failed does not hide it',
    series: { [`nodejs_eventloop_lag_p99_seconds{${API}}`]: '0.5x20 stale _x3 0.5x40' },
    silentAt: '9m',
    firesAt: '11m',
    labels: [{ instance: 'a' }],
    says: '500ms',
  },
  {
    group: 'api',
    alert: 'ApiDbPoolSaturated',
    series: { [`db_pool_waiting_requests{${API}}`]: '3x40' },
    silentAt: '4m',
    firesAt: '6m',
    labels: [{ instance: 'a' }],
    says: '3',
  },
  {
    group: 'api',
    alert: 'ApiDbPoolSaturated',
    name: 'nobody waits in between',
    series: { [`db_pool_waiting_requests{${API}}`]: '3x16 0 3x40' },
    silentAt: '8m',
  },
  {
    group: 'api',
    alert: 'ApiDatabaseAway',
    series: { [`db_circuit_open{${API}}`]: '0x8 1x40' },
    silentAt: '3m',
    firesAt: '4m',
    says: '1',
  },
  {
    group: 'api',
    alert: 'ApiRequestsShed',
    series: { [`requests_shed_total{${API},reason="queue"}`]: '0+5x60' },
    silentAt: '2m',
    firesAt: '3m',
    labels: [{ reason: 'queue' }],
    says: '20',
  },
  {
    group: 'api',
    alert: 'ApiRestartLoop',
    name: 'a container that starts four times',
    series: { [started('bl-api-1-97fff87')]: '10x3 70x3 130x3 190x40', [started('bl-api-2-0d61126')]: '10x60' },
    silentAt: '2m30s',
    firesAt: '3m30s',
    labels: [{ job: 'api', instance: 'bl-api-1-97fff87' }],
    says: '3',
  },
  {
    group: 'api',
    alert: 'ApiRestartLoop',
    name: 'four deploys within 15 minutes, at the same two addresses, are none',
    series: Object.fromEntries(
      [0, 1, 2, 3].flatMap((deploy) =>
        ['1', '2'].map((index) => [
          started(`bl-api-${index}-${deploy}${deploy}${deploy}${deploy}${deploy}${deploy}${deploy}`),
          `_x${deploy * 12} ${deploy * 180}x12 stale`,
        ]),
      ),
    ),
    silentAt: '14m',
  },

  {
    group: 'postgres',
    alert: 'PostgresDown',
    series: { [postgres('pg_up', '')]: '1x8 0x40' },
    silentAt: '3m',
    firesAt: '4m',
  },
  {
    group: 'postgres',
    alert: 'PostgresDown',
    name: 'the exporter is away',
    series: { [up('postgres')]: '0x40' },
    silentAt: '9m',
  },
  {
    group: 'postgres',
    alert: 'PostgresConnectionsHigh',
    series: connections(85),
    silentAt: '4m',
    firesAt: '6m',
    says: '85%',
  },
  {
    group: 'postgres',
    alert: 'PostgresConnectionsExhausted',
    series: connections(97),
    silentAt: '30s',
    firesAt: '2m',
    says: '97%',
  },
  {
    group: 'postgres',
    alert: 'PostgresLongTransaction',
    series: { [postgres('pg_stat_activity_max_tx_duration', ',datname="loans",state="active"')]: '400x40' },
    silentAt: '1m',
    firesAt: '3m',
    labels: [{ datname: 'loans', state: 'active' }],
    says: '6m 40s',
  },
  {
    group: 'postgres',
    alert: 'PostgresDeadlocks',
    series: { [postgres('pg_stat_database_deadlocks')]: '0x60 2x30' },
    silentAt: '14m',
    firesAt: '15m15s',
    labels: [{ datname: 'loans' }],
    says: '2',
  },
  {
    group: 'postgres',
    alert: 'PostgresRollbackRatioHigh',
    series: {
      [postgres('pg_stat_database_xact_commit')]: '0+80x60',
      [postgres('pg_stat_database_xact_rollback')]: '0+20x60',
    },
    silentAt: '9m',
    firesAt: '11m',
    labels: [{ datname: 'loans' }],
    says: '20%',
  },
  {
    group: 'postgres',
    alert: 'PostgresCacheHitRatioLow',
    series: {
      [postgres('pg_stat_database_blks_hit')]: '0+900x170',
      [postgres('pg_stat_database_blks_read')]: '0+100x170',
    },
    silentAt: '30m',
    firesAt: '40m',
    labels: [{ datname: 'loans' }],
    says: '90%',
  },
  {
    group: 'postgres',
    alert: 'PostgresMeanQueryTimeHigh',
    series: statements('0+8x100'),
    silentAt: '9m',
    firesAt: '11m',
    labels: [{ datname: 'loans' }],
    says: '800ms',
  },
  {
    group: 'postgres',
    alert: 'PostgresExporterErrors',
    series: { [postgres('pg_exporter_last_scrape_error', '')]: '1x80' },
    silentAt: '14m',
    firesAt: '16m',
  },

  {
    group: 'nginx',
    alert: 'NginxDown',
    name: 'fires where nothing probes',
    series: { [up('nginx')]: '1x8 0x40' },
    silentAt: '3m',
    firesAt: '4m',
  },
  {
    group: 'nginx',
    alert: 'NginxDown',
    name: 'fires when no probe gets through',
    series: {
      [up('nginx')]: '1x8 0x40',
      [probe('api')]: '1x12 0x40',
      [probe('grafana')]: '1x12 0x40',
    },
    // A minute after the last probe that got through, not after the last look at its metrics.
    silentAt: '4m',
    firesAt: '4m30s',
  },
  {
    group: 'nginx',
    alert: 'NginxDown',
    name: 'is silent while one probe gets through',
    series: { [up('nginx')]: '1x8 0x40', [probe('api')]: '1x8 0x40', [probe('grafana')]: '1x48' },
    silentAt: '10m',
  },
  {
    group: 'nginx',
    alert: 'NginxDroppedConnections',
    series: {
      [`nginx_connections_accepted{${target('nginx')}}`]: '0+150x40',
      [`nginx_connections_handled{${target('nginx')}}`]: '0+120x40',
    },
    silentAt: '5m',
    firesAt: '6m',
    says: '2',
  },

  {
    group: 'gateway',
    alert: 'GatewayErrorRateHigh',
    series: { [answers(200)]: '0+90x60', [answers(502)]: '0x8 0+4x40', [answers(504)]: '0x8 0+6x40' },
    silentAt: '4m',
    firesAt: '5m',
    says: '10%',
  },
  {
    group: 'gateway',
    alert: 'GatewayErrorRateHigh',
    name: 'a container that started again is over before',
    series: { [answers(200)]: '0+90x60', [answers(502)]: '0x8 0+90x4 360x50' },
    silentAt: '5m',
  },
  {
    group: 'gateway',
    alert: 'GatewayErrorRateHigh',
    name: 'what is closed for maintenance, or refused by the API, is none of it',
    series: { [answers(200)]: '0+10x60', [answers(503)]: '0+90x60', [answers(500)]: '0+90x60' },
    silentAt: '10m',
  },
  {
    group: 'gateway',
    alert: 'GatewayErrorRateHigh',
    name: 'a few requests are too few for a ratio',
    series: { [answers(504)]: Array.from({ length: 40 }, (_, sample) => Math.floor(sample / 2)).join(' ') },
    silentAt: '9m',
  },

  {
    group: 'entrance',
    alert: 'ProbeFailing',
    name: 'of the API pages, of Grafana does not',
    series: { [probe('api')]: '1x3 0x10', [probe('database')]: '1x13', [probe('grafana')]: '0x13' },
    silentAt: '1m30s',
    firesAt: '4m30s',
    labels: [
      { probe: 'api', severity: 'critical' },
      { probe: 'grafana', severity: 'warning' },
    ],
  },
  {
    group: 'entrance',
    alert: 'ApiHealthFailing',
    series: { [probe('api')]: '1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0' },
    silentAt: '1m',
    firesAt: '9m30s',
    says: '75%',
  },
  {
    group: 'entrance',
    alert: 'TlsCertificateExpiresSoon',
    series: { [probe('api', 'probe_ssl_earliest_cert_expiry')]: '1739400x140' },
    silentAt: '59m',
    firesAt: '65m',
    // 20 d, 3 h and 10 min after the beginning, seen 65 min later.
    says: '20d 2h 5m 0s',
  },
  {
    group: 'entrance',
    alert: 'TlsCertificateExpiresVerySoon',
    series: { [probe('api', 'probe_ssl_earliest_cert_expiry')]: '173460x40' },
    silentAt: '9m',
    firesAt: '11m',
    says: '2d 0h 0m 0s',
  },

  {
    group: 'host',
    alert: 'HostFilesystemFillingUp',
    name: 'only where it shrinks',
    series: {
      [host('node_filesystem_avail_bytes', DISK)]: '1400-1x120',
      [host('node_filesystem_size_bytes', DISK)]: '10000x120',
      [host('node_filesystem_avail_bytes', ',mountpoint="/data",fstype="ext4",device="/dev/vdb"')]: '1400x120',
      [host('node_filesystem_size_bytes', ',mountpoint="/data",fstype="ext4",device="/dev/vdb"')]: '10000x120',
    },
    silentAt: '59m',
    firesAt: '100m',
    labels: [DISK_LABELS],
    says: '13%',
  },
  {
    group: 'host',
    alert: 'HostFilesystemAlmostFull',
    series: {
      [host('node_filesystem_avail_bytes', DISK)]: '400x30',
      [host('node_filesystem_size_bytes', DISK)]: '10000x30',
      [host('node_filesystem_avail_bytes', ',mountpoint="/snap",fstype="squashfs"')]: '0x30',
      [host('node_filesystem_size_bytes', ',mountpoint="/snap",fstype="squashfs"')]: '100x30',
    },
    silentAt: '14m',
    firesAt: '16m',
    labels: [DISK_LABELS],
    says: '4%',
  },
  {
    group: 'host',
    alert: 'HostMemoryHigh',
    series: { [host('node_memory_MemAvailable_bytes')]: '5x30', [host('node_memory_MemTotal_bytes')]: '100x30' },
    silentAt: '14m',
    firesAt: '16m',
    labels: [{ job: 'host', instance: 'a' }],
    says: '95%',
  },
  {
    group: 'host',
    alert: 'HostCpuSaturated',
    series: {
      [host('node_load1')]: '6x30',
      [host('node_cpu_seconds_total', ',cpu="0",mode="idle"')]: '0+10x30',
      [host('node_cpu_seconds_total', ',cpu="1",mode="idle"')]: '0+10x30',
    },
    silentAt: '14m',
    firesAt: '16m',
    labels: [{ instance: 'a' }],
    says: '3',
  },
  {
    group: 'host',
    alert: 'HostClockSkew',
    series: { [host('node_timex_sync_status')]: '1x5 0x40' },
    silentAt: '18m',
    firesAt: '22m',
    labels: [{ job: 'host', instance: 'a' }],
  },

  {
    group: 'containers',
    alert: 'ContainerMemoryNearLimit',
    name: 'of this environment only',
    series: {
      [container('container_memory_working_set_bytes')]: '95x60',
      [container('container_spec_memory_limit_bytes')]: '100x60',
      [container('container_memory_working_set_bytes', 'other-api-1')]: '95x60',
      [container('container_spec_memory_limit_bytes', 'other-api-1')]: '100x60',
    },
    silentAt: '9m',
    firesAt: '11m',
    labels: [{ name: 'bl-api-1' }],
    says: '95%',
  },
  {
    group: 'containers',
    alert: 'ContainerOomKilled',
    series: { [container('container_oom_events_total')]: '0x8 1x40' },
    silentAt: '2m',
    firesAt: '3m',
    labels: [{ name: 'bl-api-1' }],
  },
  {
    group: 'containers',
    alert: 'ContainerCpuThrottled',
    series: {
      [container('container_cpu_cfs_throttled_periods_total')]: '0+30x80',
      [container('container_cpu_cfs_periods_total')]: '0+60x80',
    },
    silentAt: '15m',
    firesAt: '16m',
    labels: [{ name: 'bl-api-1' }],
    says: '50%',
  },
  {
    group: 'containers',
    alert: 'ContainerRestartLoop',
    series: { [container('container_start_time_seconds')]: '1x4 60x4 120x4 180x20' },
    silentAt: '2m',
    firesAt: '4m',
    labels: [{ name: 'bl-api-1' }],
    says: '3',
  },
  {
    group: 'containers',
    alert: 'ContainerRestartLoop',
    name: 'four deploys that replace the gateway in place are none',
    series: Object.fromEntries(
      [0, 1, 2, 3].map((deploy) => [
        `container_start_time_seconds{${target('containers')},name="bl-gateway",id="${deploy}"}`,
        `_x${deploy * 12} ${deploy * 180}x12 stale`,
      ]),
    ),
    silentAt: '14m',
  },

  {
    group: 'prometheus',
    alert: 'PrometheusConfigReloadFailed',
    series: { [itself('prometheus', 'prometheus_config_last_reload_successful')]: '1x5 0x40' },
    silentAt: '18m',
    firesAt: '22m',
  },
  {
    group: 'prometheus',
    alert: 'PrometheusRuleFailures',
    series: { [itself('prometheus', 'prometheus_rule_evaluation_failures_total', ',rule_group="api"')]: '0+1x40' },
    silentAt: '15m',
    firesAt: '17m',
    labels: [{ rule_group: 'api' }],
    says: '5',
  },
  {
    group: 'prometheus',
    alert: 'PrometheusNotConnectedToAlertmanager',
    name: 'nobody listens',
    series: {
      [itself('prometheus', 'prometheus_notifications_alertmanagers_discovered')]: '1x40',
      [itself('prometheus', 'prometheus_notifications_errors_total')]: '0+1x40',
    },
    silentAt: '5m',
    firesAt: '7m',
  },
  {
    group: 'prometheus',
    alert: 'PrometheusNotConnectedToAlertmanager',
    name: 'none is configured',
    series: { [itself('prometheus', 'prometheus_notifications_alertmanagers_discovered')]: '0x40' },
    silentAt: '4m',
    firesAt: '6m',
  },
  {
    group: 'prometheus',
    alert: 'PrometheusTsdbNearRetentionSize',
    series: {
      [itself('prometheus', 'prometheus_tsdb_storage_blocks_bytes')]: '95x80',
      [itself('prometheus', 'prometheus_tsdb_retention_limit_bytes')]: '100x80',
    },
    silentAt: '59m',
    firesAt: '61m',
    says: '95%',
  },

  {
    group: 'alertmanager',
    alert: 'AlertmanagerConfigReloadFailed',
    series: { [itself('alertmanager', 'alertmanager_config_last_reload_successful')]: '0x60' },
    silentAt: '9m',
    firesAt: '11m',
  },
  {
    group: 'alertmanager',
    alert: 'AlertmanagerNotificationsFailing',
    series: {
      [itself('alertmanager', 'alertmanager_notifications_failed_total', ',integration="webhook"')]: '0+1x40',
      [itself('alertmanager', 'alertmanager_notifications_total', ',integration="webhook"')]: '0+2x40',
    },
    silentAt: '5m',
    firesAt: '6m',
    labels: [{ integration: 'webhook' }],
    says: '50%',
  },

  {
    group: 'business',
    alert: 'LoanMetricsStale',
    // One container is well meanwhile: which of them a dashboard shows nobody says.
    series: {
      [`loans_metrics_refreshed_timestamp_seconds{${API}}`]: '0+1800x2 3600x4',
      [`loans_metrics_refreshed_timestamp_seconds{${target('api', 'b')}}`]: '0+1800x6',
    },
    silentAt: '60m',
    firesAt: '120m',
    says: '1h 0m 0s',
  },
  {
    group: 'business',
    alert: 'NoLoansCreated',
    // A week of one loan each half hour, then none.
    series: { [`loans_created_total{${API},currency="KES"}`]: '0+1x336 336x48' },
    silentAt: '168h',
    firesAt: '176h',
    says: '0',
  },
];

/** What can have no quiet moment. */
export const NEVER_SILENT: readonly string[] = ['Watchdog'];
