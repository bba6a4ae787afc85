import { Agent } from 'node:http';
import { PassThrough } from 'node:stream';
import { openDatabase } from '../../app/db/pool';
import { recountLedgers } from '../../app/db/recount';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { ask, CONFIG, LOAN, startService, type TestService, until } from './harness';
import { borrower } from './ledger';
import { environmentOf, serve } from './process';
import { startProxy } from './proxy';

/** The metrics of the book: kept figures of all loans, read every now and then. */

type Figures = (series: string) => number | undefined;

async function figures(port: number): Promise<Figures> {
  const { text } = await ask(port, 'GET', '/metrics', { agent: new Agent({ maxSockets: 1 }) });
  const values = new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))] as const),
  );
  return (series) => values.get(series);
}

const loans = (status: string, currency = 'KES') => `loans_current{status="${status}",currency="${currency}"}`;
const amount = (status: string, currency = 'KES') => `loans_amount_current{status="${status}",currency="${currency}"}`;
const outstanding = (currency = 'KES') => `loans_principal_outstanding{currency="${currency}"}`;
const REFRESHED = 'loans_metrics_refreshed_timestamp_seconds';

/** Waits for a reading that began after this call. */
async function fresh(port: number): Promise<Figures> {
  const before = Date.now() / 1_000;
  let read: Figures = () => undefined;
  await until(async () => ((read = await figures(port))(REFRESHED) ?? 0) > before + 0.05);
  return read;
}

