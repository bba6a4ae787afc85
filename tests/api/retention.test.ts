import { PassThrough } from 'node:stream';
import { openDatabase, type Database } from '../../app/db/pool';
import { applyRetention } from '../../app/retention';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { CONFIG, startService, type TestService, until } from './harness';
import { borrower, NOTHING } from './ledger';
import { environmentOf, run } from './process';

const NOW = new Date('2027-03-01T09:30:00Z');
/** The last moment that is due at NOW, and the first one that is not: 7 years plus a day, 7 years. */
const DUE = '2020-02-29T23:59:59.999999Z';
const KEPT = '2020-03-01T00:00:00Z';

let api: TestService;
let database: Database;
beforeEach(async () => {
  api = await startService();
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
  database = openDatabase(api.database.connection, api.database.secrets, telemetry);
});
afterEach(async () => {
  await database.close();
  await api.stop();
});

/** Loans with their events, as a life that ended in the given status at the given time leaves them. */
async function insert(loans: readonly { borrower: string; status: string; closedAt: string }[]): Promise<string[]> {
  const rows = await api.database.sql<{ id: string }>(
    `WITH loan AS (
       INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at, version)
       SELECT gen_random_uuid(), borrower, 12500.25, 'KES', status, closed::timestamptz - interval '30 days', closed::timestamptz, 2
       FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS given (borrower, status, closed, place)
       ORDER BY place RETURNING *),
     created AS (
       INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, amount, currency)
       SELECT id, 1, created_at, 'clerk', 'created', 'pending', amount, currency FROM loan),
     closed AS (
       INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, reason, amount, currency)
       SELECT id, 2, updated_at, 'clerk', 'transitioned', 'pending', status, 'why', amount, currency FROM loan)
     SELECT id FROM loan`,
    [loans.map((loan) => loan.borrower), loans.map((loan) => loan.status), loans.map((loan) => loan.closedAt)],
  );
  return rows.map(({ id }) => id);
}

const get = async (id: string) => {
  const answer = await api.ask('GET', `/api/v1/loans/${id}`);
  return { etag: answer.headers.etag, loan: answer.json() };
};
const eventsOf = async (id: string) =>
  (await api.ask('GET', `/api/v1/loans/${id}/events`)).json() as Record<string, unknown>[];
const apply = (options: object = {}) => applyRetention(database, 7, { now: NOW, dryRun: false, ...options });
const borrowers = async () =>
  (await api.database.sql<{ borrower_id: string }>('SELECT borrower_id FROM loans ORDER BY id')).map(
    (row) => row.borrower_id,
  );
const PSEUDONYM = /^pseudonym_[0-9a-f]{32}$/;

it('replaces the borrower of a loan that was closed 7 years and a day ago, and keeps all else', async () => {
  const [id = ''] = await insert([{ borrower: 'usr_kenya_001', status: 'repaid', closedAt: DUE }]);
  const [before, events, statistics] = [await get(id), await eventsOf(id), (await api.ask('GET', '/api/stats')).text];
  expect(await apply()).toEqual({
    dry_run: false,
    years: 7,
    closed_before: '2020-03-01T00:00:00.000Z',
    loans: 1,
    borrowers: 1,
    oldest_closed_at: DUE,
  });
  const after = await get(id);
  expect(after.loan).toEqual({
    ...before.loan,
    borrower_id: expect.stringMatching(PSEUDONYM),
    updated_at: NOW.toISOString(),
  });
  expect(after.etag).not.toBe(before.etag);
  expect((await api.ask('GET', '/api/stats')).text).toBe(statistics);
  expect(await eventsOf(id)).toEqual([
    ...events,
    {
      sequence: expect.any(Number),
      at: NOW.toISOString(),
      actor: 'retention',
      action: 'pseudonymised',
      from: 'repaid',
      to: 'repaid',
      reason: null,
      request_id: null,
      amount: '12500.25',
      currency: 'KES',
    },
  ]);
  const tables = ['loans', 'loan_events', 'idempotency_keys', 'repayments', 'loan_totals'];
  for (const table of tables) {
    expect(await api.database.sql(`SELECT 1 FROM ${table} WHERE ${table}::text LIKE '%usr_kenya_001%'`)).toEqual([]);
  }
});

it('keeps who is not due: not closed, or closed 7 years ago, or for ever', async () => {
  const open = ['pending', 'approved', 'disbursed', 'defaulted'];
  await insert([
    ...open.map((status) => ({ borrower: `open ${status}`, status, closedAt: '2001-01-01T00:00:00Z' })),
    { borrower: 'repaid later', status: 'repaid', closedAt: KEPT },
    { borrower: 'rejected later', status: 'rejected', closedAt: '2026-01-01T00:00:00Z' },
    { borrower: 'withdrawn later', status: 'withdrawn', closedAt: KEPT },
  ]);
  const before = await borrowers();
  expect(await apply()).toMatchObject({ loans: 0, borrowers: 0, oldest_closed_at: null });
  await insert([{ borrower: 'old', status: 'rejected', closedAt: DUE }]);
  expect(await applyRetention(database, 0, { now: NOW, dryRun: false })).toMatchObject({ years: 0, loans: 0 });
  expect((await borrowers()).sort()).toEqual([...before, 'old'].sort());
  expect(await applyRetention(database, 8, { now: NOW, dryRun: false })).toMatchObject({ loans: 0 });
  expect(await apply()).toMatchObject({ loans: 1 });
});

