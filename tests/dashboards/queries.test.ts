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
    const failures = [{ method: 'POST', route: '/api/loans', status: 503 }];
    const metrics = createMetrics({ version: '1', commit: 'a', environment: 'test', release: 'r' }, failures);
    const read = async () =>
      new Map(
        readExposition(await metrics.registry.metrics())
          .filter(({ name }) => /^http_requests_(refused|failed)/.test(name) || name.endsWith('_seconds_count'))
          .map(({ name, labels, value }) => {
            const pairs = Object.entries({ ...labels, job: 'api', env: 'test', instance: 'a', track: 'stable' });
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

  it('the first failure of a route is seen', async () => {
    const series = await written(
      (metrics) => metrics.observeRequest('POST', '/api/loans', 200, 0.01),
      (metrics) => {
        metrics.observeRequest('POST', '/api/loans', 200, 0.01);
        metrics.observeRequest('POST', '/api/loans', 503, 0.01);
      },
    );
    const half = (expr: string, labels: string) => ({
      expr: `round(${expr} * 10) / 10`,
      ...{ at: 2, is: { [labels]: 0.5 } },
    });
    expectOf(series, [
      half(queryOf('loans-requests', 'Error ratio by route'), '{route="/api/loans"}'),
      half(queryOf('loans-requests', 'Routes', 'B'), '{route="/api/loans"}'),
      half(queryOf('loans-api', 'Error ratio by track'), '{track="stable"}'),
    ]);
  });

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
      of('4xx ratio by route', { [loans]: 0.143, [one]: 0 }),
      of('Error ratio by route', { [loans]: 0.429, [one]: 0 }),
      // Prometheus takes a rise within 105 of 120 s for one within all of them: of 7 it makes 8, of 3 3.43.
      { expr: queryOf('loans-requests', 'Routes'), at: 2, is: { [loans]: 8, [one]: 3 } },
      of('Routes', { [loans]: 0.429, [one]: 0 }, 'B'),
      of('Routes', { [loans]: 0.143, [one]: 0 }, 'C'),
      // Each class once, though the histogram knows refusals too.
      {
        expr: `round(sum(${queryOf('loans-requests', 'Responses by status')}) * 105, 1)`,
        ...{ at: 2, is: { '{}': 10 } },
      },
      { expr: `count((${queryOf('loans-requests', 'Responses by status')}) > 0)`, at: 2, is: { '{}': 3 } },
      { expr: `count(${queryOf('loans-requests', 'Request rate by route')})`, at: 2, is: { '{}': 2 } },
      { expr: `count(${queryOf('loans-requests', 'Request rate by route', 'B')} > 0)`, at: 2, is: { '{}': 1 } },
    ]);
  });

  const own = 'env="test",job="containers",component="api"';
  it('containers without a fault are one 0, and none where the source is lost', () => {
    const expr = queryOf('loans-resources', 'OOM kills');
    const kills = (name: string, job = own) => `container_oom_events_total{${job},name="branchloans-staging-${name}"}`;
    expectOf({ [kills('api-1')]: '0x8', [kills('api-2')]: '0x8' }, [{ expr, at: 2, is: { '{name="all"}': 0 } }]);
    expectOf({ [kills('api-1')]: '0x8', [kills('api-2')]: '0x4 1x4' }, [
      { expr, at: 2, is: { '{name="branchloans-staging-api-2"}': 1 } },
    ]);
    expectOf({ [kills('api-1', 'env="test",job="other"')]: '0x4 1x4' }, [{ expr, at: 2, is: {} }]);
    // A helper of a deploy, with a name of the engine's choice.
    expectOf({ [`container_oom_events_total{${own},name="cool_agnesi"}`]: '0x4 1x4' }, [{ expr, at: 2, is: {} }]);
  });

  it('statements have their text, whichever database and role they are of', () => {
    const postgres = (metric: string, more: string) => `${metric}{job="postgres",env="test",instance="x",${more}}`;
    const series = {
      [postgres('pg_stat_statements_seconds_total', 'queryid="-65",user="loans",datname="loans"')]: '0+1.5x8',
      [postgres('pg_stat_statements_calls_total', 'queryid="-65",user="loans",datname="loans"')]: '0+3x8',
      [postgres('pg_stat_statements_query_id', 'queryid="-65",query="SELECT $1"')]: '1x8',
    };
    const labels = '{queryid="-65",query="SELECT $1",user="loans"}';
    const of = (refId: string, value: number) => ({
      expr: `round(1000 * ${queryOf('loans-postgres', 'Statements', refId)})`,
      ...{ at: 2, is: { [labels]: value } },
    });
    expectOf(series, [of('A', 100), of('B', 200), of('C', 500)]);
  });

  it('sessions that wait are 0 while none does, and none where the source is lost', () => {
    const expr = queryOf('loans-postgres', 'Sessions that wait for a lock');
    const sessions = (more: string) => `pg_stat_activity_count{job="postgres",env="test",datname="loans",${more}}`;
    expectOf({ [sessions('state="idle"')]: '4x8' }, [{ expr, at: 2, is: { '{}': 0 } }]);
    expectOf({ [sessions('state="idle"')]: '4x8', [sessions('wait_event_type="Lock",state="active"')]: '2x8' }, [
      { expr, at: 2, is: { '{}': 2 } },
    ]);
    expectOf({ up: '1x8' }, [{ expr, at: 2, is: {} }]);
  });

  it('a disk that fills has days left, one that does not has a year', () => {
    const expr = queryOf('loans-resources', 'Days until disk is full');
    const free = (mountpoint: string) =>
      `node_filesystem_avail_bytes{job="host",env="test",mountpoint="${mountpoint}"}`;
    // 864,000 bytes at 1 byte a second less: 10 days. At 16 minutes 960 of them are gone.
    expectOf({ [free('engine')]: '864960-15x64', [free('database')]: '5000000000x64' }, [
      { expr, at: 16, is: { '{mountpoint="engine"}': 10, '{mountpoint="database"}': 365 } },
    ]);
  });

  it('an alert that fires has the time since when it is true', () => {
    const expr = queryOf('loans-monitoring', 'Firing alerts');
    const labels = 'alertname="ApiDown",env="test",severity="critical"';
    expectOf(
      {
        [`ALERTS{${labels},alertstate="firing"}`]: '1x8',
        [`ALERTS_FOR_STATE{${labels}}`]: '1700x8',
        [`ALERTS{${labels.replace('ApiDown', 'ApiSlow')},alertstate="pending"}`]: '1x8',
        [`ALERTS_FOR_STATE{${labels.replace('ApiDown', 'ApiSlow')}}`]: '1800x8',
      },
      [{ expr, at: 2, is: { [`{${labels}}`]: 1_700_000 } }],
    );
  });

  it('a rise in a minute is the same number at every zoom', () => {
    const expr = queries.find(({ panel }) => panel === 'Loans created')!.expr;
    const series = {
      'loans_created_total{job="api",env="test",instance="a",track="stable",currency="KES"}': '0+5x240',
    };
    const at = (rateInterval: string) => substitute(expr, { rateInterval, range: '1h' });
    expectOf(series, [
      { expr: at('1m'), at: 50, is: { '{currency="KES"}': 20 } },
      { expr: at('30m'), at: 50, is: { '{currency="KES"}': 20 } },
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
