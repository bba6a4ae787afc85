import { setTimeout as sleep } from 'node:timers/promises';
import { type Asked, emptyOf, type Get, hasData, nameOf, run } from '../dashboards/ask';
import { type Dashboard, loadDashboards, OPTIONS, queriesOf, type Query } from '../dashboards/model';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { ask, type Load, startLoad } from './load';

/**
 * What every panel of every dashboard asks is asked of the Prometheus of a real stack under load. DASHBOARDS names those
 * to look at, without "loans-" and separated by commas; all of them if it is not set.
 */

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();
const wanted = process.env.DASHBOARDS?.split(',');
const dashboards = loadDashboards().filter(({ uid }) => wanted?.includes(uid.replace('loans-', '')) ?? true);
const shows = (uid: string) => dashboards.some((dashboard) => dashboard.uid === uid);

/** Without data when all is well. The fault that fills them is made below. */
const EMPTY_WHEN_WELL: readonly { readonly query: string; readonly fault: keyof typeof FAULTS }[] = [
  { query: 'loans-postgres / Slow queries by operation / A', fault: 'locked' },
  { query: 'loans-slo / Firing alerts of the objectives / A', fault: 'databaseAway' },
  ...dashboards.map(({ uid }) => ({ query: `${uid} / annotation Alerts / Alerts`, fault: 'databaseAway' as const })),
];
/** A stack of some minutes has no yesterday to compare with. */
const ofThePast = ({ expr }: Query) => / offset 1[dw]\b/.test(expr);
const FAULTS = {
  locked: 'somebody holds a lock on the loans for longer than a query may take',
  databaseAway: 'the database is stopped, and the budget burns',
} as const;

const ASKED: Asked = { rateInterval: '1m', range: '10m', seconds: 300 };

jest.setTimeout(600_000);

describeUnless(reason, 'dashboards of a real stack under load', () => {
  let environment: TestEnvironment;
  let traffic: Load | undefined;
  let user: string;

  beforeAll(async () => {
    environment = await TestEnvironment.create('development', (settings) => {
      delete settings['branchloans:exporters'];
      const api = settings['branchloans:api'] as Record<string, unknown>;
      settings['branchloans:api'] = { ...api, rateLimit: '100000/10', keys: 'required' };
    });
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    user = `admin:${environment.output('prometheusPassword')}`;
    traffic = startLoad(environment, { rate: 30 });
    await liveLoan();
  });
  afterAll(async () => {
    await traffic?.stop().catch(() => undefined);
    await environment.remove();
  });

  /** Containers of this stack have another name than those of the dashboards that were made for the test. */
  const ownQueries = (of: readonly Dashboard[]) =>
    queriesOf(of).map((query) => ({ ...query, expr: query.expr.replaceAll(OPTIONS.prefix, environment.prefix) }));

  const get: Get = async (path) =>
    (await ask(`${environment.url}/prometheus/api/v1/${path}`, environment.authority, { user })).body;
  const value = async (expr: string) =>
    Math.max(0, ...(await run(get, { expr, instant: true }, ASKED)).flatMap((it) => it.values));

  /** What the load does not do: a loan from its request to its repayments, one that is refused, and a wrong key. */
  async function liveLoan(): Promise<void> {
    const { url, authority, key } = environment;
    const post = async (path: string, body: object) => {
      const { status, body: text } = await ask(`${url}/api/v1/loans${path}`, authority, { method: 'POST', body, key });
      if (status >= 300) throw new Error(`POST ${path}: ${status} ${text}`);
      return JSON.parse(text) as { id: string };
    };
    const request = { borrower_id: 'usr_dashboards_1', amount: '950.50', currency: 'KES', term_months: 6 };
    const { id } = await post('', request);
    await post(`/${id}/transitions`, { to: 'approved' });
    await post(`/${id}/transitions`, { to: 'disbursed' });
    await post(`/${id}/repayments`, { amount: '10.00' });
    const refused = await post('', request);
    await post(`/${refused.id}/transitions`, { to: 'rejected', reason: 'for the test' });
    await ask(`${url}/api/v1/loans`, authority, { key: 'bl_development_wrong' });
  }

  /** Asks again what had no data, until all of it has: rules are recorded each minute, scrapes come each 15 s. */
  async function emptyAfter(of: readonly Dashboard[], seconds: number): Promise<string[]> {
    const end = Date.now() + seconds * 1_000;
    const known = new Set(EMPTY_WHEN_WELL.map(({ query }) => query));
    let left = ownQueries(of).filter((query) => !known.has(nameOf(query)) && !ofThePast(query));
    for (;;) {
      const empty = new Set(await emptyOf(get, left, ASKED));
      left = left.filter((query) => empty.has(nameOf(query)));
      if (left.length === 0 || Date.now() > end) return left.map((query) => `${nameOf(query)}: ${query.expr}`);
      // What counts events needs some in the window that it looks at.
      await liveLoan();
      await sleep(10_000);
    }
  }

  it.each(dashboards.map((dashboard) => [dashboard.title, dashboard] as const))(
    '%s: every query has data',
    async (_, it) => {
      expect(await emptyAfter([it], 180)).toEqual([]);
    },
  );

  const named = (uid: string, panel: string) => {
    const query = ownQueries(dashboards).find((query) => query.dashboard === uid && query.panel === panel);
    if (query === undefined) throw new Error(`${uid} has no panel ${panel}`);
    return query;
  };
  const filled = async (query: string, seconds: number) => {
    const found = ownQueries(dashboards).find((it) => nameOf(it) === query)!;
    const end = Date.now() + seconds * 1_000;
    while (!hasData(await run(get, found, ASKED)) && Date.now() < end) await sleep(5_000);
    return hasData(await run(get, found, ASKED));
  };
  const filledBy = (fault: keyof typeof FAULTS) =>
    EMPTY_WHEN_WELL.filter((it) => it.fault === fault && shows(it.query.split(' / ')[0]!)).map(({ query }) => query);

  if (filledBy('locked').length > 0)
    it(`${FAULTS.locked}: ${filledBy('locked').join(', ')}`, async () => {
      const lock = 'BEGIN; LOCK TABLE loans IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT';
      for (let turn = 0; turn < 3; turn++) {
        environment.sql(lock);
        await sleep(2_000);
      }
      for (const query of filledBy('locked')) expect([query, await filled(query, 60)]).toEqual([query, true]);
    });

  if (shows('loans-requests') || filledBy('databaseAway').length > 0)
    it(`${FAULTS.databaseAway}: errors are seen${filledBy('databaseAway')
      .map((query) => `, ${query}`)
      .join('')}`, async () => {
      const database = `${environment.prefix}-database`;
      docker(['stop', '--time', '5', database]);
      try {
        if (shows('loans-requests')) {
          const end = Date.now() + 90_000;
          const errors = named('loans-requests', 'Error ratio').expr;
          while ((await value(errors)) < 0.5 && Date.now() < end) await sleep(5_000);
          expect(await value(errors)).toBeGreaterThan(0.5);
        }
        for (const query of filledBy('databaseAway')) expect([query, await filled(query, 300)]).toEqual([query, true]);
      } finally {
        docker(['start', database]);
      }
    });
});