it('gives a borrower one pseudonym in a run and another one in the next, and never touches a loan twice', async () => {
  const loan = { borrower: 'a', status: 'repaid', closedAt: DUE };
  const earlier = { borrower: 'b', closedAt: '2001-01-01T00:00:00Z' };
  await insert([loan, { ...loan, status: 'withdrawn' }, { ...earlier, status: 'rejected' }]);
  expect(await apply({ dryRun: true })).toMatchObject({ dry_run: true, loans: 3, borrowers: 2 });
  expect((await borrowers()).sort()).toEqual(['a', 'a', 'b']);
  expect(await apply()).toMatchObject({ loans: 3, borrowers: 2, oldest_closed_at: '2001-01-01T00:00:00.000Z' });
  const first = await borrowers();
  expect([first.length, new Set(first).size]).toEqual([3, 2]);
  await insert([loan]);
  expect(await apply()).toMatchObject({ loans: 1 });
  expect(new Set(await borrowers()).size).toBe(3);
  // Even when the years since the pseudonym are over, too.
  const later = new Date('2041-01-01T00:00:00Z');
  expect(await apply({ now: later })).toMatchObject({ loans: 0 });
});

describe('a loan with a pseudonym', () => {
  /** Pays with `paid`, moves to `moves`, and lets years pass. */
  async function closedLongAgo(paid: string, moves: readonly ('defaulted' | 'repaid')[]) {
    const client = borrower(api);
    const path = await client.loan({ amount: '100.00', currency: 'USD', term_months: 2, interest_rate_apr: '12' });
    const payment = (await client.pay(path, paid)).json().repayment.id as string;
    for (const to of moves) expect((await client.move(path, to)).status).toBe(200);
    await api.database.sql("UPDATE loans SET created_at = '2018-01-01', updated_at = '2018-01-01'");
    expect(await apply()).toMatchObject({ loans: 1 });
    return { client, path, payment };
  }

  it('is what it was before it was repaid, when its payment is taken back: the debt is there again', async () => {
    const { client, path, payment } = await closedLongAgo('101.50', []);
    expect((await client.get(path)).json()).toMatchObject({ status: 'repaid' });
    const { balance } = (await client.reverse(path, payment)).json();
    expect(balance).toMatchObject({
      status: 'disbursed',
      paid: NOTHING,
      settled: NOTHING,
      outstanding: { total: '101.50' },
    });
    expect((await client.get(`${path}/balance`)).json()).toMatchObject({ status: 'disbursed', settled: NOTHING });
    expect((await client.pay(path, '101.50')).json().balance.status).toBe('repaid');
  });

  it('was defaulted before, if it was, also with a settlement', async () => {
    const { client, path, payment } = await closedLongAgo('1.50', ['defaulted', 'repaid']);
    expect((await client.reverse(path, payment)).json().balance).toMatchObject({
      status: 'defaulted',
      settled: { total: '100.00' },
      outstanding: { total: '1.50' },
    });
  });
});

it('goes on past a loan that the database does not let change, and names it', async () => {
  const [bad] = await insert([
    { borrower: 'bad', status: 'repaid', closedAt: '2001-01-01T00:00:00Z' },
    ...['a', 'b', 'c'].map((each) => ({ borrower: each, status: 'repaid', closedAt: DUE })),
  ]);
  // A rule that came after the row, as a CHECK that is NOT VALID.
  await api.database.sql(`ALTER TABLE loans ADD CONSTRAINT new_rule CHECK (id <> '${bad}') NOT VALID`);
  expect(await apply()).toMatchObject({
    loans: 3,
    failed: [{ loan_id: bad, reason: expect.stringContaining('new_rule') }],
  });
  expect((await borrowers()).filter((each) => !PSEUDONYM.test(each))).toEqual(['bad']);
  const { code, stdout } = await run(['retention'], environmentOf(api.database.connection));
  const result: unknown = JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
  expect([code, result]).toEqual([1, expect.objectContaining({ level: 'error', loans: 0 })]);
});

