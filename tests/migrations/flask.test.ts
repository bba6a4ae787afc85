import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startService, type TestService } from '../api/harness';
import { createDatabase, type TestDatabase } from '../postgres/database';

/** The statements of docs/UPGRADING.md, on a database as the Flask program made it. */

const DOCUMENT = readFileSync(resolve(__dirname, '../../docs/UPGRADING.md'), 'utf8');
const blocks = (language: string) =>
  [...DOCUMENT.matchAll(new RegExp(`^ *\`\`\`${language}\n([^]*?)^ *\`\`\`$`, 'gm'))].map(([, text]) => text!);
const [makeTable = '', refused = '', insert = '', compare = '', drop = ''] = blocks('sql');
const copies = blocks('sh').flatMap((text) => [...text.matchAll(/COPY [^"']*(?:TO STDOUT|FROM STDIN)/g)].map(String));

/** As its only migration left it. */
const FLASK_SCHEMA = `CREATE TABLE loans (
  id uuid PRIMARY KEY,
  borrower_id varchar NOT NULL,
  amount numeric(12, 2) NOT NULL,
  currency varchar(3) NOT NULL,
  status varchar NOT NULL,
  term_months integer,
  interest_rate_apr numeric(5, 2),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT chk_amount_range CHECK (amount > 0 AND amount <= 50000),
  CONSTRAINT chk_status_enum
    CHECK (status IN ('pending', 'approved', 'rejected', 'disbursed', 'repaid', 'defaulted'))
)`;
const id = (number: number) => `00000000-0000-0000-0000-${String(number).padStart(12, '0')}`;
const LOANS = `INSERT INTO loans (id, borrower_id, amount, currency, status, term_months, interest_rate_apr, created_at, updated_at) VALUES
  ('${id(1)}', 'usr_kenya_001', 12500, 'KES', 'pending', 6, 28, '2025-11-01', '2025-11-01'),
  ('${id(11)}', E'a\\ttab, a \\\\ and\\na line', 950.5, 'KES', 'disbursed', 12, 24, '2025-01-31 23:30+00', '2025-02-01'),
  ('${id(12)}', 'b', 50000, 'INR', 'repaid', 3, 20, '2024-01-01', '2024-06-01'),
  ('${id(13)}', 'no term, no rate', 100, 'PHP', 'approved', NULL, NULL, '2024-01-02', '2024-01-02'),
  ('${id(14)}', 'no such currency', 7, 'QQQ', 'disbursed', 6, 10, '2024-01-03', '2024-01-03'),
  ('${id(15)}', 'half a dong', 8400.5, 'VND', 'disbursed', 6, 10, '2024-01-04', '2024-01-04'),
  ('${id(16)}', 'for ever', 1, 'KES', 'disbursed', 1200, 10, '2024-01-05', '2024-01-05'),
  ('${id(17)}', 'wrong', 1, 'k1s', 'pending', NULL, NULL, '2024-01-06', '2024-01-06'),
  ('${id(18)}', 'lower', 2, 'ngn', 'defaulted', NULL, NULL, '2024-01-07', '2024-01-07')`;

let flask: TestDatabase;
let service: TestService;
let directory: string;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'branchloans-flask-'));
  // The server writes there, as a user of its own.
  chmodSync(directory, 0o777);
  flask = await createDatabase({ migrated: false });
  await flask.sql(FLASK_SCHEMA);
  await flask.sql(LOANS);
  service = await startService();
});
afterAll(async () => {
  await service.stop();
  await flask.drop();
  rmSync(directory, { recursive: true });
});

/** Of the last statement of a block. */
async function rows(sql: string): Promise<Record<string, unknown>[]> {
  const results: Record<string, unknown>[][] = [];
  for (const statement of sql.split(/;\s*$/m).filter((text) => text.trim() !== '')) {
    results.push(await service.database.sql(statement));
  }
  return results.flat();
}
const json = async (path: string) => (await service.ask('GET', path)).json(); // eslint-disable-line @typescript-eslint/no-unsafe-return

it('brings all loans over, with history and statistics', async () => {
  const file = join(directory, 'loans.tsv');
  expect(copies).toHaveLength(2);
  // psql would carry the file through its own input and output.
  await flask.sql(copies[0]!.replace('STDOUT', `'${file}'`));
  await rows(makeTable);
  await service.database.sql(copies[1]!.replace('STDIN', `'${file}'`));
  expect(readFileSync(file, 'utf8').trimEnd().split('\n')).toHaveLength(9);

  expect((await rows(refused)).map((row) => row['borrower_id'])).toEqual(['wrong']);
  await expect(service.database.sql(insert)).rejects.toThrow(/loans_currency_check/);
  expect(await service.database.sql('SELECT FROM loans')).toEqual([]);
  await service.database.sql("UPDATE flask.loans SET currency = 'KES' WHERE currency = 'k1s'");

  // Sample loans are there before the old ones.
  await service.database
    .sql(`INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at, version)
    VALUES ('${id(1)}', 'usr_kenya_001', 12500, 'KES', 6, 28, 'pending', now(), now(), 1)`);
  expect((await rows(compare)).map((row) => row['id'])).toHaveLength(8);
  await service.database.sql(insert);
  await service.database.sql(insert);
  expect(await rows(compare)).toEqual([]);

  expect((await service.ask('GET', '/api/loans')).json()).toHaveLength(9);
  expect(await json(`/api/loans/${id(11)}`)).toEqual({
    id: id(11),
    borrower_id: 'a\ttab, a \\ and\na line',
    amount: '950.50',
    currency: 'KES',
    term_months: 12,
    interest_rate_apr: '24.00',
    status: 'disbursed',
    created_at: '2025-01-31T23:30:00.000Z',
    updated_at: '2025-02-01T00:00:00.000Z',
  });
  const statistics = await json('/api/stats');
  expect(statistics.total_loans).toBe(9);
  expect(statistics.by_currency.KES).toMatchObject({ loans: 4, total_amount: '13452.50' });
  expect(statistics.by_currency.NGN).toMatchObject({ loans: 1, total_amount: '2.00' });
  expect(await json(`/api/v1/loans/${id(12)}/events`)).toMatchObject([
    { action: 'created', actor: 'unrecorded', to: 'repaid', at: '2024-01-01T00:00:00.000Z' },
  ]);
});

it('goes on with them as with any other loan', async () => {
  expect(await json(`/api/v1/loans/${id(11)}/balance`)).toMatchObject({ paid: { total: '0.00' } });
  expect(await json(`/api/v1/loans/${id(12)}/balance`)).toMatchObject({ outstanding: { total: '0.00' } });
  const schedule = (number: number) => service.ask('GET', `/api/v1/loans/${id(number)}/schedule`);
  expect((await schedule(11)).json().instalments[0].due_date).toBe('2025-03-01');
  for (const number of [14, 15, 16]) {
    const answer = await schedule(number);
    expect([answer.status, answer.json().type]).toEqual([409, 'urn:problem:no-schedule']);
    const paid = await service.ask('POST', `/api/v1/loans/${id(number)}/repayments`, {
      headers: { 'content-type': 'application/json', 'idempotency-key': `pay-${number}` },
      body: '{"amount": "1"}',
    });
    expect(paid.status).toBe(409);
  }
  const moved = await service.ask('POST', `/api/v1/loans/${id(13)}/transitions`, {
    headers: { 'content-type': 'application/json' },
    body: '{"to": "disbursed"}',
  });
  expect(moved.status).toBe(200);
  await rows(drop);
  expect(await service.database.sql("SELECT FROM pg_namespace WHERE nspname = 'flask'")).toEqual([]);
});
