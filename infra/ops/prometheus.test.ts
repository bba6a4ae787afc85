import { parse } from 'yaml';
import { EXPORTERS, JOBS } from './exporters';
import { prometheusArguments, renderPrometheus } from './prometheus';

const ALL = { database: true, probes: true, host: true, containers: true };

test('finds every replica of the API, and marks every series with the environment', () => {
  const { scrape_configs: jobs } = parse(renderPrometheus({ environment: 'production', exporters: ALL })) as {
    scrape_configs: { job_name: string; relabel_configs: unknown[] }[];
  };
  expect(jobs.map(({ job_name }) => job_name).sort()).toEqual(Object.values(JOBS).sort());
  expect(jobs[0]).toMatchObject({
    metrics_path: '/metrics',
    dns_sd_configs: [{ names: ['api'], type: 'A', port: 8000 }],
  });
  for (const job of jobs) {
    expect(job.relabel_configs).toContainEqual({ source_labels: [], target_label: 'env', replacement: 'production' });
  }
});

test("calls the API's containers by their names, rule groups by theirs, and knows integrations that can be set up", () => {
  const jobs = jobsOf({});
  expect(jobs.get(JOBS.api)?.metric_relabel_configs).toEqual([
    { source_labels: ['container'], regex: '(.+)', target_label: 'instance' },
    { regex: 'container', action: 'labeldrop' },
  ]);
  expect(jobs.get(JOBS.prometheus)?.metric_relabel_configs).toEqual([
    { source_labels: ['rule_group'], regex: '.*;(.+)', target_label: 'rule_group' },
  ]);
  expect(jobs.get(JOBS.alertmanager)?.metric_relabel_configs).toEqual([
    { source_labels: ['integration'], regex: '|webhook|email|pagerduty', action: 'keep' },
  ]);
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

interface Job {
  readonly job_name: string;
  readonly metrics_path?: string;
  readonly static_configs?: readonly { readonly targets: string[]; readonly labels?: object }[];
  readonly relabel_configs: readonly object[];
  readonly metric_relabel_configs?: readonly object[];
}

function jobsOf(options: Partial<Parameters<typeof renderPrometheus>[0]>): Map<string, Job> {
  const { scrape_configs: jobs } = parse(renderPrometheus({ environment: 'staging', ...options })) as {
    scrape_configs: Job[];
  };
  return new Map(jobs.map((job) => [job.job_name, job]));
}

test.each(Object.entries(EXPORTERS))('asks the exporter of %s where there is one', (exporter, { job, name, port }) => {
  expect(jobsOf({}).has(job)).toBe(false);
  expect(jobsOf({ exporters: { ...ALL, [exporter]: false } }).has(job)).toBe(false);
  expect(JSON.stringify(jobsOf({ exporters: { [exporter]: true } }).get(job))).toContain(`${name}:${port}`);
});

test('asks the gateway itself', () => {
  const jobs = jobsOf({});
  for (const [job, path] of [
    [JOBS.nginx, '/metrics/connections'],
    [JOBS.accessLog, '/metrics/responses'],
  ] as const) {
    expect(jobs.get(job)).toMatchObject({ metrics_path: path, static_configs: [{ targets: ['gateway:9113'] }] });
  }
});

test('probes by the name on the network, and calls it by the address that users know', () => {
  const job = jobsOf({ exporters: ALL, url: 'https://loans.example' }).get(JOBS.probe)!;
  expect(job.static_configs).toEqual([
    { targets: ['https://gateway:8443/health'], labels: { probe: 'api' } },
    { targets: ['https://gateway:8443/health-db'], labels: { probe: 'database' } },
    { targets: ['https://gateway:8443/grafana/api/health'], labels: { probe: 'grafana' } },
  ]);
  expect(job.relabel_configs).toContainEqual({
    source_labels: ['__address__'],
    regex: 'https://gateway:8443(.*)',
    target_label: 'instance',
    replacement: 'https://loans.example$1',
  });
  expect(job.relabel_configs.at(-1)).toEqual({ target_label: '__address__', replacement: 'blackbox-exporter:9115' });
});

test('has rules, and an Alertmanager that it asks too', () => {
  expect(parse(renderPrometheus({ environment: 'staging' }))).toMatchObject({
    rule_files: ['rules.yml'],
    alerting: {
      alertmanagers: [{ path_prefix: '/alertmanager', static_configs: [{ targets: ['alertmanager:9093'] }] }],
    },
  });
  expect(jobsOf({}).get(JOBS.alertmanager)).toMatchObject({ metrics_path: '/alertmanager/metrics' });
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
