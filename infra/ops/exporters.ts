/**
 * Seam between what the stack's exporters measure and what is built from it: jobs of Prometheus, and the names that
 * dashboards, rules and commands ask for. What the API exports itself is in app/telemetry/names.ts. A test asks the
 * real exporters whether every name is there.
 */

/** Values of the label `job`. */
export const JOBS = {
  api: 'api',
  prometheus: 'prometheus',
  alertmanager: 'alertmanager',
  postgres: 'postgres',
  /** nginx's own counters (stub_status). */
  nginx: 'nginx',
  /** What nginx answered. */
  accessLog: 'access-log',
  /** The machine under the engine. */
  host: 'host',
  /** CPU, memory, network and restarts of each container against its limits. */
  containers: 'containers',
  /** Black-box checks through the public entrance; the label `probe` names the check. */
  probe: 'probe',
} as const;

/**
 * Containers of the exporters by the setting that switches them: `name` is component, alias on the network and end of the
 * container's name. The gateway needs none.
 */
export const EXPORTERS = {
  database: { job: JOBS.postgres, name: 'postgres-exporter', port: 9187 },
  probes: { job: JOBS.probe, name: 'blackbox-exporter', port: 9115 },
  host: { job: JOBS.host, name: 'node-exporter', port: 9100 },
  containers: { job: JOBS.containers, name: 'container-exporter', port: 9104 },
} as const;

/** Port of the gateway for Prometheus alone. */
export const GATEWAY_METRICS_PORT = 9113;

/** Of prom-client, by itself: their names are not ours to choose. */
export const RUNTIME_METRICS = {
  eventLoopLagP99: 'nodejs_eventloop_lag_p99_seconds',
  heapUsed: 'nodejs_heap_size_used_bytes',
  heapTotal: 'nodejs_heap_size_total_bytes',
  garbageCollectionSum: 'nodejs_gc_duration_seconds_sum',
  cpuSeconds: 'process_cpu_seconds_total',
  openFiles: 'process_open_fds',
  maxFiles: 'process_max_fds',
  /** Of the oldest process of a container. */
  startTime: 'process_start_time_seconds',
} as const;

/** postgres_exporter. */
export const POSTGRES_METRICS = {
  up: 'pg_up',
  commits: 'pg_stat_database_xact_commit',
  rollbacks: 'pg_stat_database_xact_rollback',
  blocksHit: 'pg_stat_database_blks_hit',
  blocksRead: 'pg_stat_database_blks_read',
  tuplesFetched: 'pg_stat_database_tup_fetched',
  tuplesInserted: 'pg_stat_database_tup_inserted',
  tuplesUpdated: 'pg_stat_database_tup_updated',
  tuplesDeleted: 'pg_stat_database_tup_deleted',
  deadlocks: 'pg_stat_database_deadlocks',
  databaseSize: 'pg_database_size_bytes',
  activity: 'pg_stat_activity_count',
  longestTransaction: 'pg_stat_activity_max_tx_duration',
  locks: 'pg_locks_count',
  maxConnections: 'pg_settings_max_connections',
  reservedConnections: 'pg_settings_superuser_reserved_connections',
  statementSeconds: 'pg_stat_statements_seconds_total',
  statementCalls: 'pg_stat_statements_calls_total',
  statementRows: 'pg_stat_statements_rows_total',
  /** Always 1; its label `query` is the text of the statement `queryid`, without values. */
  statementText: 'pg_stat_statements_query_id',
  temporaryBytes: 'pg_stat_database_temp_bytes',
  walBytes: 'pg_wal_size_bytes',
  checkpointsTimed: 'pg_stat_checkpointer_num_timed_total',
  checkpointsRequested: 'pg_stat_checkpointer_num_requested_total',
  /** Milliseconds. */
  checkpointWriteMs: 'pg_stat_checkpointer_write_time_total',
  checkpointSyncMs: 'pg_stat_checkpointer_sync_time_total',
  lastScrapeError: 'pg_exporter_last_scrape_error',
} as const;

/** The gateway tells them itself (infra/exporters/gateway.js), so it is up where Prometheus could ask it. */
export const NGINX_METRICS = {
  up: 'up',
  requests: 'nginx_http_requests_total',
  accepted: 'nginx_connections_accepted',
  handled: 'nginx_connections_handled',
  active: 'nginx_connections_active',
  reading: 'nginx_connections_reading',
  writing: 'nginx_connections_writing',
  waiting: 'nginx_connections_waiting',
} as const;

