import { rmSync } from 'node:fs';
import { migrate } from '../../app/db/migrate';
import { ask, LOAN } from '../api/harness';
import { borrower } from '../api/ledger';
import { environmentOf, run, serve } from '../api/process';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { describeUnless } from '../skip';
import { previousRelease, unpack } from './previous-release';

/**
 * A database that the release before the roles really made, with all that a book has after some years: what it holds
 * is the same after the migrations, and so are the statistics. The release is run out of git, so there is no dump to keep.
 */

jest.setTimeout(120_000);

const BEFORE = 'cdb0496';
const previous = previousRelease(undefined, BEFORE);
const program = typeof previous === 'string' ? previous : unpack(previous);

/** A closed loan in a currency that ISO 4217 has withdrawn. */
const WITHDRAWN = '/api/v1/loans/00000000-0000-0000-0000-0000000000b2';

/** All rows of a table, each as text, with the columns that it had. */
const ROWS = {
  loans: 'SELECT * FROM loans ORDER BY id',
  loan_events: 'SELECT * FROM loan_events ORDER BY sequence',
  repayments: 'SELECT * FROM repayments ORDER BY id',
  api_keys:
    'SELECT id, digest, name, scopes, created_at, expires_at, revoked_at, replaced_by FROM api_keys ORDER BY id',
  idempotency_keys: 'SELECT * FROM idempotency_keys ORDER BY principal, operation, key',
  totals: `SELECT currency, status, sum(loans) AS loans, sum(amount) AS amount, sum(principal_paid) AS principal_paid
    FROM loan_totals GROUP BY currency, status ORDER BY currency, status`,
} as const;
type Book = Record<keyof typeof ROWS, Record<string, unknown>[]>;

describeUnless(typeof program === 'string' ? program : undefined, 'a database of the release before', () => {
  const root = typeof program === 'string' ? '' : program.root;
  let database: TestDatabase;
  let before: Book;
  /** By path: what the release before said of it. */
  const said = new Map<string, unknown>();
  const keys: string[] = [];

  const book = async () =>
    Object.fromEntries(
      await Promise.all(Object.entries(ROWS).map(async ([name, sql]) => [name, await database.sql(sql)] as const)),
    ) as Book;
  const command = async (args: string[]) => {
    const { code, stdout, stderr } = await run(args, environmentOf(database.connection), root);
    if (code !== 0) throw new Error(stdout + stderr);
    return { stdout: stdout.trim() };
  };

  beforeAll(async () => {
    database = await createDatabase({ migrated: false, walled: false });
    await command(['migrate']);
    await command(['seed']);
    const older = await serve(environmentOf(database.connection), undefined, root);
    const at = borrower({
      post: (body) => at.post('/api/v1/loans', body as object),
      ask: (method, path, options) => ask(older.port, method, path, options),
    });
    const paths = {
      pending: await at.loan({}, []),
      rejected: await at.loan({}, ['rejected']),
      approved: await at.loan({}, ['approved']),
      defaulted: await at.loan({}, ['approved', 'disbursed', 'defaulted']),
      settled: await at.loan(),
      reversed: await at.loan({ amount: '900.00', currency: 'USD' }),
      repaid: await at.loan({ amount: '8400', currency: 'VND' }),
    };
    await at.pay(paths.settled, '10.00');
    await at.move(paths.settled, 'repaid');
    const total = async (path: string) => (await at.get(`${path}/balance`)).json().outstanding.total as string;
    await at.pay(paths.repaid, await total(paths.repaid));
    const { repayment } = (await at.pay(paths.reversed, await total(paths.reversed))).json();
    expect((await at.reverse(paths.reversed, repayment.id as string)).json().balance.status).toBe('disbursed');
    await at.pay(paths.reversed, '5.00', { 'idempotency-key': 'kept' });

    // Of a currency that was withdrawn meanwhile, with a payment, and one that was closed long ago.
    await database.sql(`INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at)
      VALUES ('00000000-0000-0000-0000-0000000000b1', 'b', 1000.5, 'BGN', 12, 10, 'disbursed', '2025-11-01Z', '2025-11-02Z'),
        ('00000000-0000-0000-0000-0000000000b2', 'b', 1000, 'BYR', 12, 10, 'repaid', '2014-11-01Z', '2015-11-02Z')`);
    await database.sql(`INSERT INTO repayments (id, loan_id, version, amount, currency, date, actor, created_at)
      VALUES (gen_random_uuid(), '00000000-0000-0000-0000-0000000000b1', 1, 88.25, 'BGN', '2025-12-01', 'unauthenticated', '2025-12-01Z')`);
    expect(JSON.parse((await command(['retention'])).stdout)).toMatchObject({ loans: 1, borrowers: 1 });

    const key = async (args: string[]) => (await command(['api-key', ...args])).stdout;
    const create = ['create', '--name', 'desk', '--scopes', 'loans:read', '--expires-days', '30'];
    keys.push(await key(create));
    keys.push(await key(['rotate', '--id', keys[0]!.split('_')[2]!]));
    await command(['api-key', 'revoke', '--id', (await key(create)).split('_')[2]!]);

    for (const path of [...Object.values(paths), WITHDRAWN]) {
      said.set(path, (await at.get(path)).json());
      said.set(`${path}/events`, (await at.get(`${path}/events`)).json());
      if (![paths.settled, WITHDRAWN].includes(path))
        said.set(`${path}/balance`, (await at.get(`${path}/balance`)).json());
    }
    said.set('/api/v1/stats', (await at.get('/api/v1/stats')).json());
    await older.end('SIGTERM');
    before = await book();
    expect(before.loans.filter(({ borrower_id: id }) => String(id).startsWith('pseudonym_'))).toHaveLength(1);

    await database.wall();
    expect((await migrate(database.owner, database.secrets)).violated).toBeUndefined();
  });
  afterAll(async () => {
    await (database as TestDatabase | undefined)?.drop();
    if (root !== '') rmSync(root, { recursive: true });
  });

  it('has every row as it was', async () => {
    const after = await book();
    for (const [table, rows] of Object.entries(before)) {
      expect([table, after[table as keyof Book]]).toEqual([
        table,
        rows.map((row) => expect.objectContaining(row) as unknown),
      ]);
    }
  });

  it('has statistics that a full count agrees with, and constraints that every row keeps', async () => {
    expect(await database.sql('SELECT * FROM loan_totals_missing')).toEqual([]);
    expect(await database.sql('SELECT conname FROM pg_constraint WHERE NOT convalidated')).toEqual([]);
  });

  it('is shown by this release as by that one, and its keys open', async () => {
    const newer = await serve(environmentOf(database.connection));
    try {
      for (const [path, answer] of said) {
        expect([path, (await ask(newer.port, 'GET', path)).json()]).toMatchObject([path, answer]);
      }
      for (const key of keys) {
        const headers = { authorization: `Bearer ${key}` };
        expect((await ask(newer.port, 'GET', '/api/v1/loans', { headers })).status).toBe(200);
      }
      const again = await ask(newer.port, 'POST', '/api/v1/loans', {
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(LOAN),
      });
      expect(again.status).toBe(201);
    } finally {
      await newer.end('SIGTERM');
    }
  });
});
