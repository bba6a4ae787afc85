import { stringify } from 'yaml';

export const SCRAPE_INTERVAL_SECONDS = 15;

/** Names on the network that answer with the address of every container of the track; they become the label `track`. */
export const TRACK_NAMES = { stable: 'api', canary: 'api-canary' } as const;
export type Track = keyof typeof TRACK_NAMES;

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
      ],
    },
    { lineWidth: 0 },
  );
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