describe('with a database', () => {
  let api: TestService;
  beforeAll(async () => {
    api = await startService({}, { readBookEveryMs: 50 });
  });
  afterAll(() => api.stop());

  it('tells of every status in every usual currency from the first scrape on', async () => {
    const of = await figures(api.port);
    expect(of(REFRESHED)).toBeGreaterThan(Date.now() / 1_000 - 30);
    expect([of(loans('pending')), of(amount('repaid', 'VND')), of(outstanding('NGN'))]).toEqual([0, 0, 0]);
  });

  it('follows loans through their life, and the principal to the cent', async () => {
    const client = borrower(api);
    const { move, pay, reverse, get } = client;
    const [first, second] = [await client.loan(), await client.loan({ amount: '500.00', currency: 'NGN' }, [])];
    expect((await move(second, 'rejected')).status).toBe(200);
    let of = await fresh(api.port);
    expect([of(loans('disbursed')), of(amount('disbursed')), of(outstanding())]).toEqual([1, 12_500, 12_500]);
    expect([of(loans('rejected', 'NGN')), of(amount('rejected', 'NGN')), of(outstanding('NGN'))]).toEqual([1, 500, 0]);

    const paid = await pay(first, '3000.00');
    const owed = async () => Number((await get(`${first}/balance`)).json().outstanding.principal);
    of = await fresh(api.port);
    expect(of(outstanding())).toBe(await owed());
    expect(of(outstanding())).toBeLessThan(12_500);
    expect(of(outstanding())).toBeGreaterThan(9_500); // Interest comes first.

    expect((await reverse(first, paid.json().repayment.id as string)).status).toBe(201);
    expect((await fresh(api.port))(outstanding())).toBe(12_500);
    const all = (await get(`${first}/balance`)).json().outstanding.total as string;
    expect((await pay(first, all)).status).toBe(201);
    of = await fresh(api.port);
    expect([of(loans('disbursed')), of(amount('disbursed')), of(loans('repaid')), of(outstanding())]).toEqual([
      0, 0, 1, 0,
    ]);
  });

  it('times decisions, and counts what is asked for', async () => {
    const before = await figures(api.port);
    await borrower(api).loan({ amount: '900.00' }, ['approved']);
    const of = await figures(api.port);
    const rise = (series: string) => (of(series) ?? NaN) - (before(series) ?? NaN);
    expect(rise('loan_decision_duration_seconds_count')).toBe(1);
    expect(rise('loan_decision_duration_seconds_bucket{le="1"}')).toBe(1);
    expect(rise('loan_amount_requested_bucket{le="1000",currency="KES"}')).toBe(1);
    expect(rise('loan_amount_requested_sum{currency="KES"}')).toBe(900);
    expect(of('loan_amount_requested_count{currency="VND"}')).toBe(0);
  });

  it('adds up beyond a dozen currencies, and never their amounts', async () => {
    const codes = ['USD', 'EUR', 'GBP', 'JPY', 'CHF', 'SEK', 'NOK', 'DKK', 'PLN', 'CZK'];
    for (const currency of codes) await api.post({ ...LOAN, amount: '100', currency });
    // Of a release that took any three letters.
    await api.database.sql(
      `INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at)
       VALUES (gen_random_uuid(), 'b', 7, 'ZZZ', 'pending', now(), now())`,
    );
    const of = await fresh(api.port);
    const named = codes.filter((code) => of(loans('pending', code)) !== undefined);
    expect(named).toEqual(codes.slice(0, 7));
    expect(of(loans('pending', 'other'))).toBe(4);
    expect(of('loans_created_total{currency="other"}')).toBe(3);
    expect([of(amount('pending', 'other')), of(outstanding('other')), of(loans('pending', 'ZZZ'))]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });
});

it('goes on trying while the database is away, and tells how old its figures are', async () => {
  const behind = await createDatabase();
  const network = await startProxy(behind.connection.port);
  const api = await startService(
    { database: { ...behind.connection, port: network.port, connectTimeoutMs: 200 } },
    { readBookEveryMs: 50 },
  );
  await ask(api.port, 'POST', '/api/loans', {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(LOAN),
  });
  expect((await fresh(api.port))(loans('pending'))).toBe(1);
  const said = (message: string) => api.logs().filter((line) => line.message === message).length;

  network.become('refuse');
  await until(() => said('metrics of the book not refreshed') === 1);
  const stale = await figures(api.port);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const later = await figures(api.port);
  expect([later(REFRESHED), later(loans('pending'))]).toEqual([stale(REFRESHED), 1]);
  expect(said('metrics of the book not refreshed')).toBe(1);
  expect(api.service.ports()).toEqual([api.port]);

  network.become('pass');
  expect((await fresh(api.port))(loans('pending'))).toBe(1);
  expect(said('metrics of the book are fresh again')).toBe(1);
  await api.stop();
  await network.close();
  await behind.drop();
});

it('starts without a database, at once, with figures that were never read', async () => {
  const behind = await createDatabase();
  const network = await startProxy(behind.connection.port);
  network.become('refuse');
  const api = await startService({ database: { ...behind.connection, port: network.port } }, { readBookEveryMs: 50 });
  const of = await figures(api.port);
  expect([of(REFRESHED), of(loans('pending'))]).toEqual([undefined, undefined]);
  network.become('pass');
  expect((await fresh(api.port))(loans('pending'))).toBe(0);
  await api.stop();
  await network.close();
  await behind.drop();
});

it('is told once by several processes', async () => {
  const database = await createDatabase();
  await database.sql(
    `INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at)
     SELECT gen_random_uuid(), 'b', 7, 'KES', 'disbursed', now(), now() FROM generate_series(1, 3)`,
  );
  const service = await serve({ ...environmentOf(database.connection), PROCESSES: '2' });
  const of = await figures(service.port);
  expect([of(loans('disbursed')), of(amount('disbursed')), of(outstanding())]).toEqual([3, 21, 21]);
  expect(Math.abs(of(REFRESHED)! - Date.now() / 1_000)).toBeLessThan(60);
  expect((await service.end('SIGTERM')).code).toBe(0);
  await database.drop();
});

describe('recount', () => {
  let database: TestDatabase;
  let api: TestService;
  beforeAll(async () => {
    api = await startService();
    database = api.database;
  });
  afterAll(() => api.stop());

  it('makes up for payments that a release before wrote', async () => {
    const client = borrower(api);
    const { pay, get } = client;
    const path = await client.loan();
    await pay(path, '3000.00');
    const principal = (await get(`${path}/balance`)).json().paid.principal as string;
    await database.sql('UPDATE loans SET principal_paid = 0');
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
    const connected = openDatabase(database.connection, database.secrets, telemetry);
    const now = new Date();
    const wrong = { principalCorrected: 1, settlementsWritten: 0, failed: [] };
    expect(await recountLedgers(connected, true, now)).toEqual(wrong);
    expect(await recountLedgers(connected, false, now)).toEqual(wrong);
    expect(await recountLedgers(connected, false, now)).toEqual({ ...wrong, principalCorrected: 0 });
    await connected.close();
    expect(await database.sql('SELECT sum(principal_paid)::numeric(30, 2) AS paid FROM loan_totals')).toEqual([
      { paid: principal },
    ]);
    expect(await database.sql('SELECT * FROM loan_totals_missing')).toEqual([]);
  });
});
