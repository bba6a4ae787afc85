import { parse, stringify } from 'yaml';
import { ALERTMANAGER_PATH, ALERTMANAGER_PORT } from './alertmanager';
import { JOBS } from './exporters';

export const SCRAPE_INTERVAL_SECONDS = 15;

/** Names on the network that answer with the address of every container of the track; they become the label `track`. */
export const TRACK_NAMES = { stable: 'api', canary: 'api-canary' } as const;
const ALERTMANAGER = `alertmanager:${ALERTMANAGER_PORT}`;
export type Track = keyof typeof TRACK_NAMES;

/** Beside the configuration: what `renderRules` returned. */
export const RULES_FILE = 'rules.yml';

/** What users asked for: probes and scrapes would hide it. */
export const USER_ROUTES = 'route!~"/health.*|/metrics"';

/**
 * prometheus.yml for Prometheus 3.
 * @param environment value of the label `env` on every series; a target label, not an external one, so that queries
 * and dashboards can use it.
 * @param canary whether there is a canary to be found. The engine hands a name that it does not know on to the host's
 * resolver, so nobody asks for it in vain.
 */
export function renderPrometheus({
  environment,
  canary = false,
}: {
  readonly environment: string;
  readonly canary?: boolean;
}): string {
  const env = { source_labels: [], target_label: 'env', replacement: environment };
  const tracks = Object.entries(TRACK_NAMES).filter(([track]) => track === 'stable' || canary);
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
        {
          job_name: 'api',
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
        },
        {
          job_name: 'prometheus',
          metrics_path: '/prometheus/metrics',
          static_configs: [{ targets: ['localhost:9090'] }],
          relabel_configs: [env],
        },
        {
          job_name: JOBS.alertmanager,
          metrics_path: `${ALERTMANAGER_PATH}/metrics`,
          static_configs: [{ targets: [ALERTMANAGER] }],
          relabel_configs: [env],
        },
      ],
    },
    { lineWidth: 0 },
  );
}

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
    '--log.format=json',
  ];
}
