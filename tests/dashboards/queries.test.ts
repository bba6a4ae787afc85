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

  it('a deploy is one mark, wherever it is looked at; a gap, a container more or less are none', () => {
    const expr = queryOf('loans-requests', 'annotation Deploys', 'Deploys');
    /** One container: of a release, from a minute until another, scraped every 15 s, with gaps. */
    const container = (instance: string, version: string, from: number, until: number, gap?: [number, number]) => {
      const labels = `job="api",env="test",instance="${instance}"`;
      const absent = (at: number) =>
        at < 4 * from || at >= 4 * until || (gap !== undefined && at >= 4 * gap[0] && at < 4 * gap[1]);
      const values = (value: number) =>
        Array.from({ length: 4 * 60 }, (_, at) =>
          !absent(at) ? String(value) : at > 0 && !absent(at - 1) ? 'stale' : '_',
        ).join(' ');
      return [
        [`app_info{${labels},version="${version}",commit="c${version}"}`, values(1)],
        [`process_start_time_seconds{${labels}}`, values(60 * from)],
      ] as const;
    };
    const merged: Record<string, string> = {};
    for (const [name, values] of [
      // The oldest of all is not heard for 4 minutes while there is one that came by scaling up.
      ...container('10.0.0.1', '1', 0, 31, [12, 16]),
      ...container('10.0.0.2', '1', 8, 31),
      // A deploy, which both releases answer during, and the way back after 5 minutes at an address that was used before.
      ...container('10.0.0.3', '2', 30, 36),
      ...container('10.0.0.1', '1', 35, 60),
    ]) {
      const [earlier, later] = [merged[name]?.split(' '), values.split(' ')];
      merged[name] = later.map((value, at) => (value === '_' ? (earlier?.[at] ?? '_') : value)).join(' ');
    }
    const [one, two] = ['{env="test",version="1",commit="c1"}', '{env="test",version="2",commit="c2"}'];
    const minute = 60_000;
    expectOf(
      merged,
      [
        [1, { [one]: 0 }],
        [9, { [one]: 0 }],
        [14, { [one]: 0 }],
        [17, { [one]: 0 }],
        [31, { [one]: 0, [two]: 30 * minute }],
        [34, { [one]: 0, [two]: 30 * minute }],
        [44, { [one]: 35 * minute, [two]: 30 * minute }],
        [59, { [one]: 35 * minute }],
      ].map(([at, is]) => ({ expr, at: at as number, is: is as Expected['is'] })),
    );
  });
});
