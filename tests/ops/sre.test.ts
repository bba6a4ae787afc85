import fc from 'fast-check';
import { capacityExpressions, containersWanted, CPU_AIM } from '../../app/sre/capacity';
import { readConfig } from '../../app/config';
import { OBJECTIVES, promisedBy } from '../../app/sre/objectives';
import { inWords } from '../../app/sre/history';
import { isUserRoute, USER_ROUTES as OF_THE_API } from '../../app/sre/exposition';
import { ruleGroups } from '../../infra/ops/alerts';
import { recommend, type SignalQuery, signalQueries } from '../../infra/ops/autoscale';
import { HOST_METRICS, JOBS, PROBE_METRICS } from '../../infra/ops/exporters';
import { DEFAULT_OBJECTIVES, promisesOf } from '../../infra/ops/slo';
import { PROBES } from '../../infra/ops/probes';
import { isAlert } from '../../infra/ops/rules';
import { renderPrometheus, USER_ROUTES } from '../../infra/ops/prometheus';
import { describeUnless } from '../skip';
import { expectOf, noPromtool, promtoolLabel } from './evaluate';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The API may not import infra: what both must know alike is held together here. */

const source = (file: string) => readFileSync(join(__dirname, '../../app/sre', file), 'utf8');

it('/sre/capacity wants as many containers as make autoscale does by CPU', () => {
  const cores = fc.double({ min: 0, max: 64, noNaN: true });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), cores, cores, (current, now, more) => {
      const peak = now + more;
      const signals = [{ name: 'cpu', unit: 'share' as const, target: CPU_AIM, now: now / current, peak }];
      const { replicas } = recommend({ current, min: 1, max: 1_000, signals, secondsSinceChange: 1e6 });
      expect(containersWanted(current, now, peak)).toBe(replicas);
    }),
    { numRuns: 2_000 },
  );
});

it('asks the same question, with the same aim where the settings name none', () => {
  const others = { memoryPercent: undefined, latencySeconds: undefined, custom: undefined };
  const spec = { min: 1, max: 9, cpuPercent: 100 * CPU_AIM, ...others };
  const [cpu] = signalQueries(spec, { cpus: 1, memoryMib: 512 }, 1) as [SignalQuery];
  const selector = /\{([^}]*)\}/.exec(cpu.now)![1]!;
  expect(source('capacity.ts')).toContain(`const STABLE = '${selector}'`);
  expect(cpu.now).toContain('rate(process_cpu_seconds_total{');
  expect(source('capacity.ts')).toContain('sum(rate(process_cpu_seconds_total{${STABLE},env="${env}"}[1m]))');
});

it('promises the same as the rules do, by default and by the settings of a stack', () => {
  expect(Object.fromEntries(OBJECTIVES.map(({ name, objective }) => [name, objective]))).toEqual(
    DEFAULT_OBJECTIVES.objectives,
  );
  expect(promisesOf(DEFAULT_OBJECTIVES)).toBe('');
  const objectives = { ...DEFAULT_OBJECTIVES.objectives, availability: 0.9995, success: 0.985 };
  const SLO = promisesOf({ periodDays: 7, objectives });
  const { config } = readConfig({ DATABASE_NAME: 'loans', DATABASE_USER: 'api', SLO });
  expect(Object.fromEntries(promisedBy(config.promises).map(({ name, objective }) => [name, objective]))).toEqual(
    objectives,
  );
});

