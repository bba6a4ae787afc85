import { incidentsOf, inWords } from './history';

const MINUTE = 60;
const at = (minutes: number) => 1_800_000_000 + minutes * MINUTE;
const firing = (labels: Record<string, string>, from: number, to: number) => ({
  labels: { severity: 'critical', ...labels },
  points: Array.from({ length: (to - from) / 2 + 1 }, (_, index) => [at(from + 2 * index), 1] as const),
});
const minutesOf = (incidents: ReturnType<typeof incidentsOf>) =>
  incidents.map(({ what, from, to }) => [
    ...[what, (Date.parse(from) / 1_000 - at(0)) / MINUTE, to && (Date.parse(to) / 1_000 - at(0)) / MINUTE],
  ]);

it('makes one incident of alerts that say the same to users, and of one that comes again soon', () => {
  const alerts = [
    firing({ alertname: 'ApiDown' }, 10, 20),
    firing({ alertname: 'ProbeFailing', probe: 'api' }, 12, 30),
    firing({ alertname: 'ProbeFailing', probe: 'grafana', severity: 'warning' }, 50, 60),
    firing({ alertname: 'ApiDown' }, 36, 40),
    firing({ alertname: 'ApiDown' }, 80, 84),
    firing({ alertname: 'SLOErrorBudgetBurn', slo: 'latency' }, 90, 100),
  ];
  expect(minutesOf(incidentsOf(alerts, at(100)))).toEqual([
    ['The service was slow', 90, null],
    ['The service could not be reached', 80, 86],
    ['The service could not be reached', 10, 42],
  ]);
});

it('tells a check by what it asks for: nobody but us misses the pages of who runs the service', () => {
  const failing = (probe: string, severity = 'critical') => inWords({ alertname: 'ProbeFailing', severity, probe });
  expect(failing('api')).toBe('The service could not be reached');
  expect(failing('database')).toBe('Loans could not be read or changed');
  expect([failing('grafana', 'warning'), failing('grafana'), failing('')]).toEqual([undefined, undefined, undefined]);
});

it('says nothing to users of what they do not notice, and nothing of names, hosts or rules', () => {
  expect(inWords({ alertname: 'BackupTooOld', severity: 'critical' })).toBeUndefined();
  expect(inWords({ alertname: 'PrometheusRuleFailures', severity: 'critical' })).toBeUndefined();
  expect(inWords({ alertname: 'ContainerRestartLoop', severity: 'critical' })).toBeUndefined();
  expect(inWords({ alertname: 'SLOMetricAbsent', severity: 'warning', slo: 'success' })).toBeUndefined();
  expect(inWords({ alertname: 'SomethingNew', severity: 'warning' })).toBeUndefined();
  expect(inWords({ alertname: 'SomethingNew', severity: 'critical' })).toBe(
    'A fault in the service was being worked on',
  );
  expect(inWords({ alertname: 'PostgresDown', severity: 'critical' })).toBe('Loans could not be read or changed');
  expect(inWords({ alertname: 'ApiHealthFailing', severity: 'warning' })).toBe(
    'The service could not be reached at times',
  );
  expect(inWords({ alertname: 'ApiRequestsShed', severity: 'warning' })).toBe('Some requests failed');
  expect(incidentsOf([], at(0))).toEqual([]);
});
