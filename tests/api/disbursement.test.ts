import { PassThrough } from 'node:stream';
import { openDatabase } from '../../app/db/pool';
import { seed } from '../../app/db/samples';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { CONFIG, startService, type TestService } from './harness';
import { borrower, NOTHING } from './ledger';
import { OLD_INSERT, withReleases } from './migrations';

/** The day of the disbursement, which a schedule counts from, of loans that this release did not disburse. */
let api: TestService;
let at: ReturnType<typeof borrower>;
beforeAll(async () => {
  api = await startService();
  at = borrower(api);
});
afterAll(() => api.stop());

/** What the release before migration 0006 runs to move a loan; it writes the event in the same statement. */
const OLD_MOVE = `WITH changed AS (UPDATE loans SET status = $2, updated_at = $3, version = version + 1 WHERE id = $1 RETURNING *),
  event AS (INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, amount, currency)
    SELECT id, version, updated_at, 'old', 'transitioned', $4, status, amount, currency FROM changed)
  SELECT disbursed_on::text AS date FROM changed`;
const insert = (status: string, updatedAt: string) =>
  OLD_INSERT.replace("'disbursed'", `'${status}'`).replace('now()', `'${updatedAt}'`);

it('comes from the events, else from the last change, and costs no rewrite of the table', async () => {
  await withReleases(async (database, upTo) => {
    await upTo(5);
    const add = async (status: string, updatedAt: string) =>
      (await database.sql<{ id: string }>(insert(status, updatedAt)))[0]!.id;
    const disbursed = await add('disbursed', '2026-03-31T23:59:59Z');
    const pending = await add('pending', '2026-01-01T00:00:00Z');
    const moved = await add('approved', '2026-01-01T00:00:00Z');
    const before0006 = OLD_MOVE.replace('SELECT disbursed_on::text AS date FROM changed', 'SELECT id FROM changed');
    await database.sql(before0006, [moved, 'disbursed', '2026-02-28T23:59:59.999Z', 'approved']);
    await database.sql(before0006, [moved, 'defaulted', '2026-06-01T00:00:00Z', 'disbursed']);
    const fileNode = () => database.sql("SELECT pg_relation_filenode('loans') AS node");
    const before = await fileNode();
    await upTo(6);
    expect(await fileNode()).toEqual(before);
    const dates = async () => {
      const rows = await database.sql<{ id: string; date: string | null }>(
        `SELECT id, loan_disbursed_on(loans)::text AS date FROM loans`,
      );
      return Object.fromEntries(rows.map(({ id, date }) => [id, date]));
    };
    expect(await dates()).toEqual({ [disbursed]: '2026-03-31', [pending]: null, [moved]: '2026-02-28' });

    // The old release goes on: what it changes keeps its day, and what it disburses gets one.
    const move = async (id: string, ...[to, when, from]: string[]) =>
      (await database.sql<{ date: string | null }>(OLD_MOVE, [id, to, when, from]))[0]!.date;
    expect(await move(disbursed, 'defaulted', '2026-05-05T00:00:00Z', 'disbursed')).toBe('2026-03-31');
    expect(await move(disbursed, 'repaid', '2026-05-06T00:00:00Z', 'defaulted')).toBe('2026-03-31');
    expect(await move(moved, 'repaid', '2026-07-01T00:00:00Z', 'defaulted')).toBe('2026-02-28');
    expect(await move(pending, 'approved', '2026-04-01T00:00:00Z', 'pending')).toBeNull();
    expect(await move(pending, 'disbursed', '2026-04-30T23:30:00Z', 'approved')).toBe('2026-04-30');
    const added = await add('disbursed', '2026-08-08T00:00:00Z');
    expect((await dates())[added]).toBe('2026-08-08');
  });
});

it('is UTC, wherever whoever writes the row may be', async () => {
  await api.database.sql(`ALTER DATABASE ${api.database.connection.name} SET TimeZone = 'Pacific/Kiritimati'`);
  const [row] = await api.database.sql<{ id: string }>(insert('disbursed', '2026-01-31T23:30:00Z'));
  expect((await at.get(`/api/loans/${row!.id}/schedule`)).json().start_date).toBe('2026-01-31');
});

it('stays when an older loan is paid back', async () => {
  const [row] = await api.database.sql<{ id: string }>(insert('disbursed', '2026-01-31T23:30:00Z'));
  const path = `/api/v1/loans/${row!.id}`;
  const before = await at.get(`${path}/schedule`);
  const paid = await at.pay(path, { amount: '100', date: '2026-02-01' });
  expect(paid.status).toBe(201);
  expect((await at.get(`${path}/schedule`)).text).toBe(before.text);
  const { outstanding } = (await at.get(`${path}/balance`)).json();
  const last = await at.pay(path, outstanding.total as string);
  expect(last.json().balance.status).toBe('repaid');
  expect((await at.reverse(path, last.json().repayment.id as string)).json().balance.status).toBe('disbursed');
});

it('of the sample loans is the day they were made; the one that is repaid was settled', async () => {
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
  const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
  await seed(database, new Date());
  await database.close();
  const today = new Date().toISOString().slice(0, 10);
  const sample = (number: number) => `/api/v1/loans/00000000-0000-0000-0000-00000000000${number}`;
  for (const number of [1, 2, 3, 4, 5]) {
    expect((await at.get(`${sample(number)}/schedule`)).json()).toMatchObject({
      start_date: today,
      projected: number < 4,
    });
  }
  const vnd = (await at.get(`${sample(4)}/balance`)).json();
  expect(vnd).toMatchObject({ status: 'disbursed', outstanding: { principal: '8400.00', total: '8860.00' } });
  const php = (await at.get(`${sample(5)}/balance`)).json();
  expect(php).toMatchObject({
    status: 'repaid',
    outstanding: NOTHING,
    paid: NOTHING,
    settled: { principal: '21000.00' },
  });
  expect((await at.pay(sample(4), '8860.00')).json().balance.status).toBe('repaid');
});
