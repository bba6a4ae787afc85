import fc from 'fast-check';
import { containersWanted, CPU_AIM } from '../../app/sre/capacity';
import { isUserRoute, USER_ROUTES as OF_THE_API } from '../../app/sre/exposition';
import { recommend, type SignalQuery, signalQueries } from '../../infra/ops/autoscale';
import { HOST_METRICS, JOBS, PROBE_METRICS } from '../../infra/ops/exporters';
import { renderPrometheus, USER_ROUTES } from '../../infra/ops/prometheus';
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
