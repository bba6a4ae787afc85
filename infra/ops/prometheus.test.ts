import { parse } from 'yaml';
import { prometheusArguments, renderPrometheus } from './prometheus';

test('finds every replica of the API, and marks every series with the environment', () => {
  const { scrape_configs: jobs } = parse(renderPrometheus({ environment: 'production' })) as {
    scrape_configs: { job_name: string; relabel_configs: unknown[] }[];
  };
  expect(jobs.map(({ job_name }) => job_name)).toEqual(['api', 'prometheus', 'alertmanager']);
  expect(jobs[0]).toMatchObject({
    metrics_path: '/metrics',
    dns_sd_configs: [{ names: ['api'], type: 'A', port: 8000 }],
  });
  for (const job of jobs) {
    expect(job.relabel_configs).toContainEqual({ source_labels: [], target_label: 'env', replacement: 'production' });
  }
});

test.each([
  [false, ['api'], { api: 'stable' }],
  [true, ['api', 'api-canary'], { api: 'stable', 'api-canary': 'canary' }],
])('with a canary: %s, asks for the names %j and tells their tracks apart', (canary, names, tracks) => {
  const { scrape_configs: jobs } = parse(renderPrometheus({ environment: 'staging', canary })) as {
    scrape_configs: {
      dns_sd_configs: { names: string[] }[];
      relabel_configs: { source_labels: string[]; regex?: string; target_label: string; replacement: string }[];
    }[];
  };
  expect(jobs[0]?.dns_sd_configs[0]?.names).toEqual(names);
  const rules = jobs[0]?.relabel_configs.filter(({ target_label }) => target_label === 'track') ?? [];
  expect(rules.every(({ source_labels }) => source_labels.join() === '__meta_dns_name')).toBe(true);
  expect(Object.fromEntries(rules.map(({ regex, replacement }) => [regex, replacement]))).toEqual(tracks);
});

test('keeps what objectives over 30 days need, within its volume, and cannot be stopped over HTTP', () => {
  const options = {
    configFile: '/etc/prometheus.yml',
    url: 'https://localhost:8443/',
    retentionDays: 35,
    retentionMib: 512,
  };
  const flags = prometheusArguments(options);
  expect(flags).toEqual(
    expect.arrayContaining([
      '--config.file=/etc/prometheus.yml',
      '--storage.tsdb.retention.time=35d',
      '--storage.tsdb.retention.size=512MB',
      '--web.external-url=https://localhost:8443/prometheus/',
      '--web.route-prefix=/prometheus',
    ]),
  );
  expect(flags.filter((flag) => /lifecycle|admin/.test(flag))).toEqual([]);
});
