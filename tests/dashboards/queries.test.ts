import { readExposition } from '../../app/sre/exposition';
import { createMetrics } from '../../app/telemetry/metrics';
import { expectOf, type Expected, noPromtool, promtoolLabel } from '../ops/evaluate';
import { describeUnless } from '../skip';
import { loadDashboards, queriesOf, substitute } from './model';

/** What some queries say of series whose truth is known. */

const queries = queriesOf(loadDashboards());

function queryOf(dashboard: string, panel: string, refId = 'A'): string {
  const query = queries.find((it) => it.dashboard === dashboard && it.panel === panel && it.refId === refId);
  if (query === undefined) throw new Error(`no query ${refId} of ${panel}`);
  return substitute(query.expr, { rateInterval: '2m', range: '2m' });
}

describeUnless(noPromtool, `queries, evaluated by ${promtoolLabel}`, () => {
  /** What the service itself writes of this, before and after: series -> values. */
  async function written(
    before: (metrics: ReturnType<typeof createMetrics>) => void,
    then: (metrics: ReturnType<typeof createMetrics>) => void,
  ) {
    const metrics = createMetrics({ version: '1', commit: 'a', environment: 'test' });
    const read = async () =>
      new Map(
        readExposition(await metrics.registry.metrics())
          .filter(({ name }) => name.startsWith('http_requests_refused') || name.endsWith('_seconds_count'))
          .map(({ name, labels, value }) => {
            const pairs = Object.entries({ ...labels, job: 'api', env: 'test', instance: 'a' });
            return [`${name}{${pairs.map(([label, text]) => `${label}="${text}"`).join(',')}}`, value] as const;
          }),
      );
    before(metrics);
    const first = await read();
    then(metrics);
    const values = [...(await read())].map(
      ([series, value]) => [series, `${first.get(series) ?? '_'}x1 ${value}x9`] as const,
    );
    return Object.fromEntries(values);
  }

  it('a refused request counts for its own route, and for no other', async () => {
    const answer = (route: string, status: number, method = 'GET') => [method, route, status, 0.01] as const;
    const routes = [answer('/api/loans', 200), answer('/api/loans', 500), answer('/api/loans/:id', 200)] as const;
    const refusals = [answer('/api/loans', 422, 'POST'), answer('/sre/alerts', 401)] as const;
    const series = await written(
      (metrics) => [...routes, ...refusals].forEach((each) => metrics.observeRequest(...each)),
      (metrics) => {
        for (let turn = 0; turn < 3; turn++) routes.forEach((each) => metrics.observeRequest(...each));
        refusals.forEach((each) => metrics.observeRequest(...each));
      },
    );
    expect(Object.keys(series).filter((name) => name.includes('422'))).toHaveLength(2);
    const of = (panel: string, is: Expected['is'], refId?: string) => ({
      ...{ expr: `round(${queryOf('loans-requests', panel, refId)} * 1000) / 1000`, at: 2, is },
    });
    const [loans, one] = ['{route="/api/loans"}', '{route="/api/loans/:id"}'];
    expectOf(series, [
      // Of 7 requests one was refused and 3 failed.
      of('Clients at fault by route', { [loans]: 0.143, [one]: 0 }),
      of('Error ratio by route', { [loans]: 0.429, [one]: 0 }),
      // A rise within 105 of 120 s is told for all of them.
      {
        expr: `round(sum by (route) (${queryOf('loans-requests', 'Busiest routes')}) * 105 / 120)`,
        ...{ at: 2, is: { [loans]: 7, [one]: 3 } },
      },
      { expr: `count(${queryOf('loans-requests', 'Request rate by route')})`, at: 2, is: { '{}': 2 } },
      { expr: `count(${queryOf('loans-requests', 'Request rate by route', 'B')} > 0)`, at: 2, is: { '{}': 1 } },
    ]);
  });

  it('a deploy is one mark as soon as it is scraped, at every zoom; a gap, a container more or less are none', () => {
    const marks = (interval: string) => substitute(deploys, { interval, rateInterval: '1m', range: '1h' });
    const deploys = queries.find(({ panel }) => panel === 'annotation Deploys')!.expr;
    /** One container: of a release, from a minute until another, scraped every 15 s, with gaps. */
    const container = (name: string, release: string, from: number, until: number, gap: [number, number] = [0, 0]) => {
      const labels = `job="api",env="test",instance="bl-api-${name}"`;
      const absent = (at: number) => at < 4 * from || at >= 4 * until || (at >= 4 * gap[0] && at < 4 * gap[1]);
      const values = (value: number) =>
        Array.from({ length: 4 * 60 }, (_, at) =>
          !absent(at) ? String(value) : at > 0 && !absent(at - 1) ? 'stale' : '_',
        ).join(' ');
      // The same version of the same commit: only settings differ.
      const info = `${labels},track="stable",version="1",commit="c",release="${release}"`;
      return { [`app_info{${info}}`]: values(1), [`process_start_time_seconds{${labels}}`]: values(60 * from) };
    };
    const series = {
      // The oldest of all is not heard for 90 s while there is one that came by scaling up.
      ...container('1-1111111', 'one', 0, 31, [12, 13.5]),
      ...container('2-2222222', 'one', 8, 31),
      // A deploy, which both releases answer during, and the way back after 5 minutes.
      ...container('1-3333333', 'two', 30, 36),
      ...container('1-4444444', 'one', 35, 60),
      // One that failed: its containers never got traffic.
      ...container('1-5555555', 'three', 40, 42),
    };
    const [one, two, three] = ['one', 'two', 'three'].map(
      (release) => `{env="test",track="stable",version="1",commit="c",release="${release}"}`,
    ) as [string, string, string];
    const minute = 60_000;
    const expected: readonly [at: number, is: Expected['is'], interval?: string][] = [
      [1, { [one]: 0 }],
      [9, { [one]: 0 }],
      [13, { [one]: 0 }],
      [17, { [one]: 0 }],
      [30, { [one]: 0, [two]: 30 * minute }],
      [36, { [one]: 35 * minute, [two]: 30 * minute }],
      [40, { [one]: 35 * minute, [three]: 40 * minute }],
      [59, { [one]: 35 * minute }],
      // As a graph of many hours asks, at steps of a quarter of an hour.
      [47, { [one]: 35 * minute, [two]: 30 * minute, [three]: 40 * minute }, '15m'],
      [56, { [one]: 35 * minute, [three]: 40 * minute }, '15m'],
    ];
    expectOf(
      series,
      expected.map(([at, is, interval = '2m']) => ({ expr: marks(interval), at, is })),
    );
  });
});