/**
 * What users were answered, as the gateway saw it; without /grafana/ and the like. `method` is a known one or `other`,
 * `status` of the counter the code, of the histogram its class (`5xx`).
 */
export const ACCESS_LOG_METRICS = {
  responses: 'nginx_http_response_count_total',
  /** A histogram: `_bucket`, `_sum`, `_count`; among its bounds 0.2 and 0.3. */
  seconds: 'nginx_http_response_time_seconds_hist',
} as const;

/** node_exporter; `mountpoint` is `engine` (where the engine keeps its files) or `database`. */
export const HOST_METRICS = {
  cpuSeconds: 'node_cpu_seconds_total',
  load1: 'node_load1',
  memoryAvailable: 'node_memory_MemAvailable_bytes',
  memoryTotal: 'node_memory_MemTotal_bytes',
  filesystemAvailable: 'node_filesystem_avail_bytes',
  filesystemSize: 'node_filesystem_size_bytes',
  diskBusySeconds: 'node_disk_io_time_seconds_total',
  networkReceived: 'node_network_receive_bytes_total',
  networkSent: 'node_network_transmit_bytes_total',
  timeSynced: 'node_timex_sync_status',
} as const;

/** What the engine measures (infra/exporters/containers.mjs); labels `name` of the container and `component`. */
export const CONTAINER_METRICS = {
  cpuSeconds: 'container_cpu_usage_seconds_total',
  cpuQuota: 'container_spec_cpu_quota',
  cpuPeriod: 'container_spec_cpu_period',
  throttledPeriods: 'container_cpu_cfs_throttled_periods_total',
  periods: 'container_cpu_cfs_periods_total',
  workingSet: 'container_memory_working_set_bytes',
  memoryLimit: 'container_spec_memory_limit_bytes',
  oomEvents: 'container_oom_events_total',
  networkReceived: 'container_network_receive_bytes_total',
  networkSent: 'container_network_transmit_bytes_total',
  diskRead: 'container_fs_reads_bytes_total',
  diskWritten: 'container_fs_writes_bytes_total',
  threads: 'container_threads',
  startTime: 'container_start_time_seconds',
  /** By the engine itself, after it ended or was killed. */
  restarts: 'container_restarts_total',
} as const;

/** blackbox_exporter, for each probe of probes.ts. */
export const PROBE_METRICS = {
  success: 'probe_success',
  duration: 'probe_duration_seconds',
  phases: 'probe_http_duration_seconds',
  certificateExpiry: 'probe_ssl_earliest_cert_expiry',
} as const;

/** Of every scrape, of Prometheus' rules and of Prometheus itself. */
export const PROMETHEUS_METRICS = {
  up: 'up',
  scrapeDuration: 'scrape_duration_seconds',
  scrapeSamples: 'scrape_samples_post_metric_relabeling',
  alerts: 'ALERTS',
  /** Of each alert that is pending or fires: since when its expression is true (Unix time). */
  alertsForState: 'ALERTS_FOR_STATE',
  headSeries: 'prometheus_tsdb_head_series',
  samplesAppended: 'prometheus_tsdb_head_samples_appended_total',
  blockBytes: 'prometheus_tsdb_storage_blocks_bytes',
  retentionBytes: 'prometheus_tsdb_retention_limit_bytes',
  queryDuration: 'prometheus_engine_query_duration_seconds',
  reloadSuccessful: 'prometheus_config_last_reload_successful',
  ruleGroupDuration: 'prometheus_rule_group_last_duration_seconds',
  ruleGroupInterval: 'prometheus_rule_group_interval_seconds',
  ruleFailures: 'prometheus_rule_evaluation_failures_total',
  notificationsSent: 'prometheus_notifications_sent_total',
  notificationsDropped: 'prometheus_notifications_dropped_total',
  residentMemory: 'process_resident_memory_bytes',
} as const;

export const ALERTMANAGER_METRICS = {
  alerts: 'alertmanager_alerts',
  notifications: 'alertmanager_notifications_total',
  notificationsFailed: 'alertmanager_notifications_failed_total',
  silences: 'alertmanager_silences',
  reloadSuccessful: 'alertmanager_config_last_reload_successful',
} as const;
