import { FAILURES } from '../../app/http/app';
import { readExposition } from '../../app/sre/exposition';
import { expressions } from '../../app/sre/figures';
import { directExpressions } from '../../app/sre/objectives';
import { createMetrics } from '../../app/telemetry/metrics';
import { isAlert } from '../../infra/ops/rules';
import { expectOf, noPromtool, promtoolLabel } from '../ops/evaluate';
import { describeUnless } from '../skip';
import { GROUPS } from './promtool';

/** What a real Prometheus makes of the one failure of a process that has just started, as the service itself writes it. */

const success = GROUPS.find(({ name }) => name === 'slo-success')!.rules;
const ofSuccess = (name: string) => success.find((rule) => !isAlert(rule) && rule.record === name)!.expr;

async function seriesOf(metrics: ReturnType<typeof createMetrics>): Promise<Map<string, number>> {
  return new Map(
    readExposition(await metrics.registry.metrics())
      .filter(({ name }) => name.startsWith('http_request'))
      .map(({ name, labels, value }) => {
        const all = { ...labels, job: 'api', env: 'test', instance: 'bl-api-1-97fff87' };
        return [
          `${name}{${Object.entries(all)
            .map(([label, text]) => `${label}="${text}"`)
            .join(',')}}`,
          value,
        ];
      }),
  );
}

/** A minute before, three minutes after: what is new then has no value before. */
async function around(failures: typeof FAILURES): Promise<Record<string, string>> {
  const metrics = createMetrics({ version: '1', commit: 'a', environment: 'test' }, failures);
  const before = await seriesOf(metrics);
  metrics.observeRequest('POST', '/api/loans', 503, 0.01);
  const after = await seriesOf(metrics);
  return Object.fromEntries([...after].map(([name, value]) => [name, `${before.get(name) ?? '_'}x3 ${value}x12`]));
}

describeUnless(noPromtool, `the first failure of a process, evaluated by ${promtoolLabel}`, () => {
  const rose = (expr: string) => ({ expr: `sum(${expr}) > bool 0`, at: 3, is: { '{}': 1 } });

  it('is in the indicator, in the share that fails, and in what /sre/ shows', async () => {
    const { errors, routeErrors } = expressions('test');
    expectOf(await around(FAILURES), [
      rose(ofSuccess('slo:sli_errors:rate5m')),
      // All that was asked failed.
      {
        expr: `(${ofSuccess('slo:sli_errors:rate5m')}) / (${ofSuccess('slo:sli_requests:rate5m')})`,
        at: 3,
        is: { '{}': 1 },
      },
      { expr: errors, at: 3, is: { '{}': 1 } },
      { expr: `(${routeErrors}) > 0 > bool 0`, at: 3, is: { '{method="POST",route="/api/loans"}': 1 } },
      { expr: directExpressions('test').success('5m'), at: 3, is: { '{}': 1 } },
    ]);
  });

  it('would be in none of them if it were not counted from 0', async () => {
    expectOf(await around([]), [{ expr: `sum(${ofSuccess('slo:sli_errors:rate5m')}) > 0`, at: 3, is: {} }]);
  });
});