describe('more loans than a batch', () => {
  const COUNT = 1_234;
  beforeEach(() =>
    insert(
      Array.from({ length: COUNT }, (_, index) => ({
        borrower: `b${index % 100}`,
        status: index % 3 === 0 ? 'disbursed' : 'repaid',
        closedAt: new Date(Date.parse(DUE) - (index % 7) * 1_000).toISOString(),
      })),
    ),
  );
  const due = COUNT - Math.ceil(COUNT / 3);
  const done = async () => {
    const [row] = await api.database.sql<{ loans: string; events: string; versions: string }>(
      `SELECT count(*) AS loans, count(*) FILTER (WHERE version = 3) AS versions,
         (SELECT count(*) FROM loan_events WHERE action = 'pseudonymised') AS events
       FROM loans WHERE borrower_id LIKE 'pseudonym%'`,
    );
    return row;
  };

  it('are done in one run, with one pseudonym for each borrower', async () => {
    expect(await apply()).toMatchObject({ loans: due, borrowers: 100 });
    expect(await done()).toEqual({ loans: String(due), events: String(due), versions: String(due) });
    expect(new Set(await borrowers()).size).toBe(200); // Those of the open loans, and the pseudonyms.
  });

  it('are done once by runs at the same time', async () => {
    const results = (await Promise.all([apply(), apply(), apply()])) as { loans: number }[];
    expect(results.reduce((sum, { loans }) => sum + loans, 0)).toBe(due);
    expect(await done()).toEqual({ loans: String(due), events: String(due), versions: String(due) });
  });

  it('and a run that ends early has done some of them wholly; the next does the rest', async () => {
    const stopping = new AbortController();
    const query: Database['query'] = (statement, values) => {
      if (statement.name === 'retention_pseudonymise') stopping.abort();
      return database.query(statement, values);
    };
    const first = (await applyRetention({ ...database, query }, 7, {
      now: NOW,
      dryRun: false,
      signal: stopping.signal,
    })) as { loans: number };
    expect(first.loans).toBeGreaterThan(0);
    expect(first.loans).toBeLessThan(due);
    const part = String(first.loans);
    expect(await done()).toEqual({ loans: part, events: part, versions: part });
    expect(await apply()).toMatchObject({ loans: due - first.loans });
  });

  it('leave nothing half done where the history cannot be written', async () => {
    await api.database.sql(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$`);
    await api.database.sql('CREATE TRIGGER full_disk BEFORE INSERT ON loan_events EXECUTE FUNCTION full_disk()');
    await expect(apply()).rejects.toThrow('Nothing was written');
    expect(await done()).toEqual({ loans: '0', events: '0', versions: '0' });
  });
});

it('leaves a loan alone that somebody changes at the same moment', async () => {
  await api.database.unguard();
  const [id] = await insert([{ borrower: 'a', status: 'repaid', closedAt: DUE }]);
  const query: Database['query'] = async (statement, values) => {
    if (statement.name === 'retention_pseudonymise') {
      await api.database.sql("UPDATE loans SET status = 'disbursed', version = 3 WHERE id = $1", [id]);
    }
    return database.query(statement, values);
  };
  expect(await applyRetention({ ...database, query }, 7, { now: NOW, dryRun: false })).toMatchObject({ loans: 0 });
  expect(await borrowers()).toEqual(['a']);
});

it('runs by itself, once a day in one of all processes', async () => {
  await insert([{ borrower: 'a', status: 'repaid', closedAt: DUE }]);
  let now = NOW;
  const shared = { database: api.database.connection };
  const replicas = await Promise.all(
    [1, 2, 3].map(() => startService(shared, { now: () => now, retentionEveryMs: 5 })),
  );
  const runs = () =>
    replicas.flatMap((replica) => replica.logs()).filter(({ message }) => message === 'retention done');
  const looked = () => new Promise((resolve) => setTimeout(resolve, 200)); // Each of them, many times.
  try {
    await until(() => runs().length > 0);
    await looked();
    expect(runs()).toEqual([
      expect.objectContaining({ level: 'info', years: 7, loans: 1, borrowers: 1, stopped_early: false }),
    ]);
    await insert([{ borrower: 'b', status: 'repaid', closedAt: KEPT }]);
    now = new Date('2027-03-02T00:00:00Z');
    await until(() => runs().length > 1);
    await looked();
    expect(runs().map(({ loans }) => loans)).toEqual([1, 1]);
    expect((await borrowers()).filter((borrower) => !PSEUDONYM.test(borrower))).toEqual([]);
  } finally {
    await Promise.all(replicas.map((replica) => replica.stop()));
  }
});

it('is a command: says what it would do, does it, and finds nothing the second time', async () => {
  const closedAt = new Date(Date.now() - 10 * 365.25 * 86_400_000).toISOString();
  await insert([{ borrower: 'a', status: 'repaid', closedAt }]);
  const environment = environmentOf(api.database.connection);
  const retention = async (args: readonly string[], settings = {}) => {
    const { code, stdout } = await run(['retention', ...args], { ...environment, ...settings });
    return { code, ...(JSON.parse(stdout) as object) };
  };
  const found = { code: 0, message: 'retention done', years: 7, loans: 1, borrowers: 1, oldest_closed_at: closedAt };
  expect(await retention(['--dry-run'])).toMatchObject({ ...found, dry_run: true });
  expect(await retention([], { RETENTION_YEARS: '0' })).toMatchObject({ years: 0, loans: 0, closed_before: null });
  expect(await retention([])).toMatchObject({ ...found, dry_run: false });
  expect(await retention([])).toMatchObject({ ...found, loans: 0, borrowers: 0, oldest_closed_at: null });
});