it('users read of the alerts that they notice, and of no other', () => {
  const environment = { environment: 'staging', url: '', runbooks: '', prefix: 'bl', replicas: 2, busy: true };
  const alerts = ruleGroups({ ...environment, jobs: new Set(Object.values(JOBS)) })
    .flatMap(({ rules }) => rules.filter((rule) => isAlert(rule)))
    .filter(({ severity }) => severity === 'critical' || severity === 'warning');
  const told: Record<string, string[]> = {};
  for (const { alert, severity, labels = {} } of alerts) {
    for (const probe of alert === 'ProbeFailing' ? Object.keys(PROBES) : ['']) {
      const words = inWords({ ...labels, alertname: alert, severity, probe });
      const name = [alert, labels['slo'], probe].filter(Boolean).join(' ');
      if (words !== undefined) told[words] = [...new Set([...(told[words] ?? []), name])].sort();
    }
  }
  expect(told).toEqual({
    'The service could not be reached': ['ApiDown', 'NginxDown', 'ProbeFailing api'],
    'The service could not be reached at times': ['ApiHealthFailing', 'SLOErrorBudgetBurn availability'],
    'Loans could not be read or changed': [
      ...['ApiDatabaseAway', 'PostgresConnectionsExhausted', 'PostgresDown', 'ProbeFailing database'],
    ],
    'Some requests failed': [
      'ApiErrorRateHigh',
      'ApiErrors',
      'ApiRequestsShed',
      'GatewayErrorRateHigh',
      'SLOErrorBudgetBurn success',
    ],
    'The service was slow': ['ApiResponsesVerySlow', 'ApiSlow', 'SLOErrorBudgetBurn latency'],
    'Overviews were out of date': ['LoanMetricsStale', 'SLOErrorBudgetBurn freshness'],
  });
});

it('users are the same to both, and the names are those of the exporters', () => {
  expect(OF_THE_API).toBe(USER_ROUTES);
  const pattern = new RegExp(`^(?:${/"(.*)"/.exec(USER_ROUTES)![1]!})$`);
  for (const route of [
    '/health',
    '/health-db',
    '/health/ready',
    '/metrics',
    '/sre/alerts',
    '/api/loans',
    '/status',
    'unmatched',
  ]) {
    expect([route, isUserRoute({ route })]).toEqual([route, !pattern.test(route)]);
  }
  const capacity = source('capacity.ts');
  for (const name of [HOST_METRICS.filesystemAvailable, HOST_METRICS.filesystemSize]) expect(capacity).toContain(name);
  expect(source('objectives.ts')).toContain(`${PROBE_METRICS.success}{probe="api",env=`);
  expect(source('objectives.ts')).toContain(`up{job="${JOBS.api}",env=`);
  expect(renderPrometheus({ environment: 'staging' })).toContain('target_label: env');
});

describeUnless(noPromtool, `the disks, evaluated by ${promtoolLabel}`, () => {
  const { diskSize, diskUsed, databaseDiskSize, databaseDiskUsed } = capacityExpressions('test');
  const size = (mountpoint: string, device: string) =>
    `${HOST_METRICS.filesystemSize}{instance="h",mountpoint="${mountpoint}",device="${device}"}`;
  const free = (mountpoint: string, device: string) =>
    `${HOST_METRICS.filesystemAvailable}{instance="h",mountpoint="${mountpoint}",device="${device}"}`;

  it('the database has one of its own only where its files are on another file system', () => {
    const engine = { [size('engine', 'vda1')]: '100x9', [free('engine', 'vda1')]: '90x9' };
    expectOf({ ...engine, [size('database', 'vdb1')]: '50x9', [free('database', 'vdb1')]: '10x9' }, [
      { expr: diskSize, at: 1, is: { '{}': 100 } },
      { expr: diskUsed, at: 1, is: { '{}': 10 } },
      { expr: databaseDiskSize, at: 1, is: { '{}': 50 } },
      { expr: databaseDiskUsed, at: 1, is: { '{}': 40 } },
    ]);
    expectOf({ ...engine, [size('database', 'vda1')]: '100x9', [free('database', 'vda1')]: '90x9' }, [
      { expr: diskUsed, at: 1, is: { '{}': 10 } },
      { expr: databaseDiskSize, at: 1, is: {} },
      { expr: databaseDiskUsed, at: 1, is: {} },
    ]);
    expectOf({ [size('/', 'sda')]: '70x9', [free('/', 'sda')]: '30x9' }, [
      { expr: diskUsed, at: 1, is: { '{}': 40 } },
      { expr: databaseDiskSize, at: 1, is: {} },
    ]);
  });
});
