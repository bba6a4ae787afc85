import { parse } from 'yaml';
import { prometheusArguments, renderPrometheus } from './prometheus';

test('finds every replica of the API, and marks every series with the environment', () => {
  const { scrape_configs: jobs } = parse(renderPrometheus({ environment: 'production' })) as {
    scrape_configs: { job_name: string; relabel_configs: unknown[] }[];
  };
  expect(jobs.map(({ job_name }) => job_name)).toEqual(['api', 'prometheus']);
  expect(jobs[0]).toMatchObject({
    metrics_path: '/metrics',
    dns_sd_configs: [{ names: ['api'], type: 'A', port: 8000 }],
  });
  for (const job of jobs) {
    expect(job.relabel_configs).toContainEqual({ source_labels: [], target_label: 'env', replacement: 'production' });
  }
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
