import { parse, stringify } from 'yaml';
import { ALERTMANAGER_PATH, ALERTMANAGER_PORT, INTEGRATIONS } from './alertmanager';
import { EXPORTERS, GATEWAY_METRICS_PORT, JOBS, POSTGRES_METRICS } from './exporters';
import { METRICS_PATHS } from './nginx';
import { ENTRANCE, PROBE_MODULE, PROBES } from './probes';

export const SCRAPE_INTERVAL_SECONDS = 15;

/** Names on the network that answer with the address of every container of the track; they become the label `track`. */
export const TRACK_NAMES = { stable: 'api', canary: 'api-canary' } as const;
const ALERTMANAGER = `alertmanager:${ALERTMANAGER_PORT}`;
export type Track = keyof typeof TRACK_NAMES;

/** Beside the configuration: what `renderRules` returned. */
export const RULES_FILE = 'rules.yml';

/** On the network `front`, for who reads its figures. */
export const PROMETHEUS_ADDRESS = 'http://prometheus:9090/prometheus';

/** What users asked for: probes and scrapes would hide it, and so would pages that watch. */
export const USER_ROUTES = 'route!~"/health.*|/metrics|/sre/.*"';

/** What prometheus.yml depends on. */
export interface PrometheusOptions {
  /** Value of the label `env` on every series; a target label, not an external one, so that queries can use it. */
  readonly environment: string;
  /** What users open: the label `instance` of the probes. */
  readonly url?: string;
  /** Which exporters there are; none if not given. */
  readonly exporters?: Readonly<Partial<Record<keyof typeof EXPORTERS, boolean>>>;
  /**
   * Whether there is a canary to be found. The engine hands a name that it does not know on to the host's resolver, so
   * nobody asks for it in vain.
   */
  readonly canary?: boolean;
}

/** prometheus.yml for Prometheus 3. */
export function renderPrometheus(options: PrometheusOptions): string {
  const { environment, exporters = {} } = options;
  const env = { source_labels: [], target_label: 'env', replacement: environment };
  const job = (name: string, target: string, more: object = {}) => ({
    job_name: name,
    static_configs: [{ targets: [target] }],
    relabel_configs: [env],
    ...more,
  });
  const exporter = (which: keyof typeof EXPORTERS, more: object = {}) =>
    exporters[which] ? [job(EXPORTERS[which].job, addressOf(which), { metric_relabel_configs: [OWN], ...more })] : [];
  const gateway = `gateway:${GATEWAY_METRICS_PORT}`;
  return stringify(
    {
      global: {
        scrape_interval: `${SCRAPE_INTERVAL_SECONDS}s`,
        scrape_timeout: '10s',
        evaluation_interval: `${SCRAPE_INTERVAL_SECONDS}s`,
        // A service that loses control of its labels loses its own scrapes, not everybody's.
        sample_limit: 10_000,
        body_size_limit: '10MB',
      },
      rule_files: [RULES_FILE],
      alerting: {
        alertmanagers: [{ path_prefix: ALERTMANAGER_PATH, static_configs: [{ targets: [ALERTMANAGER] }] }],
      },
      scrape_configs: [
        apiJob(options, env),
        job(JOBS.prometheus, 'localhost:9090', {
          metrics_path: '/prometheus/metrics',
          // By itself it is the path of the file and the name of the group.
          metric_relabel_configs: [{ source_labels: ['rule_group'], regex: '.*;(.+)', target_label: 'rule_group' }],
        }),
        job(JOBS.alertmanager, ALERTMANAGER, {
          metrics_path: `${ALERTMANAGER_PATH}/metrics`,
          // It counts for every integration that it knows, whether or not anybody set it up.
          metric_relabel_configs: [
            { source_labels: ['integration'], regex: ['', ...INTEGRATIONS].join('|'), action: 'keep' },
          ],
        }),
        job(JOBS.nginx, gateway, { metrics_path: METRICS_PATHS.connections }),
        job(JOBS.accessLog, gateway, { metrics_path: METRICS_PATHS.responses }),
        ...exporter('database', { metric_relabel_configs: [OWN, ...FEW_SETTINGS] }),
        ...exporter('host', { metric_relabel_configs: [OWN, ...NAMED_FILE_SYSTEMS] }),
        ...exporter('containers'),
        ...(exporters.probes ? [probeJob(options, env)] : []),
      ],
    },
    // No references from one job to another.
    { lineWidth: 0, aliasDuplicateObjects: false },
  );
}

const addressOf = (which: keyof typeof EXPORTERS) => `${EXPORTERS[which].name}:${EXPORTERS[which].port}`;

function apiJob({ canary = false }: PrometheusOptions, env: object): object {
  const tracks = Object.entries(TRACK_NAMES).filter(([track]) => track === 'stable' || canary);
  return {
    job_name: JOBS.api,
    metrics_path: '/metrics',
    // Docker answers the shared name with the address of every replica.
    dns_sd_configs: [{ names: tracks.map(([, name]) => name), type: 'A', port: 8000, refresh_interval: '5s' }],
    relabel_configs: [
      env,
      ...tracks.map(([track, regex]) => ({
        source_labels: ['__meta_dns_name'],
        regex,
        target_label: 'track',
        replacement: track,
      })),
    ],
    metric_relabel_configs: NAMED_CONTAINERS,
  };
}

/** The exporter is asked to ask: what is probed becomes its parameter, and `instance` the address that users know. */
function probeJob({ url = ENTRANCE }: PrometheusOptions, env: object): object {
  return {
    job_name: JOBS.probe,
    metrics_path: '/probe',
    params: { module: [PROBE_MODULE] },
    static_configs: Object.entries(PROBES).map(([probe, path]) => ({ targets: [ENTRANCE + path], labels: { probe } })),
    relabel_configs: [
      env,
      { source_labels: ['__address__'], target_label: '__param_target' },
      { source_labels: ['__address__'], regex: `${ENTRANCE}(.*)`, target_label: 'instance', replacement: `${url}$1` },
      { target_label: '__address__', replacement: addressOf('probes') },
    ],
  };
}

/**
 * The engine gives an address to the next container when the one before is gone, but never a name. A release that does not
 * write the name of its container yet keeps the address. `up` and `scrape_…` are Prometheus' own: by address.
 */
const NAMED_CONTAINERS = [
  { source_labels: ['container'], regex: '(.+)', target_label: 'instance' },
  { regex: 'container', action: 'labeldrop' },
];

/** What an exporter tells of its own process is asked for by nobody. */
const OWN = { source_labels: ['__name__'], regex: '(go|process|promhttp)_.*', action: 'drop' };

/** Each setting of the server is a metric, some three hundred. */
const FEW_SETTINGS = [
  {
    source_labels: ['__name__'],
    regex: `(${POSTGRES_METRICS.maxConnections}|${POSTGRES_METRICS.reservedConnections})`,
    target_label: '__tmp_wanted',
    replacement: 'yes',
  },
  { source_labels: ['__tmp_wanted', '__name__'], regex: ';pg_settings_.*', action: 'drop' },
];

const NAMED_FILE_SYSTEMS = [
  { source_labels: ['mountpoint'], regex: '/etc/hosts', target_label: 'mountpoint', replacement: 'engine' },
  { source_labels: ['mountpoint'], regex: '/database', target_label: 'mountpoint', replacement: 'database' },
];

/** Values of the label `job` in what `renderPrometheus` returned. */
export function jobsOf(configuration: string): ReadonlySet<string> {
  const { scrape_configs: jobs } = parse(configuration) as { scrape_configs: readonly { job_name: string }[] };
  return new Set(jobs.map(({ job_name }) => job_name));
}

export interface PrometheusArguments {
  /** Path inside the container. */
  readonly configFile: string;
  /** The public URL of the gateway, such as https://localhost:8443; Prometheus is below it at /prometheus/. */
  readonly url: string;
  /** 35 or more for objectives over 30 days. */
  readonly retentionDays: number;
  /** What its volume may hold; the older blocks go first. */
  readonly retentionMib: number;
}

/** Command line of `prometheus`. Its lifecycle and admin interfaces stay off: a signal reloads it. */
export function prometheusArguments({ configFile, url, retentionDays, retentionMib }: PrometheusArguments): string[] {
  return [
    `--config.file=${configFile}`,
    '--storage.tsdb.path=/prometheus',
    `--storage.tsdb.retention.time=${retentionDays}d`,
    `--storage.tsdb.retention.size=${retentionMib}MB`,
    '--web.listen-address=0.0.0.0:9090',
    `--web.external-url=${url.replace(/\/+$/, '')}/prometheus/`,
    '--web.route-prefix=/prometheus',
    // The traces of single requests, kept in memory: some 10 MB.
    '--enable-feature=exemplar-storage',
    '--log.format=json',
  ];
}
